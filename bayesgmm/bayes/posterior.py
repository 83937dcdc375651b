"""`Posterior`: the draws of a mixture's posterior, the table that was fitted, and everything else known, as one value.

`posterior` makes it from a `DataTree`, however its draws are laid out, as `observations` makes rows from any table. The
draws are checked and factored there, once; every function that takes a posterior takes either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from bayesgmm.bayes.density import Density
from bayesgmm.bayes.priors import Priors
from bayesgmm.bayes.verdict import Convergence, Verdict
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.initialize import mean_and_covariance
from bayesgmm.em.record import fit_from_arrays
from bayesgmm.em.result import EMFit
from bayesgmm.errors import InputError
from bayesgmm.mixture import PARAMETERS, GaussianMixture
from bayesgmm.noise import Noise
from bayesgmm.observations import Observations, any_rows, observations
from bayesgmm.parts import Parts
from bayesgmm.tables import made_up_names

ERRORS = ("error_sd", "error_covariance")  # of which a tree has one beside its table, if there are errors
NOISE = "noise_log_density"  # which a tree has beside its table, if it was given so
_LAYOUT = ("chain", "draw", ..., "component", "feature", "feature_bis")


@dataclass(frozen=True, slots=True)
class Labels:
    """How the draws were relabelled, and how stable their labels were before.

    Attributes
    ----------
    method : {"hungarian", "ecr", "stephens", "none"}
        "none" where the prior tells the components apart, so that nothing is relabelled.
    switch_rate : float
        Share of the draws whose components had other labels than in the chain's first draw.
    ambiguous_rate : float
        Share of the draws in which one component is the nearest to two of the target's components.
    margin_mean, margin_min : float
        By how much the second-best labelling of a draw is worse than the best, in the method's unit.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), method="laplace", rng=0)
    >>> labels = bg.posterior(tree).labels
    >>> labels.method, labels.switch_rate
    ('hungarian', 0.0)
    """

    method: str
    switch_rate: float
    ambiguous_rate: float
    margin_mean: float
    margin_min: float

    @property
    def attributes(self) -> dict[str, str | float]:
        """The same values as attributes of a posterior's tree."""
        return {"relabelling": self.method, **{name: getattr(self, name) for name in self.__slots__[1:]}}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the draws were made.

    Attributes
    ----------
    method : {"nuts", "gibbs", "subset", "laplace", "variational"}
    sampler : {"nutpie", "pymc", "gibbs"}
    seed, tune : int
    seconds : float
        Time from the fit to the finished draws.
    complete : bool
        Whether sampling ran to its end; False if it was interrupted.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), method="laplace", rng=0)
    >>> sampling = bg.posterior(tree).sampling
    >>> sampling.method, sampling.approximate, sampling.complete
    ('laplace', True, True)
    """

    method: str = "nuts"
    sampler: str = "nutpie"
    seed: int = 0
    tune: int = 500
    seconds: float = 0.0
    complete: bool = True

    @property
    def approximate(self) -> bool:
        """Whether the draws are of an approximation, not of the posterior itself."""
        return self.method not in ("nuts", "gibbs")

    @property
    def independent(self) -> bool:
        """Whether each draw is independent of the others, so that chains tell nothing."""
        return self.method in ("laplace", "variational")


@dataclass(frozen=True, slots=True)
class TableSource:
    """The table in parts that a posterior is of, as it was when its rows were read.

    Attributes
    ----------
    n_observations : int
        Number of all rows N.
    names : tuple of str
        What its parts are called, such as files' names.
    n_rows : tuple of int
        Rows of each part.
    marks : tuple of str
        What tells whether a part is the same as before: a file's path, size and time of change; empty where nothing
        does.
    mean : tuple of D float
        Of all rows.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful().to_numpy()
    >>> source = lambda: iter([X[:100], X[100:]])
    >>> tree = bg.sample_posterior(source, bg.fit_em(source, 2, rng=0), rng=0)
    >>> bg.posterior(tree).source.n_observations
    272
    """

    n_observations: int
    names: tuple[str, ...]
    n_rows: tuple[int, ...]
    marks: tuple[str, ...]
    mean: tuple[float, ...]

    @classmethod
    def of(cls, parts: Parts, mean: np.ndarray) -> TableSource:
        """The source of a table in parts whose rows have this mean (D,)."""
        names, n_rows, marks = zip(*((part.name, part.n_rows, part.mark) for part in parts.parts), strict=True)
        return cls(parts.n_observations, names, n_rows, marks, tuple(mean.tolist()))

    @classmethod
    def from_json(cls, text: str) -> TableSource:
        """The source that `to_json` has written."""
        n_observations, *others = (json.loads(text)[name] for name in cls.__slots__)
        return cls(n_observations, *map(tuple, others))

    def to_json(self) -> str:
        """As a text, for a file."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws of the posterior of a Gaussian mixture and everything known about them; frozen.

    Attributes
    ----------
    draws : GaussianMixture
        With batch shape (chain, draw).
    table : Observations or None
        The table that the posterior is of, with its errors of measurement. None of a table in parts.
    features : tuple of str
        Names of the columns.
    em : GaussianMixture or None
        EM's estimate; the components of the draws carry its labels.
    fit : EMFit or None
        The whole EM fit, where the posterior was drawn by `sample_posterior`.
    covariance_model : CovarianceModel
    priors : Priors or None
    verdict : Verdict or None
        Whether to trust the draws.
    labels : Labels or None
        How the components were relabelled.
    sampling : Sampling
    statistics : mapping from str to (chain, draw)
        The sampler's statistics of each draw; "lp" is the log posterior density in its coordinates, in nats.
    log_likelihood : array-like (chain, draw, N) or None
        Log density of each row under each draw, in nats, where it is stored.
    chain_labels : tuple
        The labels of the chains: 0, 1, ..., or some of these if only some chains were selected.
    sample : Observations or None
        Of a table in parts some rows, drawn at random: what is asked about rows, and not given any, is of these.
    source : TableSource or None
        The table in parts that the posterior is of.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> posterior = bg.posterior(bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), rng=0))
    >>> posterior
    Posterior(VVV, K=2, nuts, chains=4, draws=1000, the chains converged)
    >>> posterior.draws.batch_shape, posterior.verdict.good, posterior.covariance_model.name
    ((4, 1000), True, 'VVV')
    """

    draws: GaussianMixture
    table: Observations | None = None
    features: tuple[str, ...] = ()
    em: GaussianMixture | None = None
    fit: EMFit | None = None
    covariance_model: CovarianceModel = field(default_factory=lambda: CovarianceModel.named("VVV"))
    priors: Priors | None = None
    verdict: Verdict | None = None
    labels: Labels | None = None
    sampling: Sampling = field(default_factory=Sampling)
    statistics: Mapping[str, np.ndarray] = field(default_factory=dict)
    log_likelihood: Any = None
    chain_labels: tuple[Any, ...] = ()
    sample: Observations | None = None
    source: TableSource | None = None

    def __post_init__(self) -> None:
        if not self.features:
            object.__setattr__(self, "features", self.draws.features or made_up_names(self.draws.n_features))
        if not self.chain_labels:
            object.__setattr__(self, "chain_labels", tuple(range(self.draws.batch_shape[0])))

    def __repr__(self) -> str:
        chains, draws = self.draws.batch_shape
        verdict = "" if self.verdict is None else f", {self.verdict.convergence.value}"
        return (
            f"Posterior({self.covariance_model.name}, K={self.n_components}, {self.sampling.method}, "
            f"chains={chains}, draws={draws}{verdict})"
        )

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return self.draws.n_components

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return self.draws.n_features

    @property
    def n_draws(self) -> int:
        """Number of draws of all chains together."""
        return int(np.prod(self.draws.batch_shape))

    @property
    def table_or_sample(self) -> Observations | None:
        """The table, or the sample of a table in parts."""
        return self.sample if self.table is None else self.table

    @property
    def rows(self) -> np.ndarray | None:
        """Values (N, D) of the table, NaN where one is missing, or of the sample of a table in parts."""
        table = self.table_or_sample
        return None if table is None else table.values

    @cached_property
    def density(self) -> Density:
        """The log posterior density that the draws are of.

        Raises
        ------
        InputError
            Where the table or the priors are not known.
        """
        self.need_table("the log posterior density")
        if self.table is None or self.priors is None:
            raise InputError("this needs a posterior with its table and priors, as sample_posterior returns it")
        table = observations(self.table)
        return Density(table, mean_and_covariance(table)[0], self.priors, self.covariance_model)

    def need_table(self, user: str) -> None:
        """Refuse a posterior of a table in parts for what needs every row.

        Raises
        ------
        InputError
        """
        if self.table is None and self.source is not None:
            raise InputError(
                f"{user} needs every row in memory, and this posterior is of a table in parts "
                f"({self.source.n_observations} rows); for a random sample of them use fit_em and sample_posterior, "
                "which give a posterior with its table"
            )

    def with_draws(self, draws: GaussianMixture, labels: Labels) -> Posterior:
        """The same posterior with its components relabelled."""
        return replace(self, draws=draws, labels=labels)


def posterior(source: Any) -> Posterior:
    """The posterior that a `DataTree` holds, as one value that every other function accepts.

    Parameters
    ----------
    source : DataTree, Posterior or GaussianMixture
        A tree from `sample_posterior`, which may be cut to some of its chains and draws, have its dimensions stacked or
        in another order, or lack some of its groups; a `Posterior`, which is returned unchanged; or a mixture whose
        batch axes are the draws.

    Returns
    -------
    Posterior

    Raises
    ------
    InputError
        If it is none of these, or its draws are not those of a mixture.

    Notes
    -----
    Making a `Posterior` checks and factors every drawn covariance. Where several functions are to be called on the
    same draws, make it once and pass it on.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> posterior = bg.posterior(tree)
    >>> bg.assign(posterior).labels[:4], posterior.draws.means.shape
    (array([1, 0, 1, 0]), (2, 500, 2, 2))
    """
    if isinstance(source, Posterior):
        return source
    if isinstance(source, GaussianMixture):
        if not source.batch_shape or 0 in source.batch_shape:
            raise InputError("a posterior needs a batch of mixtures, one for each draw; this one has no batch axis")
        return Posterior(source)
    if isinstance(source, EMFit):
        raise InputError(
            "this needs a posterior, not an EM fit; draw one with sample_posterior(X, fit), or use "
            "fit.mixture.responsibilities(X)"
        )
    if not hasattr(source, "children") or "posterior" not in source.children:
        raise InputError(
            "this needs a posterior: the DataTree that sample_posterior returned, or a GaussianMixture whose batch "
            f"axes are the draws, not {type(source).__name__}"
        )
    group = _laid_out(source["posterior"].to_dataset())
    attributes = source.attrs
    em, fit, model = _em(source)
    statistics = _of_draws(source, "sample_stats", group)
    log_likelihood = _of_draws(source, "log_likelihood", group).get("observations")
    noise = Noise(**json.loads(attributes["noise"])) if "noise" in attributes else None
    names = _names(group, "feature")
    table = _table(source["observed_data"], names, noise) if "observed_data" in source.children else None
    sample = _table(source["sample"], names, noise) if "sample" in source.children else None
    return Posterior(
        draws=_mixture(group, noise),
        table=table,
        features=names,
        em=em,
        fit=fit,
        covariance_model=model.for_features(group.sizes["feature"]),
        priors=Priors.from_json(attributes["prior_values"]) if "prior_values" in attributes else None,
        verdict=_verdict(attributes),
        labels=_labels(attributes),
        sampling=_sampling(attributes),
        statistics={str(name): array.values for name, array in statistics.items()},
        log_likelihood=None if log_likelihood is None else log_likelihood.variable,
        chain_labels=tuple(group["chain"].values.tolist()) if "chain" in group.coords else (),
        sample=sample,
        source=TableSource.from_json(attributes["source"]) if "source" in attributes else None,
    )


def as_mixture(source: Any) -> GaussianMixture:
    """The draws of a posterior as one `GaussianMixture` with batch shape (chain, draw).

    Parameters
    ----------
    source : DataTree, Posterior or GaussianMixture
        As in `posterior`.

    Returns
    -------
    GaussianMixture

    Raises
    ------
    InputError
        If it is none of these, or its draws are not those of a mixture.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> bg.as_mixture(tree).batch_shape
    (2, 500)
    """
    return posterior(source).draws


def _laid_out(group: Any) -> Any:
    """The parameters' draws with the dimensions (chain, draw, ..., component, feature, feature_bis)."""
    if missing := [name for name in PARAMETERS if name not in group]:
        raise InputError(f"the posterior has no {' and no '.join(missing)}: it is not one of a mixture")
    group = group[[*PARAMETERS, *({"noise_weight"} & set(group))]]
    indexes = {name: index for name, index in group.indexes.items() if name in group.dims}
    group = group.unstack([name for name, index in indexes.items() if set(index.names) == {"chain", "draw"}])
    if "draw" not in group.dims:
        raise InputError(
            f"the draws have the dimensions {', '.join(map(str, group.dims))}; a posterior has chain and draw"
        )
    if "chain" not in group.dims:
        group = group.expand_dims("chain")
    return group.transpose(*_LAYOUT, missing_dims="ignore")


def _of_draws(tree: Any, name: str, group: Any) -> Any:
    """A group of a tree for the posterior's draws, which may be some of the tree's; empty where it is not of all."""
    if name not in tree.children:
        return {}
    other = tree[name].to_dataset()
    if "chain" not in other.dims and "draw" in other.dims:
        other = other.expand_dims("chain")
    for dim in ("chain", "draw"):
        if dim in group.coords and dim in other.coords and dim in other.dims:
            if not np.isin(group[dim], other[dim]).all():
                return {}
            if not np.array_equal(group[dim], other[dim]):  # or all of it would be copied, to no end
                other = other.sel({dim: group[dim].values})
        if other.sizes.get(dim) != group.sizes[dim]:
            return {}
    return other.transpose("chain", "draw", ...)


def _names(group: Any, dim: str) -> tuple[str, ...]:
    """The names along a dimension, made up where it has none."""
    return tuple(map(str, group[dim].values)) if dim in group.coords else made_up_names(group.sizes[dim])


def _mixture(group: Any, noise: Noise | None) -> GaussianMixture:
    """The mixture, or batch of them, whose parameters a group holds."""
    names = _names(group, "feature")
    ordered = {name: group[name].transpose(*_LAYOUT, missing_dims="ignore").values for name in PARAMETERS}
    if "noise_weight" in group:
        ordered |= {"noise_weight": group["noise_weight"].values, "noise": noise}
    return GaussianMixture(**ordered, features=None if names == made_up_names(len(names)) else names)


def _table(group: Any, names: tuple[str, ...], noise: Noise | None) -> Observations:
    """The table of a posterior, with the errors that its values were measured with, and the noise."""
    in_order = group.to_dataset().transpose("observation", ..., "feature", "feature_bis", missing_dims="ignore")
    table = any_rows(in_order["observations"].values, **{e: in_order[e].values for e in ERRORS if e in in_order})
    of_rows = in_order[NOISE].values if NOISE in in_order else noise
    return replace(table, features=names, named=names != made_up_names(len(names)), noise=of_rows)


def _em(tree: Any) -> tuple[GaussianMixture | None, EMFit | None, CovarianceModel]:
    """EM's estimate, the whole fit, and its covariance model, as far as the tree has them."""
    if "em" not in tree.children:
        return None, None, CovarianceModel.named("VVV")
    group = tree["em"].to_dataset()
    model = CovarianceModel.named(group.attrs.get("covariance_model", "VVV"))
    mixture = _mixture(group, None)
    if "record" not in group.attrs:
        return mixture, None, model
    arrays = {
        str(name): array.transpose("maximum", *_LAYOUT, missing_dims="ignore").values for name, array in group.items()
    }
    fit = fit_from_arrays(arrays | {"record": np.array(group.attrs["record"])})
    return fit.mixture, fit, model


def _verdict(attributes: Mapping[str, Any]) -> Verdict | None:
    if "verdict" not in attributes:
        return None
    return Verdict(Convergence[attributes["verdict"]], str(attributes.get("convergence", "")))


def _labels(attributes: Mapping[str, Any]) -> Labels | None:
    if "relabelling" not in attributes:
        return None
    rates = (float(attributes.get(name, np.nan)) for name in Labels.__slots__[1:])
    return Labels(str(attributes["relabelling"]), *rates)


def _sampling(attributes: Mapping[str, Any]) -> Sampling:
    names = {"method": "method", "sampler": "sampler", "seed": "seed", "tune": "tune", "seconds": "sampling_seconds"}
    values = {name: attributes[key] for name, key in names.items() if key in attributes}
    return Sampling(**values, complete="partial" not in attributes)
