"""`fit_em`: a maximum-likelihood Gaussian mixture from several starts, and `EMFit`, what it found."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesgmm.covariance import CovarianceModel, precision_cholesky
from bayesgmm.em import ascent, initialize
from bayesgmm.errors import DegenerateFitError, InputError
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations, observations, positive_integer

_SHORT = 15  # iterations of a short run
_FINALISTS = 4  # short runs that are carried on to convergence
_SHORT_ROWS = 4000  # rows per component beyond which short runs see a sample


class Status(enum.Enum):
    """How a climb ended; the value is the sentence to show."""

    CONVERGED = "converged: the log-likelihood that is left to gain is below the tolerance"
    EXHAUSTED = "stopped at max_iterations before it converged"
    DEGENERATE = "degenerate: a component collapsed onto too few distinct rows"
    LEFT_BEHIND = "not carried on: other starts were ahead after the short runs"


_STATUS = {
    ascent.CONVERGED: Status.CONVERGED,
    ascent.EXHAUSTED: Status.EXHAUSTED,
    ascent.DEGENERATE: Status.DEGENERATE,
}


@dataclass(frozen=True, slots=True)
class Start:
    """One start and what became of it.

    Attributes
    ----------
    kind : where it came from
    status : Status
    log_likelihood : where it stopped, in nats; -inf where degenerate
    n_iterations : int
    detail : for a degenerate start, the component and its effective number of rows
    """

    kind: str
    status: Status
    log_likelihood: float
    n_iterations: int
    detail: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class EMFit:
    """A Gaussian mixture fitted by EM.

    Attributes
    ----------
    mixture : GaussianMixture
        Components ordered by the first feature's mean, or as in the fit given as ``align_to``.
    covariance_model : CovarianceModel
    status : Status
        Its value is a sentence.
    log_likelihood : float
        Of exactly the returned parameters, in nats.
    log_likelihood_path : (n_iterations + 1,)
        From the best start's first parameters to the returned ones; never falls.
    n_iterations : int
    remaining_gain : float
        Projected log-likelihood left to gain, in nats.
    starts : tuple of Start
        Every start, failed ones too.
    n_observations, n_features : int
    total_weight : float
        Sum of ``sample_weight``; ``n_observations`` without.
    features : tuple of str
        Column names.
    n_parameters : int
        Free parameters.
    bic, aic, icl : float
        -2 log-likelihood plus a penalty: smaller is better (mclust prints the opposite sign).
    """

    mixture: GaussianMixture
    covariance_model: CovarianceModel
    status: Status
    log_likelihood: float
    log_likelihood_path: np.ndarray
    n_iterations: int
    remaining_gain: float
    starts: tuple[Start, ...]
    n_observations: int
    total_weight: float
    features: tuple[str, ...]
    certainty: float  # sum of the rows' largest log responsibilities, nats

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return self.mixture.n_components

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return self.mixture.n_features

    @property
    def n_parameters(self) -> int:
        """Free parameters: K - 1 weights, K D means, and the covariance model's own."""
        K, D = self.n_components, self.n_features
        return K - 1 + K * D + self.covariance_model.n_parameters(K, D)

    @property
    def bic(self) -> float:
        """Bayesian information criterion, -2 log L + n_parameters log N; smaller is better."""
        return -2 * self.log_likelihood + self.n_parameters * math.log(self.total_weight)

    @property
    def aic(self) -> float:
        """Akaike's information criterion, -2 log L + 2 n_parameters; smaller is better."""
        return -2 * self.log_likelihood + 2 * self.n_parameters

    @property
    def icl(self) -> float:
        """Integrated completed likelihood: BIC - 2 sum of hard labels' log responsibilities (Biernacki et al. 2000)."""
        return self.bic - 2 * self.certainty

    def __repr__(self) -> str:
        return (
            f"EMFit({self.covariance_model.label(self.n_features)}, K={self.n_components}, "
            f"log_likelihood={self.log_likelihood:.4f}, bic={self.bic:.2f}, {self.status.name.lower()} "
            f"after {self.n_iterations} iterations, {len(self.starts)} start{'s' * (len(self.starts) > 1)})"
        )


def fit_em(
    X: Any,
    n_components: int,
    covariance: str | CovarianceModel = "full",
    *,
    sample_weight: Any = None,
    starts: Sequence[Any] | None = None,
    n_starts: int = 20,
    align_to: EMFit | GaussianMixture | None = None,
    max_iterations: int = 10_000,
    tolerance: float = 1e-6,
    rng: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> EMFit:
    """Maximum-likelihood Gaussian mixture by expectation-maximisation.

    Parameters
    ----------
    X : (N, D) table
        Array, DataFrame or nested lists of finite numbers.
    n_components : int
        K >= 1.
    covariance : str or CovarianceModel
        "full", "tied", "diag", "spherical", or one of the 14 three-letter names.
    sample_weight : (N,), optional
        Non-negative weights; a whole number counts a row that often, 0 leaves it out.
    starts : list, optional
        Labels (N,), responsibilities (N, K) or `GaussianMixture` values to start from instead of the portfolio.
    n_starts : int
        Size of the portfolio: k-means++ seeds and random partitions in whitened coordinates.
    align_to : EMFit or GaussianMixture, optional
        Number the components as the nearest ones of this fit.
    max_iterations : int
        Per start.
    tolerance : float
        Stop when the projected remaining gain in log-likelihood, in nats and in total, is below this. With 0 and a
        single given start, exactly ``max_iterations`` plain EM iterations are made.
    rng : Generator, seed or None
    progress : callable, optional
        Called with the number of starts done and their total.

    Returns
    -------
    EMFit

    Raises
    ------
    InputError
        Naming the row, column or argument that cannot be used.
    DegenerateFitError
        If in every start a component collapses.

    Notes
    -----
    All starts make a short run; the best are carried on (small-EM, Biernacki, Celeux & Govaert 2003). Slow climbs are
    accelerated by Anderson mixing of the expected moments, undone where the log-likelihood would fall.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> fit = bg.fit_em(bg.datasets.old_faithful(), n_components=3, covariance="tied", rng=0)
    >>> round(fit.bic, 2)
    2314.3
    """
    K = positive_integer(n_components, "n_components")
    max_iterations = positive_integer(max_iterations, "max_iterations", least=0)
    if not isinstance(tolerance, (int, float)) or not tolerance >= 0 or math.isinf(tolerance):
        raise InputError(f"tolerance must be a finite number of nats, at least 0, not {tolerance!r}")
    table = observations(X, sample_weight)
    N, D = table.values.shape
    model = CovarianceModel.named(covariance).for_features(D)
    _enough_rows(table, K)
    rng = np.random.default_rng(rng)
    center, spread = initialize.whole_table(table)
    reference = _reference(spread, model, table.features)

    if starts is not None:
        candidates = initialize.given(starts, table, center, K)
    else:
        n_starts = positive_integer(n_starts, "n_starts")
        candidates = initialize.portfolio(table, center, spread, K, 1 if K == 1 else n_starts, rng)
    scale = np.sqrt(np.diag(spread))
    metric = np.concatenate(
        (
            np.full(K, 1 / table.total_weight),
            np.tile(1 / scale, K),
            np.tile((1 / np.outer(scale, scale)).ravel(), K),
        )
    )
    problem = ascent.Problem(*model.codes, table.total_weight, reference, metric, float(tolerance), max_iterations)

    def climb(rows, weight, problem, moments):
        state = ascent.new_state(K, D, problem.max_iterations)
        code = ascent.climb(rows, weight, initialize.NO_LABELS, center, model.diagonal, problem, state, moments)
        return code, state

    done = 0

    def report():
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    total = len(candidates)
    outcomes: list[Start | None] = [None] * total
    if total > _FINALISTS:
        total += _FINALISTS
        rows, weight = table.values, table.sample_weight
        short = problem._replace(max_iterations=min(_SHORT, max_iterations))
        if N > _SHORT_ROWS * K:
            picked = np.sort(rng.choice(N, _SHORT_ROWS * K, replace=False))
            rows = rows[picked]
            rows.flags.writeable = False
            weight = weight[picked] if weight.size > 1 else np.full(1, N / len(rows))
            weight.flags.writeable = False
        ranking = []
        for i, (kind, moments) in enumerate(candidates):
            code, state = climb(rows, weight, short, moments)
            outcomes[i] = _outcome(kind, code, state, table)
            if code != ascent.DEGENERATE:
                ranking.append((state.numbers[ascent.VALUE], i, state.z.copy()))
            report()
        ranking.sort(key=lambda entry: -entry[0])
        finalists = [(i, z) for _, i, z in ranking[:_FINALISTS]]
        for _, i, _ in ranking[_FINALISTS:]:
            previous = outcomes[i]
            outcomes[i] = Start(previous.kind, Status.LEFT_BEHIND, previous.log_likelihood, previous.n_iterations)
    else:
        finalists = [(i, moments) for i, (_, moments) in enumerate(candidates)]
    best = None
    for i, moments in finalists:
        code, state = climb(table.values, table.sample_weight, problem, moments)
        outcomes[i] = _outcome(candidates[i][0], code, state, table)
        if code != ascent.DEGENERATE and (best is None or state.numbers[ascent.VALUE] > best[1].numbers[ascent.VALUE]):
            best = code, state
        report()
    if best is None:
        first = next(start for start in outcomes if start is not None)
        raise DegenerateFitError(
            f"all {len(candidates)} starts collapsed; in the first, {first.detail}. Use fewer components, a simpler "
            f"covariance (now {model.label(D)}) or more distinct rows"
        )
    code, state = best
    n = int(state.numbers[ascent.ITERATION])
    mixture = GaussianMixture(
        weights=state.z[:K] / state.z[:K].sum(),
        means=state.parameters.offsets + center,
        covariances=state.covariances,
    )
    path = state.path[: n + 1].copy()
    path.flags.writeable = False
    return EMFit(
        mixture=mixture.permute(_order(mixture, align_to)),
        covariance_model=model,
        status=_STATUS[code],
        log_likelihood=float(state.numbers[ascent.VALUE]),
        log_likelihood_path=path,
        n_iterations=n,
        remaining_gain=float(state.numbers[ascent.REMAINING]),
        starts=tuple(start for start in outcomes if start is not None),
        n_observations=N,
        total_weight=table.total_weight,
        features=table.features,
        certainty=float(state.numbers[ascent.CERTAINTY]),
    )


def _enough_rows(table: Observations, K: int) -> None:
    """Refuse more components than distinct rows, looking only as far as needed."""
    if K > table.n_observations:
        raise InputError(f"{K} components cannot be fitted to {table.n_observations} rows")
    distinct: set[bytes] = set()
    for row in table.values:
        distinct.add(row.tobytes())
        if len(distinct) > K:
            return
    if K > 1:
        raise InputError(f"{K} components need more than {K} distinct rows; this table has {len(distinct)}")


def _reference(spread: np.ndarray, model: CovarianceModel, features: tuple[str, ...]) -> np.ndarray:
    """Diagonal of the precision factor of the data's covariance, against which a component's collapse is judged."""
    P = np.empty_like(spread)
    if model.diagonal:
        return 1 / np.sqrt(np.diag(spread))
    for d in range(2, len(spread) + 1):
        if precision_cholesky(spread[:d, :d], P[:d, :d].copy()) <= 1e-13:
            raise InputError(
                f"column {features[d - 1]!r} is a linear combination of the columns before it, so that no covariance "
                f"{model.name} can be estimated; leave it out, or use covariance 'diag' or 'spherical'"
            )
    precision_cholesky(spread, P)
    return np.diag(P).copy()


def _outcome(kind: str, code: int, state: ascent.State, table: Observations) -> Start:
    n = int(state.numbers[ascent.ITERATION])
    if code != ascent.DEGENERATE:
        return Start(kind, _STATUS[code], float(state.numbers[ascent.VALUE]), n)
    k = int(state.numbers[ascent.COMPONENT])
    detail = f"a component collapsed with {state.z[k]:.2f} effective rows"
    return Start(kind, Status.DEGENERATE, -math.inf, n, detail)


def _order(mixture: GaussianMixture, align_to: EMFit | GaussianMixture | None) -> np.ndarray:
    """Order of the components: by the features' means from the first, or nearest to another mixture's."""
    if align_to is None:
        return np.lexsort(mixture.means.T[::-1])
    from bayesgmm.alignment import match

    target = align_to.mixture if isinstance(align_to, EMFit) else align_to
    if target.means.shape != mixture.means.shape:
        raise InputError(f"align_to has means of shape {target.means.shape}, this fit {mixture.means.shape}")
    return match(mixture, target)
