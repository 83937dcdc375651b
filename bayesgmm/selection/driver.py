"""`select`: all criteria for the number of components and the covariance model, asked of one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bayesgmm.checkpoints import Checkpoints, described_parts
from bayesgmm.covariance import NAMES, CovarianceModel
from bayesgmm.em.grid import Grid, Key, fit_grid
from bayesgmm.em.large import sample_of
from bayesgmm.em.record import kept_fit
from bayesgmm.em.result import EMFit, refuse_what_is_for_rows
from bayesgmm.errors import InputError
from bayesgmm.names import did_you_mean
from bayesgmm.observations import Observations, observations, positive_integer
from bayesgmm.parts import Parts
from bayesgmm.progress import Progress, of_stage, silent
from bayesgmm.selection.criteria import CRITERIA, DEFAULT, DEFAULT_IN_PARTS
from bayesgmm.selection.large import refuse_what_needs_memory, seed_of_held_out, select_from_parts
from bayesgmm.selection.overfitted import overfitted_mixture
from bayesgmm.selection.posteriors import check_sampling, contenders, with_posteriors
from bayesgmm.selection.resampling import held_out_densities, replicated_criteria, shares_chosen
from bayesgmm.selection.result import Selection
from bayesgmm.selection.run import Run, Seeds
from bayesgmm.selection.states import fit_state
from bayesgmm.selection.table import add_column, em_table, keys_of, none_succeeded, se_of_sum
from bayesgmm.sources import parts_of

_REPLICATES = 100


def select(
    X: Any,
    n_components: int | Iterable[int] = range(1, 10),
    covariances: str | CovarianceModel | Sequence[str | CovarianceModel] = ("full",),
    criteria: Sequence[str] | None = None,
    *,
    sample_weight: Any = None,
    error_sd: Any = None,
    error_covariance: Any = None,
    noise: Any = None,
    posterior: str | None = None,
    overfitted: bool = False,
    sampling: Mapping[str, Any] | None = None,
    n_starts: int | None = None,
    n_folds: int = 10,
    n_replicates: int | None = None,
    out: str | Path | None = None,
    rng: Any = None,
    progress: Progress | None = None,
) -> Selection:
    """Criteria for the number of components and the covariance model, side by side with their uncertainty.

    Parameters
    ----------
    X : (N, D) table
        Or a table in parts, which need not fit in memory, and everything that `open_table` makes one of.
    n_components : int or iterable of int
        The numbers of components K to compare.
    covariances : str, CovarianceModel or sequence of them
        Names as in `fit_em`, or "all" for the 14 models (for one feature: E and V).
    criteria : sequence of {"bic", "icl", "aic", "cv", "loo", "evidence", "held_out"}, optional
        The first is the one that `Selection.recommend` starts from. "cv" is the log density of held-out rows, summed
        over ``n_folds`` folds, each with fits of its own; "loo" and "evidence" need posteriors. "held_out", for tables
        in parts alone, is the log density per row of a tenth of the rows, under fits to the other nine tenths. By
        default ("bic", "icl", "cv"), and for a table in parts ("held_out", "icl", "bic").
    sample_weight, error_sd, error_covariance, noise : optional
        As in `fit_em`; with noise, every fit has some.
    posterior : {"contenders", "all"}, optional
        For which fits to draw from the posterior. "all" means every fit; "contenders" those that are best by some
        criterion or within 10 BIC of the best, at most five, and if fewer than three of these have a posterior, the
        next by BIC that do. "loo" and "evidence" alone ask for "contenders".
    overfitted : bool
        Whether to draw also from the posterior of a mixture of the largest size, at least 10, under a prior that
        favours empty components: the number of components that the rows fill is another answer to how many there are.
        The prior of means and covariances is `Priors.weakly_informative`.
    sampling : mapping, optional
        Arguments of `sample_posterior`, such as ``{"draws": 500}``; draws, tune and chains are the overfitted mixture's
        too. With ``{"method": "laplace"}`` the evidence is by Laplace's approximation, and there is no LOO.
    n_starts : int, optional
        As in `fit_em`. Unless it is one, fits start from their neighbours too: from one component fewer with one
        split, from one more with two merged, and from a simpler covariance model.
    n_folds : int
        Parts of the rows that "cv" holds out in turn.
    n_replicates : int, optional
        Tables of rows drawn with replacement to which the leading fits are refitted, to see how often BIC and ICL would
        choose otherwise; 0 for none. By default 100, and none for a table in parts.
    out : path, optional
        Directory where fits, folds, replicates and draws are stored as they come. The same selection, started again
        with the same seed, goes on from there.
    rng : Generator, seed or None
    progress : callable, optional
        Called with the name of a stage, how much of it is done, and its total.

    Returns
    -------
    Selection

    Raises
    ------
    InputError
        Naming the row, column or argument that cannot be used.
    KeyboardInterrupt
        If draws were interrupted (Ctrl-C); with ``out`` it says where they are kept.
    DegenerateFitError
        If not a single fit succeeds. One that fails among others is a row of the table, with the reason.

    Notes
    -----
    BIC [1]_ and ICL [2]_ ask about clusters; the held-out density [3]_, LOO [4]_ and stacking [5]_ about prediction; an
    overfitted mixture [6]_ [7]_ about how many components there are.

    Refits to replicates fit their own rows too well: their log-likelihood has a mean above the table's that grows with
    the number of parameters [8]_, so they are centred at the table's before criteria are compared. Only the leading
    fits are refitted: those that could come first given how much the difference to the best varies between rows, at
    most 25 by each criterion.

    Of a table in parts a random sample is fitted first. From where these fits end, all climb over all rows in lockstep:
    each reading of the rows serves every fit that has not converged. Which rows are held out depends on ``rng`` and on
    their positions alone. No sample weights, errors, noise, posteriors or replicates can be had there. The more rows,
    the more components BIC and held-out rows ask for, since no real cluster is quite normal; what each further one
    gains per row is what to look at.

    References
    ----------
    .. [1] Schwarz, G. (1978). Estimating the dimension of a model. Annals of Statistics 6, 461-464.
       https://doi.org/10.1214/aos/1176344136. For mixtures: Fraley, C. & Raftery, A. E. (2002). Model-based clustering,
       discriminant analysis, and density estimation. Journal of the American Statistical Association 97, 611-631.
       https://doi.org/10.1198/016214502760047131
    .. [2] Biernacki, C., Celeux, G. & Govaert, G. (2000). Assessing a mixture model for clustering with the integrated
       completed likelihood. IEEE Transactions on Pattern Analysis and Machine Intelligence 22, 719-725.
       https://doi.org/10.1109/34.865189
    .. [3] Smyth, P. (2000). Model selection for probabilistic clustering using cross-validated likelihood. Statistics
       and Computing 10, 63-72. https://doi.org/10.1023/A:1008940618127
    .. [4] Vehtari, A., Gelman, A. & Gabry, J. (2017). Practical Bayesian model evaluation using leave-one-out
       cross-validation and WAIC. Statistics and Computing 27, 1413-1432. https://doi.org/10.1007/s11222-016-9696-4
    .. [5] Yao, Y., Vehtari, A., Simpson, D. & Gelman, A. (2018). Using stacking to average Bayesian predictive
       distributions. Bayesian Analysis 13, 917-1007. https://doi.org/10.1214/17-BA1091
    .. [6] Rousseau, J. & Mengersen, K. (2011). Asymptotic behaviour of the posterior distribution in overfitted mixture
       models. Journal of the Royal Statistical Society B 73, 689-710.
       https://doi.org/10.1111/j.1467-9868.2011.00781.x
    .. [7] Malsiner-Walli, G., Frühwirth-Schnatter, S. & Grün, B. (2016). Model-based clustering based on sparse finite
       Gaussian mixtures. Statistics and Computing 26, 303-324. https://doi.org/10.1007/s11222-014-9500-2
    .. [8] Ishiguro, M., Sakamoto, Y. & Kitagawa, G. (1997). Bootstrapping log likelihood and EIC, an extension of AIC.
       Annals of the Institute of Statistical Mathematics 49, 411-434. https://doi.org/10.1023/A:1003158526504

    Examples
    --------
    >>> import bayesgmm as bg
    >>> chosen = bg.select(bg.datasets.old_faithful(), range(1, 5), ("tied", "full"), ("bic",), rng=0)
    >>> chosen.best("bic").n_components, chosen.recommend().covariance
    (3, 'EEE')
    """
    of_rows = {"sample_weight": sample_weight, "error_sd": error_sd, "error_covariance": error_covariance}
    parts = parts_of(X)
    table = observations(X, **of_rows, noise=noise) if parts is None else parts
    counts, models = _counts(n_components), _models(covariances, table.n_features)
    if criteria is None:
        criteria = DEFAULT if parts is None else DEFAULT_IN_PARTS
    criteria = _criteria(criteria)
    if n_starts is not None:
        n_starts = positive_integer(n_starts, "n_starts")
    n_folds = min(positive_integer(n_folds, "n_folds", least=2), table.n_observations)
    if n_replicates is not None:
        n_replicates = positive_integer(n_replicates, "n_replicates", least=0)
    if posterior not in ("contenders", "all", None):
        raise InputError(f"posterior must be 'contenders', 'all' or None, not {posterior!r}")
    if posterior is None and any(CRITERIA[name].needs_posterior for name in criteria):
        posterior = "contenders"
    _refuse_weights(sample_weight, posterior, overfitted)
    settings = dict(sampling or {})
    check_sampling(criteria, settings)
    if out is not None and rng is None:
        raise InputError("give rng a seed with out, so that the selection can be taken up again")
    seeds, told = Seeds.of(rng), progress or silent
    directory = None if out is None else Path(out)

    def run_on(table: Observations, origin: Sequence[str] = ()) -> Run:
        grid = Grid(table, tuple(models), tuple(counts), n_starts)
        return Run(grid, criteria, seeds, settings, Checkpoints.of(directory, table, n_starts, *seeds, *origin), told)

    if isinstance(table, Parts):
        refuse_what_is_for_rows(of_rows | {"noise": noise})
        refuse_what_needs_memory(criteria, posterior=posterior, overfitted=overfitted, n_replicates=n_replicates)
        sample = sample_of(
            table, seeds.fits, of_stage(told, "rows looked at"), seed_of_held_out(criteria, seeds), directory
        )
        return select_from_parts(run_on(sample.table, described_parts(table)), table, sample)
    if "held_out" in criteria:
        raise InputError("'held_out' is for tables in parts; of one in memory 'cv' holds out every row in turn")
    if overfitted and table.noise is not None:
        raise InputError("the overfitted mixture has no noise; leave overfitted or noise out")
    run = run_on(table)
    selection = _by_em(run, n_folds if "cv" in criteria else 0)
    selection = _with_replicates(selection, run, _REPLICATES if n_replicates is None else n_replicates)
    if overfitted:
        order = keys_of(selection.ranking("bic"))
        selection = replace(selection, overfitted=overfitted_mixture(run, selection.fits, order))
    if posterior is None:
        return selection
    return with_posteriors(selection, list(selection.fits) if posterior == "all" else contenders(selection), run)


def _by_em(run: Run, n_folds: int) -> Selection:
    """The fits of the grid and the criteria that need no posterior; the held-out density where there are folds."""
    rng, progress = np.random.default_rng(run.seeds.fits), of_stage(run.progress, "EM fits")
    results = fit_grid(run.grid, rng, partial(kept_fit, run.checkpoints), progress)
    fits = {key: result for key, result in results.items() if isinstance(result, EMFit)}
    if not fits:
        raise none_succeeded(results)
    states = {key: fit_state(result) for key, result in results.items()}
    table = em_table(results, states, run.table.n_features)
    densities: dict[str, dict[Key, np.ndarray]] = {}
    if n_folds:
        densities["cv"] = held_out_densities(run, fits, n_folds)
        add_column(table, "cv_log_density", {key: float(v.sum()) for key, v in densities["cv"].items()})
        add_column(table, "cv_log_density_se", {key: se_of_sum(v) for key, v in densities["cv"].items()})
    criteria = tuple(name for name in run.criteria if not CRITERIA[name].needs_posterior)
    return Selection(table=table, criteria=criteria, fits=fits, fit_states=states, densities=densities)


def _with_replicates(selection: Selection, run: Run, n_replicates: int) -> Selection:
    """The selection with how often BIC and ICL choose each fit among replicates of the table."""
    if not n_replicates:
        return selection
    table, replicates = selection.table.copy(), replicated_criteria(run, selection.fits, n_replicates)
    for criterion, values in replicates.items():
        add_column(table, f"{criterion}_frequency", shares_chosen(values, selection.fits))
    return replace(selection, table=table, replicates=replicates)


def _refuse_weights(sample_weight: Any, posterior: str | None, overfitted: bool) -> None:
    """Posteriors are of rows that count once each."""
    if sample_weight is None:
        return
    if overfitted:
        raise InputError("the overfitted mixture does not take account of sample_weight; leave out overfitted")
    if posterior is not None:
        raise InputError("posteriors do not take account of sample_weight; use criteria of EM alone, posterior=None")


def _counts(n_components: int | Iterable[int]) -> list[int]:
    """The numbers of components, increasing."""
    several = (
        n_components if isinstance(n_components, Iterable) and not isinstance(n_components, str) else [n_components]
    )
    counts = sorted({positive_integer(K, "n_components") for K in several})
    if not counts:
        raise InputError("n_components is empty; give a number such as 3, or several such as range(1, 7)")
    return counts


def _models(covariances: Any, n_features: int) -> list[CovarianceModel]:
    """The covariance models, each once: with one feature many are the same."""
    if isinstance(covariances, str) and covariances.lower() == "all":
        covariances = NAMES
    several = [covariances] if isinstance(covariances, (str, CovarianceModel)) else list(covariances)
    if not several:
        raise InputError("covariances is empty; give names such as ('full', 'tied'), or 'all'")
    return list(dict.fromkeys(CovarianceModel.named(name).for_features(n_features) for name in several))


def _criteria(criteria: Any) -> tuple[str, ...]:
    """The names of the criteria, each once."""
    several = [criteria] if isinstance(criteria, str) else list(criteria)
    for name in several:
        if name not in CRITERIA:
            hint = did_you_mean(str(name), CRITERIA)
            raise InputError(f"unknown criterion {name!r}{hint}; use some of {', '.join(CRITERIA)}")
    if not several:
        raise InputError(f"criteria is empty; use some of {', '.join(CRITERIA)}")
    return tuple(dict.fromkeys(several))
