"""The kernel as PyTensor operations: the log density of each row, and its pullback (its transposed derivative)."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op

from bayesgmm import native
from bayesgmm.native import address
from bayesgmm.patterns import Patterns

_N_DATA = 8  # inputs that are constants: X, center, five of the groups, and the noise's density


def further_data(patterns: Patterns | None, noise: np.ndarray | None, n_features: int) -> list[Any]:
    """What else `LogDensity` takes: groups of rows, none where all are known and exact, and the noise's density."""
    D = n_features
    if patterns is None:
        none = np.empty(0, np.int64)
        arrays = [none, none, none, np.empty((0, D), np.int64), np.empty((0, D, D))]
    else:
        errors = np.empty((0, D, D)) if patterns.errors is None else patterns.errors
        arrays = [patterns.order, patterns.start, patterns.n_observed, patterns.columns, errors]
    arrays.append(np.empty(0) if noise is None else noise)
    return [pytensor.shared(array) for array in arrays]  # constants would be compiled into the code


class LogDensity(Op):
    """Log mixture density of each row's values (N,), in nats, as a function of the rows and the mixture's parameters.

    Parameters
    ----------
    diagonal : bool
        Promises that the factors P of the precisions are diagonal.
    """

    __props__ = ("diagonal",)

    def __init__(self, diagonal: bool) -> None:
        self.diagonal = diagonal

    def make_node(self, *inputs):
        """Inputs: X (N, D), center (D,), those of `further_data`, log_scale (K,), offsets (K, D), P (K, D, D).

        With noise the log of its weight follows the log scales.
        """
        _tell_numba()
        return Apply(self, [pt.as_tensor_variable(i) for i in inputs], [pt.dvector()])

    def perform(self, node, inputs, output_storage):
        """Evaluate without compiling the graph."""
        sizes, arrays = _arguments(self, inputs)
        output_storage[0][0] = out = np.zeros(sizes[0])
        native.rows_log_prob(*sizes, *_addresses(arrays), address(out))

    def connection_pattern(self, node):
        """The data are constants."""
        return [[i >= _N_DATA] for i in range(len(node.inputs))]

    def pullback(self, inputs, outputs, cotangents):
        """Gradient with respect to log scales, offsets and factors; the data have none."""
        return [disconnected_type() for _ in range(_N_DATA)] + Pullback(self.diagonal)(*inputs, cotangents[0])


class Pullback(Op):
    """Gradient of the sum of the rows' log densities, weighted by a cotangent (N,).

    It is with respect to the mixture's log scales, offsets and factors P.

    Parameters
    ----------
    diagonal : bool
        Promises that the factors P of the precisions are diagonal.
    """

    __props__ = ("diagonal",)

    def __init__(self, diagonal: bool) -> None:
        self.diagonal = diagonal

    def make_node(self, *inputs):
        """Inputs: those of `LogDensity`, and the cotangent."""
        return Apply(self, [pt.as_tensor_variable(i) for i in inputs], [pt.dvector(), pt.dmatrix(), pt.dtensor3()])

    def perform(self, node, inputs, output_storage):
        """Evaluate without compiling the graph."""
        sizes, arrays = _arguments(self, inputs)
        out = [np.empty_like(array) for array in arrays[_N_DATA:-1]]
        native.rows_pullback(*sizes, *_addresses(arrays), *map(address, out))
        for storage, value in zip(output_storage, out, strict=True):
            storage[0] = value


def _arguments(op: LogDensity | Pullback, inputs: list[Any]) -> tuple[tuple[int, ...], list[np.ndarray]]:
    """Sizes and contiguous arrays as the core takes them."""
    arrays = [np.ascontiguousarray(i) for i in inputs]
    X, _, _, _, n_observed, _, errors, noise, _, offsets, *_ = arrays
    return (*X.shape, len(offsets), op.diagonal, len(n_observed), len(errors), len(noise)), arrays


def _addresses(arrays: list[np.ndarray]) -> list[int]:
    return [address(array, array.dtype.type) for array in arrays]


@cache
def _tell_numba() -> None:
    """Have numba call the compiled core, so that no Python runs inside a sampler."""
    from pytensor.link.numba.dispatch.basic import register_funcify_default_op_cache_key

    register_funcify_default_op_cache_key(LogDensity)(_log_density_in_numba)
    register_funcify_default_op_cache_key(Pullback)(_pullback_in_numba)


def _external(name: str, n_arrays: int) -> Any:
    """A function of the core as numba calls it: by name, whose address the linker is told.

    So what numba compiles can be kept for other processes, where the address is another.
    """
    import llvmlite.binding
    from numba import types

    function = ctypes.cast(getattr(native, name), ctypes.c_void_p)
    llvmlite.binding.add_symbol(f"gmm_{name}", function.value)
    arguments = [types.int64] * 7 + [types.uintp] * n_arrays
    return types.ExternalFunction(f"gmm_{name}", types.int64(*arguments))


def _log_density_in_numba(op, _node=None, **_settings):
    """`LogDensity` as numba compiles it."""
    from numba import njit

    log_prob, diagonal = _external("rows_log_prob", 12), int(op.diagonal)

    @njit
    def log_density(X, center, order, start, n_observed, columns, errors, noise, log_scale, offsets, P):
        X, center = np.ascontiguousarray(X), np.ascontiguousarray(center)
        log_scale, offsets, P = np.ascontiguousarray(log_scale), np.ascontiguousarray(offsets), np.ascontiguousarray(P)
        out = np.zeros(X.shape[0])
        status = log_prob(
            X.shape[0], X.shape[1], len(offsets), diagonal, len(n_observed), len(errors), len(noise),
            X.ctypes.data, center.ctypes.data, order.ctypes.data, start.ctypes.data, n_observed.ctypes.data,
            columns.ctypes.data, errors.ctypes.data, noise.ctypes.data, log_scale.ctypes.data, offsets.ctypes.data,
            P.ctypes.data, out.ctypes.data,
        )  # fmt: skip
        if status != 0:
            raise MemoryError("no memory for log densities")
        return out

    return log_density


def _pullback_in_numba(op, _node=None, **_settings):
    """`Pullback` as numba compiles it."""
    from numba import njit

    pullback, diagonal = _external("rows_pullback", 15), int(op.diagonal)

    @njit
    def gradient(X, center, order, start, n_observed, columns, errors, noise, log_scale, offsets, P, cotangent):
        X, center, cotangent = np.ascontiguousarray(X), np.ascontiguousarray(center), np.ascontiguousarray(cotangent)
        log_scale, offsets, P = np.ascontiguousarray(log_scale), np.ascontiguousarray(offsets), np.ascontiguousarray(P)
        by_log_scale, by_offsets, by_P = np.empty_like(log_scale), np.empty_like(offsets), np.empty_like(P)
        status = pullback(
            X.shape[0], X.shape[1], len(offsets), diagonal, len(n_observed), len(errors), len(noise),
            X.ctypes.data, center.ctypes.data, order.ctypes.data, start.ctypes.data, n_observed.ctypes.data,
            columns.ctypes.data, errors.ctypes.data, noise.ctypes.data, log_scale.ctypes.data, offsets.ctypes.data,
            P.ctypes.data, cotangent.ctypes.data, by_log_scale.ctypes.data, by_offsets.ctypes.data, by_P.ctypes.data,
        )  # fmt: skip
        if status != 0:
            raise MemoryError("no memory for the gradient of log densities")
        return by_log_scale, by_offsets, by_P

    return gradient
