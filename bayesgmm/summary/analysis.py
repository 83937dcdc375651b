"""What follows from a posterior, as an `Analysis`: rows assigned, clusters in place of ambiguous components, and more.

These are facts; `words` has the sentences made from them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bayesgmm.bayes.loo import LOO, has_loo, loo
from bayesgmm.bayes.parameters import describe, parameter_table
from bayesgmm.bayes.posterior import Posterior
from bayesgmm.clusters.assignment import Assignments, assign
from bayesgmm.clusters.modes import Modes, number_of_modes
from bayesgmm.clusters.partition import CredibleBall, Partition, credible_ball, partition
from bayesgmm.clusters.shares import cluster_mixture, partition_from_some, stray_rate
from bayesgmm.em.result import EMFit
from bayesgmm.intervals import level
from bayesgmm.mixture import GaussianMixture
from bayesgmm.progress import Progress

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

PARTITION_ROWS = 2000  # beyond which finding the partition would take longer than all else
_STEPS = 4  # of the summaries


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """A table, its posterior and what follows from them.

    Where the draws do not keep the components apart, clusters take their place: rows are assigned to the clusters of
    the partition, and ``draws`` and ``clusters`` describe these.

    Attributes
    ----------
    table : DataFrame
    tree : DataTree
        The posterior as `sample_posterior` returned it.
    posterior : Posterior
        The same as one value.
    loo : LOO or None
        None where it cannot be had, or takes too long for a summary.
    ci_prob : float
        Probability of every interval.
    stray_rate : float
        Share of the draws in which some component does not hold most of its rows.
    assignments : Assignments
        Of the rows to components, or to clusters.
    draws : GaussianMixture
        With batch shape (chain, draw): of the components, or of the clusters.
    parameters : DataFrame
        The components: EM beside the posterior.
    clusters : DataFrame or None
        Posterior of the clusters, where they take the components' place.
    partition : Partition or None
        None of a single component, and where there are too many rows and no need of clusters.
    partition_rows : int
        The most rows that a partition is found from.
    ball : CredibleBall or None
        None also where the partition was found from some of the rows.
    modes : Modes
    seconds : dict
        By stage.
    draws_file : Path or None
        Where all draws are written already.
    """

    table: pd.DataFrame
    tree: xr.DataTree
    posterior: Posterior
    loo: LOO | None
    ci_prob: float
    stray_rate: float
    assignments: Assignments
    draws: GaussianMixture
    parameters: pd.DataFrame
    clusters: pd.DataFrame | None
    partition: Partition | None
    partition_rows: int
    ball: CredibleBall | None
    modes: Modes
    seconds: dict[str, float]
    draws_file: Path | None = None

    @property
    def fit(self) -> EMFit:
        """The EM fit that the posterior started from."""
        assert self.posterior.fit is not None
        return self.posterior.fit

    @property
    def ambiguous(self) -> bool:
        """Whether the draws do not keep the components apart, so that clusters take their place."""
        return self.clusters is not None


class _Groups(NamedTuple):
    """What the rows belong to, components or clusters, and the partition if there is one."""

    assignments: Assignments
    draws: GaussianMixture
    clusters: pd.DataFrame | None
    partition: Partition | None
    ball: CredibleBall | None


def left_out(drawn: Posterior, rng: Any, progress: Progress | None = None) -> LOO | None:
    """Leave-one-out as far as a summary has time for it.

    None where it cannot be had (`has_loo`), or where draws of an approximation took far less time than it would: where
    the rows' log densities are too many to be stored.
    """
    quick = drawn.log_likelihood is not None or not drawn.sampling.approximate
    return loo(drawn, rng=rng, progress=progress) if quick and has_loo(drawn) else None


def summarise(
    table: pd.DataFrame,
    tree: xr.DataTree,
    drawn: Posterior,
    loo_result: LOO | None,
    seed: int,
    seconds: Mapping[str, float] | None = None,
    *,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Analysis:
    """What follows from a posterior.

    Parameters
    ----------
    table : DataFrame
    tree, drawn : DataTree, Posterior
        The posterior, twice.
    loo_result : LOO or None
    seed : int
    seconds : mapping, optional
        What the stages before took.
    tell : callable, optional
        Called with the number of steps that are done, and their total.
    """
    started, ci_prob = time.perf_counter(), level(None)
    tell(0, _STEPS)
    assignments = assign(drawn, ci_prob=ci_prob, rng=seed)
    strays = stray_rate(drawn, assignments.labels)
    tell(1, _STEPS)
    parameters = parameter_table(drawn, ci_prob=ci_prob)
    tell(2, _STEPS)
    # An interval leaves out so many draws: as many may have components elsewhere. Beyond, clusters take their place.
    groups = _groups(drawn, assignments, ambiguous=strays > 1 - ci_prob, seed=seed)
    tell(3, _STEPS)
    modes = number_of_modes(drawn)
    tell(_STEPS, _STEPS)
    return Analysis(
        table=table,
        tree=tree,
        posterior=drawn,
        loo=loo_result,
        ci_prob=ci_prob,
        stray_rate=strays,
        **groups._asdict(),
        partition_rows=PARTITION_ROWS,
        parameters=parameters,
        modes=modes,
        seconds={"summaries": time.perf_counter() - started} | dict(seconds or {}),
    )


def _groups(drawn: Posterior, assignments: Assignments, *, ambiguous: bool, seed: int) -> _Groups:
    """The partition, where it does not take long or is needed; and its clusters, where components are ambiguous."""
    best = ball = None
    if drawn.n_components > 1 and len(assignments.labels) <= PARTITION_ROWS:
        best = partition(drawn, rng=seed)
        ball = credible_ball(drawn, best, rng=seed)
    elif ambiguous:
        best = partition_from_some(drawn, PARTITION_ROWS, rng=seed)
    if best is None or not ambiguous:
        return _Groups(assignments, drawn.draws, None, best, ball)
    assignments = assign(drawn, ci_prob=assignments.ci_prob, partition=best, rng=seed)
    draws = cluster_mixture(drawn, best)
    clusters = describe(draws, drawn.features, assignments.ci_prob).rename(columns={"component": "cluster"})
    return _Groups(assignments, draws, clusters, best, ball)
