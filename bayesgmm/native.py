"""The compiled core in `src/`: its functions, called by ctypes, and the structs they take.

A struct here has the fields of the C++ struct of the same name, in the same order; some field names are longer here.
The headers in `src/` say what each field holds. A pointer is an address, from `address`: whoever makes a struct keeps
its arrays alive for as long as it is in use. ctypes releases the GIL during a call.

The environment variable BAYESGMM_LEVEL (v2, v3 or v4 on x86-64) picks the level of processor to run on, instead of the
best there is.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char_p, c_double, c_int, c_int64, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

_library = ctypes.CDLL(str(Path(__file__).with_name("_core.so")))
_NO_MEMORY = -1


def address(array: np.ndarray, dtype: Any = np.float64) -> int:
    """The address of the first entry of a C-contiguous array of this type."""
    if array.dtype != dtype or not array.flags.c_contiguous:
        raise TypeError(f"a C-contiguous array of {dtype.__name__} is needed, not {array.dtype}, {array.strides=}")
    return array.ctypes.data


def addresses(arrays: dict[str, np.ndarray]) -> tuple[dict[str, int], list[np.ndarray]]:
    """Where the arrays are as contiguous float64, by name, and what has to be kept alive for that."""
    contiguous = [np.ascontiguousarray(array, dtype=np.float64) for array in arrays.values()]
    return dict(zip(arrays, map(address, contiguous), strict=True)), contiguous


class Mixture(ctypes.Structure):
    """A mixture as the kernels read it."""

    _fields_ = (
        ("K", c_int64),
        ("D", c_int64),
        ("log_scale", c_void_p),
        ("offsets", c_void_p),
        ("P", c_void_p),
        ("diagonal", c_int64),
        ("log_noise", c_double),
    )


class Patterns(ctypes.Structure):
    """Groups of rows that share which values are missing, and the errors; and rows that are read alone."""

    _fields_ = (
        *((name, c_int64) for name in ("D", "n", "n_rows")),
        *((name, c_void_p) for name in ("order", "start", "n_observed", "columns", "errors", "row_errors")),
        ("n_row_errors", c_int64),
        ("correlated", c_int64),
    )


class Rows(ctypes.Structure):
    """Rows of data with their weights and labels."""

    _fields_ = (
        ("X", c_void_p),
        ("center", c_void_p),
        ("weight", c_void_p),
        ("n_weights", c_int64),
        ("labels", c_void_p),
        ("noise", c_void_p),
        ("patterns", POINTER(Patterns)),
    )


class Statistics(ctypes.Structure):
    """Expected statistics about the components' own means."""

    _fields_ = (("counts", c_void_p), ("first", c_void_p), ("scatter", c_void_p))


class Sums(ctypes.Structure):
    """What one pass over the rows adds up to."""

    _fields_ = (("log_likelihood", c_double), ("map_log_responsibility", c_double), ("noise", c_double))


class Draws(ctypes.Structure):
    """Mixtures, one for each of many draws."""

    _fields_ = (("K", c_int64), ("D", c_int64), ("groups", c_int64), ("center", c_void_p), ("values", c_void_p))


class Seen(ctypes.Structure):
    """Which columns some rows have values in, and the covariances of their errors."""

    _fields_ = (("n", c_int64), ("columns", c_void_p), ("errors", c_void_p))


class Memberships(ctypes.Structure):
    """What rows are under draws."""

    _fields_ = (("responsibilities", c_void_p), ("log_prob", c_void_p), ("entropy", c_void_p), ("width", c_int64))


class Partitions(ctypes.Structure):
    """Partitions drawn from a posterior."""

    _fields_ = (
        ("U", c_int64),
        ("S", c_int64),
        ("K", c_int64),
        ("z", c_void_p),
        ("weight", c_void_p),
        ("phi", c_void_p),
    )


class CovarianceModel(ctypes.Structure):
    """Which factors of the covariances are absent, equal or varying."""

    _fields_ = (
        ("volume", c_int64),
        ("shape", c_int64),
        ("orientation", c_int64),
    )


class Penalty(ctypes.Structure):
    """Logarithm of the prior as the M-step sees it."""

    _fields_ = (
        ("concentration", c_void_p),
        ("location", c_void_p),
        ("precision", c_void_p),
        ("rows", c_double),
        ("scatter", c_void_p),
        ("degrees", c_double),
        ("scale_precision", c_void_p),
        ("floor", c_void_p),
        ("noise", c_double),
    )


class Fixed(ctypes.Structure):
    """Parts that stay as given."""

    _fields_ = (
        ("has_weight", c_void_p),
        ("weights", c_void_p),
        ("has_mean", c_void_p),
        ("offsets", c_void_p),
        ("has_covariance", c_void_p),
        ("covariances", c_void_p),
    )


class Problem(ctypes.Structure):
    """What a climb holds fixed."""

    _fields_ = (
        ("K", c_int64),
        ("D", c_int64),
        ("model", CovarianceModel),
        ("total", c_double),
        ("center", c_void_p),
        ("reference", c_void_p),
        ("metric", c_void_p),
        ("row_variance", c_void_p),
        ("mean_error", c_void_p),
        ("penalty", Penalty),
        ("fixed", Fixed),
        ("tolerance", c_double),
        ("max_iterations", c_int64),
        ("noise", c_int64),
    )


class Progress(ctypes.Structure):
    """How far a climb has come."""

    _fields_ = (
        ("value", c_double),
        ("log_likelihood", c_double),
        ("log_prior", c_double),
        ("map_log_responsibility", c_double),
        ("gain", c_double),
        ("remaining", c_double),
        ("rounding", c_double),
        ("iteration", c_int64),
        ("remembered", c_int64),
        ("extrapolated", c_int64),
        ("quiet", c_int64),
        ("component", c_int64),
        ("code", c_int64),
    )


_PARAMETERS = tuple((name, c_void_p) for name in ("log_scale", "offsets", "P", "weights", "covariances"))


class Step(ctypes.Structure):
    """Parameters, and the moments that they were made from."""

    _fields_ = (*_PARAMETERS, ("z", c_void_p))


class State(ctypes.Structure):
    """What a climb changes, in place."""

    _fields_ = (
        *_PARAMETERS,
        *((name, c_void_p) for name in ("counts", "first", "scatter")),
        *((name, c_void_p) for name in ("z", "fallback", "last_z", "last_f", "dz", "df", "Wdz")),
        *((name, c_void_p) for name in ("metric_counts", "metric_precisions")),
        ("accepted", Step),
        ("path", c_void_p),
        ("log_noise", c_double),
        ("progress", Progress),
    )


class Outcomes(ctypes.Structure):
    """Where climbs ended."""

    _fields_ = (
        ("progress", c_void_p),
        ("moments", c_void_p),
        ("weights", c_void_p),
        ("offsets", c_void_p),
        ("covariances", c_void_p),
    )


class Chart(ctypes.Structure):
    """The free coordinates of a mixture's precisions, and their prior."""

    _fields_ = (
        *((name, c_int64) for name in ("K", "D", "n_weights", "kind", "ratios", "scales", "copies", "columns")),
        *((name, c_int64) for name in ("above_copies", "off_diagonal", "n_dirichlet", "frames")),
        *((name, c_double) for name in ("scale_df", "slack", "floor")),
        *((name, c_void_p) for name in ("prior_a", "prior_b", "dirichlet", "beta", "U", "scale")),
    )


class Density(ctypes.Structure):
    """The log posterior density of a mixture; once made it is only read, by any number of threads."""

    _fields_ = (
        ("chart", Chart),
        ("rows", Rows),
        ("N", c_int64),
        ("diagonal", c_int64),
        *((name, c_void_p) for name in ("concentration", "location", "precision", "origin", "factor")),
        ("left_out", Rows),
        ("log_odds", c_void_p),
        ("n_left_out", c_int64),
        ("n_left_out_read", c_int64),
    )


class GibbsPrior(ctypes.Structure):
    """The prior of a mixture whose assignments are sampled."""

    _fields_ = (
        *((name, c_int64) for name in ("K", "D", "structure", "shared")),
        *((name, c_void_p) for name in ("location", "precision")),
        *((name, c_double) for name in ("df", "scale_df")),
        *((name, c_void_p) for name in ("inverse", "floor", "concentration")),
        ("rate", c_double),
    )


class GibbsState(ctypes.Structure):
    """Where a chain of assignments is, which sweeps change in place."""

    _fields_ = tuple((name, c_void_p) for name in ("labels", "values", "means", "scale_matrix", "concentration"))


class GibbsDraws(ctypes.Structure):
    """What is kept of each draw of such a chain; null where it is not wanted."""

    _fields_ = tuple((name, c_void_p) for name in ("filled", "concentration", "weights", "means", "factors"))


STRUCTS = (
    *(Mixture, Patterns, Rows, Statistics, Sums, Draws, Seen, Memberships, Partitions),
    *(CovarianceModel, Penalty, Fixed, Problem, Progress, Step, State, Outcomes),
    *(Chart, Density, GibbsPrior, GibbsState, GibbsDraws),
)


def _raise_status(status: int, function: Any, _arguments: tuple) -> int:
    if status == _NO_MEMORY:
        raise MemoryError(f"no memory for {function.__name__.removeprefix('gmm_')}")
    return status


def _function(name: str, *argtypes: Any, restype: Any = c_int64) -> Any:
    """A function that returns a status, which becomes an exception where memory was lacking."""
    function = getattr(_library, f"gmm_{name}")
    function.argtypes, function.restype, function.errcheck = argtypes, restype, _raise_status
    return function


_ROWS = (POINTER(Rows), POINTER(Mixture), c_int64, c_int64)  # with the range [start, stop)
accumulate = _function("accumulate", *_ROWS, c_int64, POINTER(Statistics), POINTER(Sums))
totals = _function("totals", *_ROWS, c_int64, c_int64, c_void_p, c_void_p)
add_totals = _function("add_totals", c_int64, *[c_void_p] * 4)
products = _function("products", *_ROWS, c_int64, c_int64, c_int64, c_void_p, c_void_p)
log_prob = _function("log_prob", *_ROWS, c_void_p)
log_joint = _function("log_joint", *_ROWS, c_void_p)
ranges = _function("ranges", c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p)

memberships = _function("memberships", c_void_p, c_int64, POINTER(Draws), POINTER(Memberships))
memberships_seen = _function("memberships_seen", c_void_p, c_int64, POINTER(Draws), POINTER(Seen), POINTER(Memberships))
psis = _function("psis", c_void_p, *[c_int64] * 5, c_void_p)
merge = _function("merge", c_void_p, c_int64, c_int64, c_void_p, c_void_p)
modes = _function("modes", *[c_void_p] * 3, *[c_int64] * 4, c_void_p, c_void_p)
plus_plus = _function("plus_plus", c_void_p, *[c_int64] * 3, *[c_void_p] * 4)
ward = _function("ward", c_void_p, c_int64, c_int64, c_void_p, c_void_p)
moments_of_labels = _function("moments_of_labels", c_void_p, c_void_p, *[c_int64] * 3, c_void_p)
precision_cholesky = _function("precision_cholesky", c_void_p, c_int64, c_int64, c_void_p, c_void_p)
constrained_covariances = _function(
    "constrained_covariances", POINTER(CovarianceModel), c_int64, c_int64, c_void_p, c_void_p, c_int64, c_void_p
)
_CLIMB = (POINTER(Problem), POINTER(State))
begin = _function("begin", *_CLIMB, c_void_p)
advance = _function("advance", *_CLIMB, POINTER(Sums))
keep = _function("keep", *_CLIMB, c_int64, POINTER(Outcomes))
climb = _function("climb", POINTER(Rows), *[c_int64] * 3, *_CLIMB, c_void_p, c_int64, c_int64, POINTER(Outcomes))
losses = _function("losses", POINTER(Partitions), c_void_p, c_int64, c_void_p)
minimise = _function("minimise", POINTER(Partitions), c_int64, c_int64, c_void_p, c_void_p, POINTER(c_double))
mixtures = _function("mixtures", POINTER(Chart), c_void_p, c_int64, c_void_p, c_void_p, c_void_p)
log_density = _function("log_density", c_uint64, *[c_void_p] * 4, restype=c_int)
to_theta = _function("to_theta", c_uint64, c_uint64, *[c_void_p] * 3, restype=c_int)

# N, D, K, diagonal, groups, those with errors; X, center, five of the groups, log scales, offsets, precisions' factors
_MODEL = (*[c_int64] * 7, *[c_void_p] * 11)
rows_log_prob = _function("rows_log_prob", *_MODEL, c_void_p)
rows_pullback = _function("rows_pullback", *_MODEL, *[c_void_p] * 4)

gibbs = _function(
    "gibbs",
    *(c_void_p, c_int64, POINTER(Patterns), POINTER(GibbsPrior), c_void_p),
    *(c_int64, c_int64, c_int64, POINTER(GibbsState), POINTER(GibbsDraws)),
)

_library.gmm_level.restype = _library.gmm_available_level.restype = c_char_p
_library.gmm_available_level.argtypes = (c_int64,)
_library.gmm_use_level.argtypes = (c_char_p,)
multiply_adds = _library.gmm_multiply_adds  # of so many rounds, and nothing else: how many
multiply_adds.argtypes, multiply_adds.restype = (c_int64,), c_int64


def random(rng: np.random.Generator) -> int:
    """Address of the generator's source of random numbers, for one thread's calls."""
    return rng.bit_generator.ctypes.bit_generator.value


def size_of(struct: type[ctypes.Structure]) -> int:
    """Bytes that the compiled core thinks the struct of this name has."""
    return getattr(_library, f"gmm_sizeof_{struct.__name__.lower()}")()


def levels() -> list[str]:
    """The levels that this processor has, best first."""
    names: list[str] = []
    while name := _library.gmm_available_level(len(names)):
        names.append(name.decode())
    return names


def level() -> str:
    """The level in use."""
    return _library.gmm_level().decode()


def use_level(name: str) -> None:
    """Run the kernels on another level than the best; not while any runs."""
    if not _library.gmm_use_level(name.encode()):
        raise ValueError(f"this processor has the levels {', '.join(levels())}, not {name!r}")


if "BAYESGMM_LEVEL" in os.environ:
    use_level(os.environ["BAYESGMM_LEVEL"])
