"""`fit_em`: a maximum-likelihood Gaussian mixture from several starts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bayesgmm.alignment import match
from bayesgmm.checkpoints import Checkpoints, KeptPasses, claim, described, described_parts, fingerprint
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em import ascent
from bayesgmm.em.climber import MAX_ITERATIONS, TOLERANCE, Climber, make_climber
from bayesgmm.em.initialize import Seeding, user_starts
from bayesgmm.em.large import on_all_rows, sample_of, seed_of_sample
from bayesgmm.em.record import kept_fit
from bayesgmm.em.result import EMFit, refuse_what_is_for_rows
from bayesgmm.em.search import Plan, search
from bayesgmm.errors import ConvergenceWarning, DegenerateFitError, InputError
from bayesgmm.expectation import NO_LABELS
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations, observations, positive_integer
from bayesgmm.parts import Parts
from bayesgmm.passes import Streamed, answer
from bayesgmm.progress import Progress, of_stage
from bayesgmm.sources import parts_of
from bayesgmm.tables import stand_ins

_GAUSSIAN_STARTS = 5  # of a single component where values are missing
_ONE_FOR_EACH_ROW = ("sample_weight", "error_sd", "error_covariance", "labels", "noise")  # arguments
_FLAT = 1e-3  # of the errors' variance: less is as good as no variance


@dataclass(frozen=True, kw_only=True, eq=False)
class FitSettings:
    """How `fit_em` fits: its arguments apart from the table and the model, checked as far as they can be alone.

    Raises
    ------
    InputError
        Naming the setting that cannot be used.
    """

    sample_weight: Any = None
    error_sd: Any = None
    error_covariance: Any = None
    labels: Any = None
    noise: Any = None
    fixed: Mapping[str, Any] | None = None
    priors: Any = None
    reg_covar: Any = 0.0
    starts: Sequence[Any] | None = None
    n_starts: int | None = None
    align_to: EMFit | GaussianMixture | None = None
    max_iterations: int = MAX_ITERATIONS
    tolerance: float = TOLERANCE
    out: Any = None
    rng: Any = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        positive_integer(self.max_iterations, "max_iterations", least=0)
        if self.n_starts is not None:
            positive_integer(self.n_starts, "n_starts")
        if not isinstance(self.tolerance, (int, float)) or not self.tolerance >= 0 or math.isinf(self.tolerance):
            raise InputError(f"tolerance must be a finite number of nats, at least 0, not {self.tolerance!r}")
        if not (self.row_variance.ndim < 2 and np.isfinite(self.row_variance).all() and (self.row_variance >= 0).all()):
            raise InputError(f"reg_covar must be a variance, or one a column, at least 0, not {self.reg_covar!r}")

    @cached_property
    def row_variance(self) -> np.ndarray:
        """Variance of the blob that each row counts as: () or (D,); zero where rows are points."""
        try:
            return np.asarray(self.reg_covar, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"reg_covar must be a variance, or one a column, not {self.reg_covar!r}") from error


def fit_em(
    X: Any,
    n_components: int,
    covariance: str | CovarianceModel = "full",
    *,
    sample_weight: Any = None,
    error_sd: Any = None,
    error_covariance: Any = None,
    labels: Any = None,
    noise: Any = None,
    fixed: Mapping[str, Any] | None = None,
    priors: Any = None,
    reg_covar: Any = FitSettings.reg_covar,
    starts: Sequence[Any] | None = None,
    n_starts: int | None = FitSettings.n_starts,
    align_to: EMFit | GaussianMixture | None = None,
    max_iterations: int = FitSettings.max_iterations,
    tolerance: float = FitSettings.tolerance,
    out: str | Path | None = None,
    rng: Any = None,
    progress: Progress | None = None,
) -> EMFit:
    """Fit a Gaussian mixture by expectation-maximisation: maximum likelihood, or with priors maximum a posteriori.

    Parameters
    ----------
    X : (N, D) table
        Array, DataFrame or nested lists of finite numbers; NaN, None, pandas.NA and masked entries are missing values.
        Or a table in parts, which need not fit in memory, and everything that `open_table` makes one of.
    n_components : int
        K >= 1.
    covariance : str or CovarianceModel
        "full", "tied", "diag", "spherical", or one of the 14 three-letter names.
    sample_weight : (N,), optional
        Non-negative weights; a whole number counts a row that often, 0 leaves it out.
    error_sd : (D,) or (N, D), optional
        Standard deviations of the errors that the values were measured with; the mixture is then that of the true
        values.
    error_covariance : (D, D) or (N, D, D), optional
        Covariances of the errors, instead.
    labels : (N,) int, optional
        The component of rows where it is known, -1 where it is not. Components then keep these labels.
    noise : bool, Noise or (N,), optional
        Let rows belong to no component: True for a `Noise`, uniform over the box of the columns' ranges, another
        `Noise`, or the log density of such rows at each row of the table, in nats. The mixture then has a
        ``noise_weight``.
    fixed : mapping, optional
        Parts that stay as given: any of "weights" (K,), "means" (K, D), "covariances" (K, D, D), with NaN for
        components that are free. Single covariances can be fixed where they vary freely (full, diag, spherical).
    priors : Priors, optional
        Maximise the posterior density of weights, means and covariances instead of the likelihood; a component then
        cannot collapse, and there may be more components than rows. The prior of the covariances must be inverse
        Wishart; of a hierarchical one the scale matrix is integrated out.
    reg_covar : float or (D,)
        Variance added to every feature of every covariance, in the squared units of the table (see Notes). Where it is
        positive a component cannot collapse: columns may be constant or collinear, and rows few.
    starts : list, optional
        Labels (N,), responsibilities (N, K) or `GaussianMixture` values to start from instead of the portfolio. With
        noise, labels may be -1 and responsibilities of a row sum to less than one.
    n_starts : int, optional
        Number of starts. Without it there are as many as it takes until the chance of a better maximum is below 2 %,
        but at most 200, fewer where the table is long or has many features. ``fit.search`` says what was found how
        often, and ``fit.search_end`` why the search ended.
    align_to : EMFit or GaussianMixture, optional
        Order the components like those nearest to them in this fit or mixture, instead of by their means. Under priors
        with a concentration for each component they keep the order that the priors like best, and cannot be aligned.
    max_iterations : int
        Per start.
    tolerance : float
        A climb stops when further iterations would gain less log-likelihood than this, in nats, by its own estimate.
        With 0 and a single start of your own it makes exactly ``max_iterations`` plain EM iterations, or fewer if they
        no longer change anything.
    out : path, optional
        Directory that keeps what has been found out of a table in parts, after each pass over its rows. The same call
        goes on from there, however it was stopped, and ends at the same digits; a table or settings that have changed
        are an error.
    rng : Generator, seed or None
    progress : callable, optional
        Called with the stage "EM climbs", how many are done and their total. Of a table in parts the stages are
        "rows looked at", "EM climbs" (in a random sample of the rows), and "pass 1", "pass 2", ..., of which rows are
        counted.

    Returns
    -------
    EMFit

    Warns
    -----
    ConvergenceWarning
        If the fit has ``doubts``: every maximum found is spurious, owing its height to a component with too few rows;
        or a component holds a single row; or one is many times as wide as any other; or one's variance is not above the
        errors of measurement.

    Raises
    ------
    InputError
        Naming the row, column or argument that cannot be used.
    DegenerateFitError
        If in every start a component collapses.

    Notes
    -----
    The first twenty starts are hierarchical clusterings, k-means++ seeds and random partitions in whitened coordinates.
    Further ones are moves of the best maximum: one component goes to a random row, or to one half of another one; a
    fifth are new seeds. The chance of a better maximum is judged by how often the best was met, and how often those
    within ten nats of it, above all by how many of these were met once; more starts never give a lower maximum. Where
    the table is long (more than 500 rows and 100 per feature for each component) 20 starts, or ``n_starts``, make short
    runs over a sample of its rows instead, and the best are carried on over all rows ("small EM"). Slow climbs are
    accelerated by multisecant steps of the expected moments (Anderson mixing of type I); a step that would lower the
    log-likelihood is undone. Where the best climb ends, its means are moved by at most a standard error. If the climb
    does not come back from there, it had ended on a saddle or a plateau, and goes on.

    Missing values are integrated over, not filled in: estimates are those of maximum likelihood if a value's being
    missing depends on observed values alone (missing at random). Where values are missing for what they are, as when
    high ones are never recorded, estimates mislead, and no table shows it.

    With ``reg_covar`` each row counts as a blob: normal about it, with these variances R. A component's log density is
    averaged over the blob, log N(x | m, S) - tr(S^-1 R) / 2, and its covariance gains R. EM climbs the likelihood of
    these densities, which is bounded; it lies below the log-likelihood of the rows, and by Jensen's inequality below
    its mean over rows drawn from the blobs. The path and the heights of starts and maxima are of this objective;
    ``log_likelihood``, and with it the criteria, is of the rows themselves.

    References
    ----------
    Dempster, Laird & Rubin (1977), Journal of the Royal Statistical Society B 39:1-38,
    doi:10.1111/j.2517-6161.1977.tb01600.x (EM).
    Celeux & Govaert (1995), Pattern Recognition 28:781-793, doi:10.1016/0031-3203(94)00125-6 (covariance models).
    Biernacki, Celeux & Govaert (2003), Computational Statistics & Data Analysis 41:561-575,
    doi:10.1016/S0167-9473(02)00163-9 (small EM).
    Murray (1977), Journal of the Royal Statistical Society B 39:27-28 (several maxima of one Gaussian).
    Bovy, Hogg & Roweis (2011), Annals of Applied Statistics 5:1657-1677, doi:10.1214/10-AOAS439 (errors).
    Boender & Rinnooy Kan (1987), Mathematical Programming 37:59-80, doi:10.1007/BF02591684 (when to stop).
    Ueda, Nakano, Ghahramani & Hinton (2000), Neural Computation 12:2109-2128, doi:10.1162/089976600300015088, and
    Zhao, Hautamäki & Fränti (2012), IEEE Signal Processing Letters 19:155-158 (moves).
    Fang & Saad (2009), Numerical Linear Algebra with Applications 16:197-221, doi:10.1002/nla.617 (Anderson mixing).
    Xu & Jordan (1996), Neural Computation 8:129-151, doi:10.1162/neco.1996.8.1.129 (its metric).

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
        error_sd=error_sd,
        error_covariance=error_covariance,
        labels=labels,
        noise=noise,
        fixed=fixed,
        priors=priors,
        reg_covar=reg_covar,
        starts=starts,
        n_starts=n_starts,
        align_to=align_to,
        max_iterations=max_iterations,
        tolerance=tolerance,
        out=out,
        rng=rng,
        progress=progress,
    )
    if doubts := fit.doubts:
        warnings.warn("; ".join(doubts), ConvergenceWarning, stacklevel=2)
    return fit


def fit_quietly(X: Any, n_components: int, covariance: str | CovarianceModel = "full", **settings: Any) -> EMFit:
    """As `fit_em`, without a warning of doubts: for tables that the user never sees, such as replicates.

    Parameters
    ----------
    X, n_components, covariance
        As in `fit_em`.
    **settings
        Those of `FitSettings`.
    """
    if (parts := parts_of(X)) is not None:
        return _fit_parts(parts, n_components, covariance, FitSettings(**settings))
    K, chosen = positive_integer(n_components, "n_components"), FitSettings(**settings)
    if chosen.out is not None:
        raise InputError("out keeps the passes over a table in parts; leave it out where the table is in memory")
    never_collapses = bool((chosen.row_variance > 0).all())
    errors = {"error_sd": chosen.error_sd, "error_covariance": chosen.error_covariance}
    table = observations(X, chosen.sample_weight, **errors, noise=chosen.noise, may_be_constant=never_collapses)
    if chosen.row_variance.size not in (1, table.n_features):
        raise InputError(f"reg_covar has {chosen.row_variance.size} entries; the table has {table.n_features} columns")
    model = CovarianceModel.named(covariance).for_features(table.n_features)
    if chosen.priors is None and not never_collapses:
        enough_rows(table, K)
    labels, rng = _known_labels(chosen.labels, table, K), np.random.default_rng(chosen.rng)
    climber, spread = make_climber(
        table,
        model,
        K,
        labels=labels,
        fixed=chosen.fixed,
        priors=chosen.priors,
        row_variance=chosen.row_variance,
        tolerance=float(chosen.tolerance),
        max_iterations=int(chosen.max_iterations),
    )
    if chosen.align_to is not None and climber.prefers_an_order:
        raise InputError("align_to cannot order components whose priors have concentrations of their own")
    if chosen.starts is not None:
        starts, blobs = _starts_under(chosen.priors, chosen.starts, table, K), climber.problem.row_variance
        plan = Plan(user_starts(starts, table, climber.center, blobs, K))
    else:
        seeding = Seeding(table, labels, climber.center, spread, K, rng)
        plan = Plan([], seeding, starts_for(table, K, chosen.n_starts))
    made_with = {
        "labels": labels.size,
        "fixed": chosen.fixed,
        "priors": chosen.priors,
        "reg_covar": chosen.row_variance.any(),
        "errors": table.errors is not None,
    }
    constraints = tuple(name for name, value in made_with.items() if value)
    progress = of_stage(chosen.progress, "EM climbs")
    return fit_by_plan(climber, plan, rng, progress, chosen.align_to, constraints)


def _fit_parts(parts: Parts, n_components: int, covariance: str | CovarianceModel, chosen: FitSettings) -> EMFit:
    """`fit_quietly` of a table in parts: a fit to a random sample, from which all rows are climbed."""
    refuse_what_is_for_rows({name: getattr(chosen, name) for name in _ONE_FOR_EACH_ROW})
    K, model = positive_integer(n_components, "n_components"), CovarianceModel.named(covariance)
    model = model.for_features(parts.n_features)
    out = None if chosen.out is None else Path(chosen.out)
    seed = _seed_of_run(parts, K, model, chosen)
    sample = sample_of(parts, seed, of_stage(chosen.progress, "rows looked at"), kept=out)
    if out is not None:
        claim(out, {"rows, of which a random sample is": fingerprint(sample.table)[:16]})
    checkpoints = Checkpoints.of(out, sample.table, _described(chosen), seed)
    settings = {field.name: getattr(chosen, field.name) for field in fields(chosen)}
    settings |= {"rng": np.random.default_rng([seed, 1]), "out": None}
    of_sample = kept_fit(checkpoints, (model.name, K), lambda: fit_quietly(sample.table, K, model, **settings))
    climber, spread = make_climber(
        sample.table,
        model,
        K,
        fixed=chosen.fixed,
        priors=chosen.priors,
        row_variance=chosen.row_variance,
        tolerance=float(chosen.tolerance),
        max_iterations=int(chosen.max_iterations),
    )
    passes = KeptPasses(Streamed(parts, climber.center, incomplete=not sample.complete), checkpoints, chosen.progress)
    fit = answer(passes, on_all_rows(sample, climber, spread, of_sample))
    if chosen.align_to is None and ("fixed" in fit.constraints or climber.prefers_an_order):
        return fit
    return replace(fit, mixture=fit.mixture.permute(order(fit.mixture, chosen.align_to)))


def _seed_of_run(parts: Parts, n_components: int, model: CovarianceModel, chosen: FitSettings) -> int:
    """The seed of everything that is random; where none is given, that of the run that is to go on."""
    seed = seed_of_sample(chosen.rng)
    if chosen.out is None:
        return seed
    run = {"columns": list(parts.features), "parts": described_parts(parts), "n_components": n_components}
    run |= {"covariance": model.name} | _described(chosen)
    run |= {"rng": int(chosen.rng)} if isinstance(chosen.rng, (int, np.integer)) else {}
    begun = claim(Path(chosen.out), run)
    return int(claim(Path(chosen.out), {"seed": begun.get("seed", seed) if chosen.rng is None else seed})["seed"])


def _described(chosen: FitSettings) -> dict[str, Any]:
    """The settings that a fit to a table in parts depends on."""
    rest = ("out", "rng", "progress", *_ONE_FOR_EACH_ROW)
    return {field.name: described(getattr(chosen, field.name)) for field in fields(chosen) if field.name not in rest}


def fit_by_plan(
    climber: Climber,
    plan: Plan,
    rng: np.random.Generator,
    progress: Callable[[int, int], None] = lambda done, total: None,
    align_to: EMFit | GaussianMixture | None = None,
    constraints: tuple[str, ...] = (),
    as_started: bool = False,
) -> EMFit:
    """The best fit that a search finds; ``constraints`` are what `EMFit` has under this name.

    The components are put in order, unless they are to stay ``as_started`` or labels or fixed parts tell them apart.

    Raises
    ------
    DegenerateFitError
        If in every start a component collapses.
    """
    table, model, D = climber.table, climber.model, climber.table.n_features
    result = search(climber, plan, rng, progress)
    best = result.best
    if best is None:
        detail = next((start.detail for start in result.starts if start.detail), "rows lie too close together")
        raise DegenerateFitError(
            f"all {len(result.starts)} starts collapsed; in the first, {detail}. Use priors "
            f"(Priors.weakly_informative), fewer components, a simpler covariance (now {model.label(D)}) or more "
            "distinct rows"
        )
    end = best.progress[0]
    names = table.features if table.named else None
    mixture = climber.mixture(best, 0, names)
    sums = float(end["log_likelihood"]), float(end["map_log_responsibility"])
    log_likelihood, map_log_responsibility = climber.log_likelihood(mixture) if "reg_covar" in constraints else sums
    if align_to is not None or not (as_started or climber.prefers_an_order or {"labels", "fixed"} & set(constraints)):
        mixture = mixture.permute(order(mixture, align_to))
    result.path.flags.writeable = False
    return EMFit(
        mixture=mixture,
        covariance_model=model,
        status=result.status,
        log_likelihood=log_likelihood,
        log_likelihood_path=result.path,
        n_iterations=int(end["iteration"]),
        remaining_gain=float(end["remaining"]),
        starts=result.starts,
        maxima=result.maxima,
        search_end=result.search_end,
        n_observations=table.n_observations,
        total_weight=table.total_weight,
        features=table.features,
        map_log_responsibility=map_log_responsibility,
        constraints=constraints,
        missing=table.count_missing(),
        stand_ins=stand_ins(table.values, table.features),
        within_errors=_within_errors(mixture, table),
        n_fixed=_n_fixed(climber.problem.fixed, model, D, climber.problem.noise),
    )


def starts_for(table: Observations, K: int, n_starts: int | None) -> int | None:
    """Number of starts: one Gaussian has one maximum, unless values are missing (Murray 1977) or there is noise."""
    if K > 1:
        return n_starts
    most = 1 if table.complete and table.noise is None else _GAUSSIAN_STARTS
    return most if n_starts is None else min(n_starts, most)


def _within_errors(mixture: GaussianMixture, table: Observations) -> tuple[int, ...]:
    """Components that are all but flat, in some direction, beside the errors: nothing says that they vary there."""
    if table.errors is None:
        return ()
    P = mixture.precisions_cholesky
    relative = np.linalg.eigvalsh(np.swapaxes(P, 1, 2) @ table.mean_error @ P)[:, -1]
    return tuple(np.flatnonzero(relative > 1 / _FLAT).tolist())


def enough_rows(table: Observations, K: int) -> None:
    """Refuse more components than distinct rows, looking only as far as needed."""
    n_rows = table.n_observations - len(table.empty)
    if n_rows < K:
        raise InputError(f"{K} components cannot be fitted to {n_rows} rows without priors")
    distinct: set[bytes] = set()
    for row in np.delete(table.values, table.empty, axis=0) if len(table.empty) else table.values:
        distinct.add(row.tobytes())
        if len(distinct) > K:
            return
    if K > 1:
        raise InputError(f"{K} components need priors, or more than {K} distinct rows; this table has {len(distinct)}")


def _n_fixed(fixed: ascent.Fixed, model: CovarianceModel, D: int, noise: bool) -> int:
    """Number of parameters that are fixed."""
    K, n = len(fixed.has_weight), int(fixed.has_covariance.sum())
    covariances = model.n_parameters(K, D) if n == K else n * model.n_parameters(1, D)
    return min(int(fixed.has_weight.sum()), K - 1 + noise) + D * int(fixed.has_mean.sum()) + (covariances if n else 0)


def _starts_under(priors: Any, starts: Any, table: Observations, K: int) -> Any:
    """The user's starts; under priors with responsibilities instead of mixtures.

    A mixture fitted under priors has been drawn to them already; its own moments would be drawn to them once more.
    """
    if priors is None or not isinstance(starts, Sequence):
        return starts

    def usable(start: Any) -> bool:
        return isinstance(start, GaussianMixture) and start.means.shape == (K, table.n_features)

    return [start.responsibilities(table) if usable(start) else start for start in starts]


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


def order(mixture: GaussianMixture, align_to: EMFit | GaussianMixture | None = None) -> np.ndarray:
    """Order of a mixture's components: by the features' means from the first, or nearest to another mixture's."""
    if align_to is None:
        return np.lexsort(mixture.means.T[::-1])
    target = align_to.mixture if isinstance(align_to, EMFit) else align_to
    if target.means.shape != mixture.means.shape:
        raise InputError(f"align_to has means of shape {target.means.shape}, this fit {mixture.means.shape}")
    return match(mixture, target)
