"""Climbs of EM from given moments: what they hold fixed, what they change, and what drives them.

The state between two passes over the data is the *moments*, the flat vector z of expected counts (K,), means (K, D) and
covariances (K, D, D) that the E-step returned. The M-step turns them into the parameters of any covariance model, so
extrapolating z instead of the parameters serves all models alike. Everything between two E-steps is `src/climb.cpp`;
a compiled loop drives it for small tables, a thread pool for large ones.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bayesgmm import native
from bayesgmm.covariance import CovarianceModel
from bayesgmm.expectation import Parameters, Rows, Statistics, in_threads, n_threads, parallel_pays
from bayesgmm.native import address
from bayesgmm.passes import Asking, InMemory, Request, answer

RUNNING, CONVERGED, EXHAUSTED, DEGENERATE = 0, 1, 2, 3  # the Code of src/climb.hpp
_MEMORY = 3  # the MEMORY of src/climb.hpp
_PROGRESS = np.dtype(native.Progress)


class Penalty(NamedTuple):
    """What the prior adds to the expected statistics in the M-step; without priors, nothing.

    Attributes
    ----------
    concentration : (K,)
        Dirichlet concentration of the weights, minus one.
    location : (D,)
        Prior mean of the components' means, as an offset from the center.
    precision : (D, D)
        Prior precision of the means.
    rows : float
        Number of rows whose information the prior of a covariance equals.
    scatter : (D, D)
        Scatter of these rows; where the scatter has a prior itself, its prior mean.
    degrees : float
        Degrees of freedom of the scatter given the covariances; 0 where it has no prior.
    scale_precision : (D, D)
        Inverse of the scale matrix of the scatter's own prior.
    floor : (D, D)
        Scatter that is added to one with a prior.
    noise : float
        Dirichlet concentration of the noise's weight, minus one.
    """

    concentration: np.ndarray
    location: np.ndarray
    precision: np.ndarray
    rows: float
    scatter: np.ndarray
    degrees: float
    scale_precision: np.ndarray
    floor: np.ndarray
    noise: float


class Fixed(NamedTuple):
    """Parameters that stay as they are: which components' (K,), and their values (K, ...); the others are ignored."""

    has_weight: np.ndarray
    weights: np.ndarray
    has_mean: np.ndarray
    offsets: np.ndarray
    has_covariance: np.ndarray
    covariances: np.ndarray


type Compiled = tuple[native.Problem, list[np.ndarray]]


class Problem(NamedTuple):
    """What stays the same throughout a climb, apart from the rows.

    Attributes
    ----------
    model : CovarianceModel
    total : float
        Sum of the rows' weights.
    center : (D,)
        Origin of the means.
    reference : (D,)
        Diagonal of the precision factor of the table's covariance, against which a component's collapse is judged.
    metric : (K + K D + K D D,)
        Factors that make the residuals of the moments comparable.
    row_variance : (D,)
        Each row counts as a blob, normal about it with these variances; zero where rows are points.
    mean_error : (D, D)
        Covariance of the errors of measurement, of a row on average; zero without errors.
    penalty : Penalty
    fixed : Fixed
    tolerance : float
        Nats that may be left to gain; with 0 the climb stops only where nothing changes any more.
    max_iterations : int
    noise : bool
        Whether rows may belong to no component.
    """

    model: CovarianceModel
    total: float
    center: np.ndarray
    reference: np.ndarray
    metric: np.ndarray
    row_variance: np.ndarray
    mean_error: np.ndarray
    penalty: Penalty
    fixed: Fixed
    tolerance: float
    max_iterations: int
    noise: bool = False

    def compiled(self) -> Compiled:
        """The problem as the compiled core takes it, and the arrays that must stay alive while the core uses it."""
        arrays: list[np.ndarray] = []

        def fields(part: NamedTuple) -> list[float | int]:
            return [value if isinstance(value, float) else place(value) for value in part]

        def place(value: np.ndarray) -> int:
            arrays.append(np.ascontiguousarray(value, dtype=np.uint8 if value.dtype == bool else np.float64))
            return address(arrays[-1], arrays[-1].dtype)

        K, D = self.penalty.concentration.size, self.reference.size
        units = self.total, *map(place, (self.center, self.reference, self.metric, self.row_variance, self.mean_error))
        parts = native.Penalty(*fields(self.penalty)), native.Fixed(*fields(self.fixed))
        limits = self.tolerance, self.max_iterations, self.noise
        return native.Problem(K, D, self.model.compiled, *units, *parts, *limits), arrays


def _in_one_block(shapes: dict[str, tuple[int, ...]]) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Arrays of zeros with these shapes, and their addresses, which take long to ask for one by one."""
    block = np.zeros(sum(map(math.prod, shapes.values())))
    arrays, addresses, start, first = dict[str, np.ndarray](), dict[str, int](), 0, address(block)
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        arrays[name], addresses[name] = block[start:stop].reshape(shape), first + start * block.itemsize
        start = stop
    return arrays, addresses


class State:
    """What a climb changes in place: an array for each field of `native.State`, and ``compiled``, which points to them.

    Attributes
    ----------
    parameters : Parameters
        Of the next E-step.
    statistics : Statistics
        Of the last one.
    path : (max_iterations + 1,)
        The objective after each iteration: log-likelihood, of rows as blobs where they are, plus log prior.
    compiled : native.State
    """

    def __init__(self, K: int, D: int, max_iterations: int) -> None:
        size = (K * (1 + D + D * D),)
        step = {
            "log_scale": (K,),
            "offsets": (K, D),
            "P": (K, D, D),
            "weights": (K,),
            "covariances": (K, D, D),
            "z": size,
        }
        statistics = {"counts": (K,), "first": (K, D), "scatter": (K, D, D)}
        memory: dict[str, tuple[int, ...]] = dict.fromkeys(("fallback", "last_z", "last_f"), size)
        memory |= dict.fromkeys(("dz", "df", "Wdz"), (_MEMORY, *size))
        memory |= {"metric_counts": (K,), "metric_precisions": (K, D, D)}
        self._accepted, accepted = _in_one_block(step)
        self._arrays, addresses = _in_one_block(step | statistics | memory)
        self.parameters = Parameters(self._arrays["log_scale"], self._arrays["offsets"], self._arrays["P"])
        self.statistics = Statistics(*(self._arrays[name] for name in statistics))
        self.path = np.empty(max_iterations + 1)
        self.compiled = native.State(**addresses, accepted=native.Step(**accepted), path=address(self.path))


class Outcomes(NamedTuple):
    """Where S climbs ended.

    Attributes
    ----------
    progress : (S,)
        With the fields of `native.Progress`.
    moments : (S, K + K D + K D D)
    weights : (S, K)
    offsets : (S, K, D)
        Means, as offsets from the center.
    covariances : (S, K, D, D)
    """

    progress: np.ndarray
    moments: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    covariances: np.ndarray

    @property
    def codes(self) -> np.ndarray:
        """CONVERGED, EXHAUSTED or DEGENERATE, (S,)."""
        return self.progress["code"]

    def compiled(self) -> native.Outcomes:
        """The arrays as the compiled core takes them."""
        return native.Outcomes(address(self.progress, _PROGRESS), *map(address, self[1:]))


def _no_outcomes(S: int, K: int, D: int) -> Outcomes:
    """Room for the ends of S climbs."""
    moments = np.empty((S, K * (1 + D + D * D)))
    return Outcomes(np.zeros(S, _PROGRESS), moments, np.empty((S, K)), np.empty((S, K, D)), np.empty((S, K, D, D)))


def climb(
    rows: Rows, row_weights: np.ndarray, problem: Problem, moments: np.ndarray, compiled: Compiled | None = None
) -> tuple[Outcomes, State]:
    """Run EM from each of several moments until it converges, exhausts its iterations or degenerates.

    Threads share the climbs of a small table, and the rows of a large one.

    Parameters
    ----------
    rows : Rows
        Their own weights do not count.
    row_weights : (S or 1, N or 1)
        Weights of the rows, of each climb's own or of all climbs'; a single one where all rows count alike.
    problem : Problem
    moments : (S, K + K D + K D D)
    compiled : the problem's, if it is at hand

    Returns
    -------
    outcomes : Outcomes
    state : State
        Of the last climb.
    """
    S, N, (K, D) = len(moments), rows.n_read, problem.fixed.offsets.shape
    moments, row_weights = np.ascontiguousarray(moments), np.ascontiguousarray(row_weights, dtype=np.float64)
    outcomes = _no_outcomes(S, K, D)
    (of_problem, _arrays), into, starts = compiled or problem.compiled(), outcomes.compiled(), address(moments)
    if parallel_pays(N, K, D, problem.model.diagonal):
        state = State(K, D, problem.max_iterations)
        for i in range(S):
            weight = row_weights[i if len(row_weights) > 1 else 0]
            answer(InMemory(rows._replace(weight=weight)), _steps(problem, of_problem, state, moments[i]))
            native.keep(of_problem, state.compiled, i, into)
        return outcomes, state

    of_first = rows._replace(weight=row_weights[0]).compiled()
    stride = row_weights.shape[1] if len(row_weights) > 1 else 0
    edges = np.linspace(0, S, (min(n_threads(), S) if S > 1 else 1) + 1).astype(int).tolist()
    states = [State(K, D, problem.max_iterations) for _ in edges[1:]]

    def task(i: int) -> None:
        shared = of_first, N, stride, problem.model.diagonal, of_problem
        native.climb(*shared, states[i].compiled, starts, *edges[i : i + 2], into)

    in_threads(task, range(len(states)))
    return outcomes, states[-1]


def climbing(problem: Problem, moments: np.ndarray) -> Asking[tuple[Outcomes, State]]:
    """As `climb`, from moments (size,), over rows that whoever answers has."""
    K, D = problem.fixed.offsets.shape
    outcomes, state, (compiled, _arrays) = (
        _no_outcomes(1, K, D),
        State(K, D, problem.max_iterations),
        problem.compiled(),
    )
    yield from _steps(problem, compiled, state, np.ascontiguousarray(moments))
    native.keep(compiled, state.compiled, 0, outcomes.compiled())
    return outcomes, state


def _steps(problem: Problem, compiled: native.Problem, state: State, moments: np.ndarray) -> Asking[None]:
    """The steps of a climb, each of which asks for a pass over the rows."""
    native.begin(compiled, state.compiled, address(moments))
    while state.compiled.progress.code == RUNNING:
        (totals,) = yield [_request(problem, state)]
        for array, values in zip(state.statistics, totals.statistics, strict=True):
            array[:] = values
        sums = native.Sums(totals.log_likelihood, totals.map_log_responsibility, totals.noise)
        native.advance(compiled, state.compiled, sums)


def _request(problem: Problem, state: State) -> Request:
    """What a climb wants to know next; of its last parameters only how high they are."""
    parameters = state.parameters._replace(log_noise=state.compiled.log_noise)
    more = state.compiled.progress.iteration < problem.max_iterations
    return Request(parameters, problem.model.diagonal, more)
