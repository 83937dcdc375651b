"""`fit_em`: a maximum-likelihood Gaussian mixture from several starts, and `EMFit`, what it found."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesgmm.covariance import CovarianceModel, first_dependent, precision_cholesky
from bayesgmm.em import ascent
from bayesgmm.em.initialize import NO_LABELS, given, portfolio, whole_table
from bayesgmm.em.search import Climber, Maximum, Start, Status, search
from bayesgmm.errors import ConvergenceWarning, DegenerateFitError, InputError
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations, check_names, observations, positive_integer

if TYPE_CHECKING:
    from bayesgmm.em.information import StandardErrors


_SAME_TABLE = 1e-2, 1e-6  # nats, and share of it, by which a table's log-likelihood may differ from its fit's
_FEW_ROWS = 1.5  # fewer are no component but a single row
_WIDE = 30.0  # times the sd that any other component has in a feature; no published fit comes near
_SPREAD_ROWS = 50_000  # that the origin and the units of a climb are taken from


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
        From the best start's first parameters to the returned ones; never falls. With priors, their logarithm (up to a
        constant) is added.
    n_iterations : int
    remaining_gain : float
        Projected log-likelihood left to gain, in nats.
    starts : tuple of Start
        Every start, failed ones too.
    maxima : tuple of Maximum
        The distinct local maxima found, highest first, with hit counts and whether they are spurious. The returned fit
        is the highest that is not.
    n_observations, n_features : int
    total_weight : float
        Sum of ``sample_weight``; ``n_observations`` without.
    features : tuple of str
        Column names.
    given : tuple of str
        Which of "labels", "fixed" and "priors" the fit was made with.
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
    maxima: tuple[Maximum, ...]
    n_observations: int
    total_weight: float
    features: tuple[str, ...]
    certainty: float  # sum of the rows' largest log responsibilities, nats
    given: tuple[str, ...] = ()
    n_fixed: int = 0  # parameters that were fixed

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
        """Free parameters: K - 1 weights, K D means, and the covariance model's own, without those that were fixed."""
        K, D = self.n_components, self.n_features
        return K - 1 + K * D + self.covariance_model.n_parameters(K, D) - self.n_fixed

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

    @property
    def spurious(self) -> bool:
        """Whether every maximum that was found, and with them this fit, is spurious."""
        return all(maximum.spurious for maximum in self.maxima)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What makes this fit doubtful and what to do, a clause each; none where nothing does.

        Every maximum is spurious; a component holds a single row or none; or it is many times as wide as any other,
        as where rows lie far out or tails are heavier than normal.
        """
        found = []
        if self.spurious:
            detail = self.maxima[0].detail
            found.append(f"every maximum found is spurious: {detail}; use priors, fewer components or more starts")
        if self.n_components == 1:
            return tuple(found)
        rows = self.mixture.weights * self.n_observations
        if (rows < _FEW_ROWS).any():
            k, n = int(rows.argmin()), int((rows < _FEW_ROWS).sum())
            others = f", and {n - 1} other{'s' * (n > 2)} hardly more" if n > 1 else ""
            found.append(
                f"component {k} holds {rows[k]:.1f} effective rows{others}; use fewer components, and see whether "
                "single rows lie far out"
            )
        sds = np.sqrt(np.einsum("kjj->kj", self.mixture.covariances))
        widest = np.sort(sds, axis=0)[-2:]
        times = widest[1] / widest[0]
        if times.max() > _WIDE:
            j = int(times.argmax())
            found.append(
                f"component {sds[:, j].argmax()} is {times[j]:.0f} times as wide as any other in {self.features[j]!r}: "
                "tails heavier than normal, or rows far out; transform the feature, or leave them out"
            )
        return tuple(found)

    def standard_errors(self, X: Any, sample_weight: Any = None) -> StandardErrors:
        """Standard errors of all parameters from the observed information at this maximum-likelihood fit.

        Parameters
        ----------
        X : (N, D) table
            The table that was fitted.
        sample_weight : (N,), optional
            As in the fit.

        Returns
        -------
        StandardErrors

        See Also
        --------
        bootstrap : standard errors and intervals without the large-sample approximation.
        """
        from bayesgmm.em.information import observed_information

        return observed_information(self, X, sample_weight)

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
    labels: Any = None,
    fixed: Mapping[str, Any] | None = None,
    priors: Any = None,
    starts: Sequence[Any] | None = None,
    n_starts: int = 20,
    align_to: EMFit | GaussianMixture | None = None,
    max_iterations: int = 10_000,
    tolerance: float = 1e-6,
    rng: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> EMFit:
    """Maximum-likelihood, or with priors maximum-a-posteriori, Gaussian mixture by expectation-maximisation.

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
    labels : (N,) int, optional
        The component of rows where it is known, -1 where it is not. Components then keep these numbers.
    fixed : mapping, optional
        Parts that stay as given: any of "weights" (K,), "means" (K, D), "covariances" (K, D, D), with NaN for
        components that are free. Single covariances can be fixed where they vary freely (full, diag, spherical).
    priors : Priors, optional
        Maximise the posterior density of weights, means and covariances instead of the likelihood; a component then
        cannot collapse, and there may be more components than rows. The covariances' prior is inverse Wishart, or
        hierarchical: its scale matrix is integrated out.
    starts : list, optional
        Labels (N,), responsibilities (N, K) or `GaussianMixture` values to start from instead of the portfolio.
    n_starts : int
        Size of the portfolio: hierarchical, k-means++ seeds and random partitions in whitened coordinates. The best
        ten, or a quarter if that is more, are carried on after short runs; with many components more starts find more.
    align_to : EMFit or GaussianMixture, optional
        Number the components as the nearest ones of this fit.
    max_iterations : int
        Per start.
    tolerance : float
        Stop when the projected remaining gain in log-likelihood, in nats and in total, is below this. With 0 and a
        single given start, exactly ``max_iterations`` plain EM iterations are made, or as many as change anything.
    rng : Generator, seed or None
    progress : callable, optional
        Called with the number of climbs done and their total.

    Returns
    -------
    EMFit

    Warns
    -----
    ConvergenceWarning
        If the fit has ``doubts``: every maximum found is spurious, owing its height to a component with too few rows;
        or a component holds a single row, or is many times as wide as any other.

    Raises
    ------
    InputError
        Naming the row, column or argument that cannot be used.
    DegenerateFitError
        If in every start a component collapses.

    Notes
    -----
    All starts make a short run; the best are carried on (small-EM, Biernacki, Celeux & Govaert 2003). Slow climbs are
    accelerated by Anderson mixing of the expected moments, undone where the log-likelihood would fall. The means where
    the best climb ends are moved a little, at most by a standard error: if it does not come back, that was a saddle or
    a plateau, and it goes on.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> fit = bg.fit_em(bg.datasets.old_faithful(), n_components=3, covariance="tied", rng=0)
    >>> round(fit.bic, 2)
    2314.3
    """
    fit = fit_quietly(
        X,
        n_components,
        covariance,
        sample_weight=sample_weight,
        labels=labels,
        fixed=fixed,
        priors=priors,
        starts=starts,
        n_starts=n_starts,
        align_to=align_to,
        max_iterations=max_iterations,
        tolerance=tolerance,
        rng=rng,
        progress=progress,
    )
    if fit.doubts:
        warnings.warn("; ".join(fit.doubts), ConvergenceWarning, stacklevel=2)
    return fit


def fit_quietly(
    X: Any,
    n_components: int,
    covariance: str | CovarianceModel = "full",
    *,
    sample_weight: Any = None,
    labels: Any = None,
    fixed: Mapping[str, Any] | None = None,
    priors: Any = None,
    starts: Sequence[Any] | None = None,
    n_starts: int = 20,
    align_to: EMFit | GaussianMixture | None = None,
    max_iterations: int = 10_000,
    tolerance: float = 1e-6,
    rng: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> EMFit:
    """As `fit_em`, of tables that nobody has asked about, such as replicates: their doubts are not warned of."""
    K = positive_integer(n_components, "n_components")
    max_iterations = positive_integer(max_iterations, "max_iterations", least=0)
    n_starts = positive_integer(n_starts, "n_starts")
    if not isinstance(tolerance, (int, float)) or not tolerance >= 0 or math.isinf(tolerance):
        raise InputError(f"tolerance must be a finite number of nats, at least 0, not {tolerance!r}")
    table = observations(X, sample_weight)
    D = table.n_features
    model = CovarianceModel.named(covariance).for_features(D)
    if priors is None:
        enough_rows(table, K)
    known = _known_labels(labels, table, K)
    rng = np.random.default_rng(rng)
    climber, spread = prepare(table, model, K, known, fixed, priors, float(tolerance), max_iterations)
    if starts is not None:
        if priors is not None:  # they would draw a mixture's own moments to themselves once more, not its rows'
            starts = [_expected(start, table, K) for start in starts] if isinstance(starts, Sequence) else starts
        candidates = given(starts, table, climber.center, K)
    else:
        n_starts = 1 if K == 1 or (known.size and known.min() >= 0) else n_starts
        candidates = portfolio(table, known, climber.center, spread, K, n_starts, rng)
    parts = tuple(name for name, value in (("labels", known.size), ("fixed", fixed), ("priors", priors)) if value)
    return fit_from(climber, candidates, rng, progress, align_to, parts)


def fit_from(
    climber: Climber,
    candidates: list[tuple[str, np.ndarray]],
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None = None,
    align_to: EMFit | GaussianMixture | None = None,
    parts: tuple[str, ...] = (),
) -> EMFit:
    """The best fit that climbs from named moments find; ``parts`` are what `EMFit` has as ``given``.

    Raises
    ------
    DegenerateFitError
        If in every start a component collapses.
    """
    table, model, D = climber.table, climber.model, climber.table.n_features
    found = search(climber, candidates, rng, progress)
    if found.best is None:
        detail = next((start.detail for start in found.starts if start.detail), "rows lie too close together")
        raise DegenerateFitError(
            f"all {len(candidates)} starts collapsed; in the first, {detail}. Use priors "
            f"(Priors.weakly_informative), fewer components, a simpler covariance (now {model.label(D)}) or more "
            "distinct rows"
        )
    end = found.best.progress[0]
    means = found.best.offsets[0] + climber.center
    best = found.best
    names = table.features if table.named else None
    mixture = GaussianMixture(best.weights[0], means, best.covariances[0], names)
    if align_to is not None or not {"labels", "fixed"} & set(parts):
        mixture = mixture.permute(_order(mixture, align_to))
    found.path.flags.writeable = False
    return EMFit(
        mixture=mixture,
        covariance_model=model,
        status=found.status,
        log_likelihood=float(end["log_likelihood"]),
        log_likelihood_path=found.path,
        n_iterations=int(end["iteration"]),
        remaining_gain=float(end["remaining"]),
        starts=found.starts,
        maxima=found.maxima,
        n_observations=table.n_observations,
        total_weight=table.total_weight,
        features=table.features,
        certainty=float(end["certainty"]),
        given=parts,
        n_fixed=_n_fixed(climber.problem.fixed, model, D),
    )


def fitted_table(fit: EMFit, X: Any, sample_weight: Any, unknown: tuple[str, ...], what: str) -> Observations:
    """The table that was fitted, or an `InputError` where it is another or ``what`` cannot use all the fit had."""
    if not isinstance(fit, EMFit):
        raise InputError(f"{what} needs the fit that fit_em returned, not {type(fit).__name__}")
    table = observations(X, sample_weight)
    if table.n_features != fit.n_features:
        raise InputError(f"the table has {table.n_features} columns, the fit {fit.n_features}")
    check_names(X, fit.mixture.features)
    if table.n_observations != fit.n_observations:
        raise InputError(
            f"the table has {table.n_observations} rows, the fit {fit.n_observations}; give the table that was fitted"
        )
    if abs(table.total_weight - fit.total_weight) > 1e-9 * fit.total_weight:
        raise InputError("the row weights are not those of the fit; give the same sample_weight, or refit without")
    for name in unknown:
        if name in fit.given:
            raise InputError(f"{what} cannot take account of {name}=, which the fit was made with; refit without")
    if "labels" not in fit.given:
        here = float((fit.mixture.log_prob(table.values) * table.sample_weight).sum())
        if abs(here - fit.log_likelihood) > _SAME_TABLE[0] + _SAME_TABLE[1] * abs(here):
            raise InputError(
                f"this is another table than was fitted, though as large: its log-likelihood under the fit is "
                f"{here:.2f}, not {fit.log_likelihood:.2f}; give the table that was fitted, or refit"
            )
    return table


def _n_fixed(fixed: ascent.Fixed, model: CovarianceModel, D: int) -> int:
    """Number of parameters that are fixed."""
    K, n = len(fixed.has_weight), int(fixed.has_covariance.sum())
    covariances = model.n_parameters(K, D) if n == K else n * model.n_parameters(1, D)
    return min(int(fixed.has_weight.sum()), K - 1) + D * int(fixed.has_mean.sum()) + (covariances if n else 0)


def prepare(
    table: Observations,
    model: CovarianceModel,
    K: int,
    known: np.ndarray = NO_LABELS,
    fixed: Mapping[str, Any] | None = None,
    priors: Any = None,
    tolerance: float = 1e-6,
    max_iterations: int = 10_000,
) -> tuple[Climber, np.ndarray]:
    """The climber of a table, and the covariance (D, D) that set its units."""
    center, spread = _center_and_spread(table)
    problem = ascent.Problem(
        model,
        table.total_weight,
        center,
        _reference(spread, model, table.features, priors is not None),
        _metric(table.total_weight, spread, K),
        _penalty(priors, model, center, K),
        _fixed_parts(fixed, model, center, K),
        tolerance,
        max_iterations,
    )
    return Climber(table, known, center, model, problem), spread


def _center_and_spread(table: Observations) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance that only set origin and units; of a long table those of evenly spaced rows will do."""
    step = table.n_observations // _SPREAD_ROWS
    if step > 1:
        weight = table.sample_weight if table.sample_weight.size == 1 else table.sample_weight[::step].copy()
        if weight.sum() > 0:
            values = table.values[::step].copy()
            values.flags.writeable = False
            center, spread = whole_table(Observations(values, table.features, weight))
            if precision_cholesky(spread, np.empty_like(spread)) > 1e-6:
                return center, spread
    return whole_table(table)


def enough_rows(table: Observations, K: int) -> None:
    """Refuse more components than distinct rows, looking only as far as needed."""
    if K > table.n_observations:
        raise InputError(f"{K} components cannot be fitted to {table.n_observations} rows without priors")
    distinct: set[bytes] = set()
    for row in table.values:
        distinct.add(row.tobytes())
        if len(distinct) > K:
            return
    if K > 1:
        raise InputError(f"{K} components need priors, or more than {K} distinct rows; this table has {len(distinct)}")


def _reference(spread: np.ndarray, model: CovarianceModel, features: tuple[str, ...], priors: bool) -> np.ndarray:
    """Diagonal of the precision factor of the data's covariance, against which a component's collapse is judged."""
    P = np.empty_like(spread)
    scales = 1 / np.sqrt(np.diag(spread))
    if model.diagonal:
        return scales
    if precision_cholesky(spread, P) > 1e-13:
        return np.diag(P).copy()
    if priors:
        return scales
    first = first_dependent(spread)
    assert first is not None
    raise InputError(
        f"column {features[first]!r} is a linear combination of the columns before it, so that no covariance "
        f"{model.name} can be estimated; leave it out, give priors, or use covariance 'diag' or 'spherical'"
    )


def _metric(total: float, spread: np.ndarray, K: int) -> np.ndarray:
    """Units in which the residuals of the moments are comparable: shares of rows, and the data's sds."""
    scale = np.sqrt(np.diag(spread))
    return np.concatenate(
        (np.full(K, 1 / total), np.tile(1 / scale, K), np.tile((1 / np.outer(scale, scale)).ravel(), K))
    )


def _penalty(priors: Any, model: CovarianceModel, center: np.ndarray, K: int) -> ascent.Penalty:
    """The priors as the M-step sees them; none are the likelihood alone."""
    D = len(center)
    if priors is None:
        return ascent.Penalty(
            np.zeros(K), np.zeros(D), np.zeros((D, D)), 0.0, np.zeros((D, D)), 0.0, np.eye(D), np.zeros((D, D))
        )
    if not hasattr(priors, "concentration"):
        raise InputError(f"priors must be a Priors value, as Priors.weakly_informative gives, not {priors!r}")
    if not hasattr(priors.covariances, "equivalent_data"):
        raise InputError(
            f"EM maximises under inverse-Wishart priors of the covariances only, not {priors.covariances.title} ones; "
            "fit without priors, and give them to sample_posterior"
        )
    priors = priors.for_components(K)
    if (priors.n_components, priors.n_features) != (K, D):
        raise InputError(
            f"the priors are for {priors.n_components} components and {priors.n_features} features, not {K} and {D}"
        )
    rows, scatter = priors.covariances.equivalent_data(model)
    degrees, scale = priors.covariances.equivalent_data_of_scale(model, K)
    factor = np.empty_like(scale)
    precision_cholesky(scale, factor)
    return ascent.Penalty(
        priors.concentration - 1,
        priors.means.location - center,
        priors.means.precision,
        float(rows),
        scatter,
        float(degrees),
        factor @ factor.T,
        priors.covariances.floor * scatter,
    )


def _fixed_parts(fixed: Mapping[str, Any] | None, model: CovarianceModel, center: np.ndarray, K: int) -> ascent.Fixed:
    """The parts that stay as given, means as offsets from the center."""
    D = len(center)
    shapes = {"weights": (K,), "means": (K, D), "covariances": (K, D, D)}
    flags, values = {}, {}
    fixed = fixed or {}
    if unknown := set(fixed) - set(shapes):
        raise InputError(f"fixed has no part {sorted(unknown)[0]!r}; use weights, means, covariances")
    for name, shape in shapes.items():
        value = np.array(fixed.get(name, np.full(shape, np.nan)), dtype=np.float64)
        if value.shape != shape:
            raise InputError(f"fixed {name} have shape {value.shape}, not {shape} (NaN for what is free)")
        flags[name] = ~np.isnan(value).reshape(K, -1).any(axis=1)
        values[name] = np.nan_to_num(value)
    weights = values["weights"][flags["weights"]]
    if (weights <= 0).any() or weights.sum() > 1 + 1e-9 or (flags["weights"].all() and abs(weights.sum() - 1) > 1e-6):
        raise InputError("fixed weights must be positive and sum to one, or to less where others are free")
    some = flags["covariances"]
    if some.any() and not some.all() and "E" in model.name:
        raise InputError(f"single covariances cannot be fixed in {model.name}, whose components share parts of them")
    for k in np.flatnonzero(some):
        if not precision_cholesky(values["covariances"][k], np.empty((D, D))) > 0:
            raise InputError(f"the fixed covariance of component {k} is not positive definite")
    offsets = values["means"] - center
    return ascent.Fixed(flags["weights"], values["weights"], flags["means"], offsets, some, values["covariances"])


def _expected(start: Any, table: Observations, K: int) -> Any:
    """Responsibilities instead of a mixture."""
    fits = isinstance(start, GaussianMixture) and start.means.shape == (K, table.n_features)
    return start.responsibilities(table.values) if fits else start


def _known_labels(labels: Any, table: Observations, K: int) -> np.ndarray:
    """Known components (N,), -1 where unknown; empty where none are given."""
    if labels is None:
        return NO_LABELS
    array = np.asarray(labels)
    if array.shape != (table.n_observations,) or array.dtype.kind not in "iu":
        raise InputError(f"labels must be {table.n_observations} whole numbers, -1 where the component is unknown")
    wrong = np.flatnonzero((array < -1) | (array >= K))
    if wrong.size:
        raise InputError(f"the label of row {wrong[0]} is {array[wrong[0]]}; labels are 0..{K - 1}, or -1 for unknown")
    return np.ascontiguousarray(array, dtype=np.int64)


def _order(mixture: GaussianMixture, align_to: EMFit | GaussianMixture | None) -> np.ndarray:
    """Order of the components: by the features' means from the first, or nearest to another mixture's."""
    if align_to is None:
        return np.lexsort(mixture.means.T[::-1])
    from bayesgmm.alignment import match

    target = align_to.mixture if isinstance(align_to, EMFit) else align_to
    if target.means.shape != mixture.means.shape:
        raise InputError(f"align_to has means of shape {target.means.shape}, this fit {mixture.means.shape}")
    return match(mixture, target)
