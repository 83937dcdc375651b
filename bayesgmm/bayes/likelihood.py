"""The kernel as PyTensor operations: the log density of each row, and its pullback, weighted statistics."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt
from numba import njit
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import register_funcify_default_op_cache_key

from bayesgmm.expectation import Parameters, Statistics
from bayesgmm.numba_kernel import accumulate, fill_log_prob


@njit
def _log_density(X, center, log_scale, offsets, P, diagonal):
    out = np.empty(X.shape[0])
    fill_log_prob(X, center, Parameters(log_scale, offsets, P), diagonal, 0, X.shape[0], out)
    return out


@njit
def _weighted_statistics(X, center, log_scale, offsets, P, cotangent, diagonal):
    K, D = offsets.shape
    statistics = Statistics(np.empty(K), np.empty((K, D)), np.empty((K, D, D)))
    accumulate(
        X,
        cotangent,
        np.empty(0, np.int64),
        center,
        Parameters(log_scale, offsets, P),
        diagonal,
        0,
        X.shape[0],
        True,
        statistics,
    )
    return statistics.counts, statistics.first, statistics.scatter


class WeightedStatistics(Op):
    """Counts (K,), first moments (K, D) and scatters (K, D, D) about the means, rows weighted by a cotangent (N,)."""

    __props__ = ("diagonal",)

    def __init__(self, diagonal: bool) -> None:
        self.diagonal = diagonal

    def make_node(self, *inputs):
        """Inputs: X, center, log_scale, offsets, precisions_cholesky, cotangent."""
        inputs = [pt.as_tensor_variable(i) for i in inputs]
        return Apply(self, inputs, [pt.dvector(), pt.dmatrix(), pt.dtensor3()])

    def perform(self, node, inputs, output_storage):
        """Evaluate without compiling the graph."""
        arrays = [np.ascontiguousarray(i, dtype=np.float64) for i in inputs]
        for storage, value in zip(output_storage, _weighted_statistics(*arrays, self.diagonal), strict=True):
            storage[0] = value


class LogDensity(Op):
    """Log mixture density of each row (N,), in nats."""

    __props__ = ("diagonal",)

    def __init__(self, diagonal: bool) -> None:
        self.diagonal = diagonal

    def make_node(self, *inputs):
        """Inputs: X, center, log_scale, offsets, precisions_cholesky."""
        return Apply(self, [pt.as_tensor_variable(i) for i in inputs], [pt.dvector()])

    def perform(self, node, inputs, output_storage):
        """Evaluate without compiling the graph."""
        arrays = [np.ascontiguousarray(i, dtype=np.float64) for i in inputs]
        output_storage[0][0] = _log_density(*arrays, self.diagonal)

    def connection_pattern(self, node):
        """The data and their center are constants."""
        return [[False], [False], [True], [True], [True]]

    def pullback(self, inputs, outputs, cotangents):
        """Fisher's identity: the gradient of the log density is the expected statistics."""
        X, center, log_scale, offsets, P = inputs
        counts, first, scatter = WeightedStatistics(self.diagonal)(X, center, log_scale, offsets, P, cotangents[0])
        d_offsets = pt.matmul(P, pt.matmul(P.transpose(0, 2, 1), first[..., None]))[..., 0]
        return [disconnected_type(), disconnected_type(), counts, d_offsets, -pt.matmul(scatter, P)]


def _compiled(function):
    """How numba runs an operation, so that no Python runs inside a sampler."""

    def funcify(op, node=None, **kwargs):
        diagonal = op.diagonal

        @njit
        def run(*inputs):
            return function(*inputs, diagonal)

        return run

    return funcify


register_funcify_default_op_cache_key(LogDensity)(_compiled(_log_density))
register_funcify_default_op_cache_key(WeightedStatistics)(_compiled(_weighted_statistics))
