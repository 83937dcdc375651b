"""Whether to trust the draws of a posterior, and which components the data do not support: the facts, as `findings`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.special import chdtri

from bayesgmm.alignment import divergence
from bayesgmm.bayes.findings import Diagnosis, Finding, Symptom
from bayesgmm.bayes.posterior import Posterior, posterior as as_posterior
from bayesgmm.bayes.relabel import blocks_of_rows, relabelling
from bayesgmm.bayes.verdict import Convergence
from bayesgmm.errors import InputError
from bayesgmm.intervals import level
from bayesgmm.mixture import PARAMETERS, GaussianMixture
from bayesgmm.observations import Observations

_APART = 2.0  # chains whose means differ by so many of their own standard deviations sit in different modes
_OFTEN = 0.05  # what happens in fewer of the draws is not worth a sentence
_OVERLAP = 1.0  # nats of symmetric divergence; two unit normals at a distance of one
_PRIOR_SHARE = 0.7  # of the prior's sd: a mean so uncertain was told little by the data
_MAX_DEPTH = 10  # of the samplers' trees
_ENTRIES = 2e7  # responsibilities to look at
_LEAST_R_HAT = 1.01
_LEAST_BFMI = 0.3
_ESS_PER_CHAIN = 100
_FEWEST_DRAWS = 4  # of a chain, below which no diagnostic is defined
_SINGLE = 2.5  # rows: a component that holds fewer is an outlier or two


class MemberCounts(NamedTuple):
    """How many rows the components hold in some of each chain's draws."""

    table: Observations
    draws: GaussianMixture  # (chain, t)
    counts: np.ndarray  # (chain, t, K): sums of responsibilities


class Heights(NamedTuple):
    """How high draws are: the log posterior or the log-likelihood of each, (chain, draw), in nats."""

    name: str
    values: np.ndarray


class Diagnostics(NamedTuple):
    """R-hat, and bulk and tail effective sample sizes, by the parameters' names; without those that are fixed."""

    r_hat: Mapping[str, float]
    bulk: Mapping[str, float]
    tail: Mapping[str, float]


def diagnose(posterior: Any) -> Diagnosis:
    """Check a posterior: whether the chains converged, and which components the data do not support.

    Parameters
    ----------
    posterior : DataTree or Posterior
        From `sample_posterior`.

    Returns
    -------
    Diagnosis

    Raises
    ------
    InputError
        If there are no draws of a mixture.

    Notes
    -----
    Draws have converged if R-hat is below 1.01, bulk and tail effective sample sizes are above 100 per chain, no
    transition diverged and E-BFMI is above 0.3. An R-hat above 1.01 counts only if chance alone would hardly produce it
    (less often than once in 10 000 times) at the effective sample sizes of the single chains.

    Where the chains disagree, they are grouped into modes: chains are joined if their means of every parameter, and of
    the log posterior, are less than two standard deviations apart. Findings about components are then about the highest
    mode. Differences in log posterior are between averages, in nats, in the sampler's coordinates. The number of rows
    that a component holds is the sum of its responsibilities, in up to a hundred draws of each chain.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), Bayesian Analysis 16, 667-718. doi:10.1214/20-BA1221

    Betancourt (2016), Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo. arXiv:1604.00695

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> diagnosis = bg.diagnose(bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), rng=0))
    >>> diagnosis.good, diagnosis.findings
    (True, ())
    """
    drawn = as_posterior(posterior)
    if len(drawn.draws.batch_shape) != 2:
        raise InputError("diagnose needs draws by chain: a posterior, or a batch of mixtures with the axes chain, draw")
    K = drawn.n_components
    approximation = drawn.verdict if drawn.sampling.approximate else None
    if approximation is not None and drawn.sampling.independent:
        members = _member_counts(drawn)
        components = () if members is None else tuple(_components(drawn, members))
        return Diagnosis(
            approximation.convergence,
            components,
            r_hat=None,
            ess=float(drawn.n_draws),
            n_components=K,
            of_approximation=approximation.text,
        )
    if drawn.draws.batch_shape[1] < _FEWEST_DRAWS:
        return Diagnosis(Convergence.UNCHECKED, (), None, 0.0, K)
    diagnostics = _diagnostics(drawn)
    findings = tuple(_findings(drawn, diagnostics))
    fault = any(finding.symptom.fault for finding in findings)
    sound = Convergence.CONVERGED if approximation is None else approximation.convergence
    return Diagnosis(
        convergence=Convergence.NOT_CONVERGED if fault else sound,
        findings=findings,
        r_hat=max(diagnostics.r_hat.values()) if diagnostics.r_hat else None,
        ess=min([*diagnostics.bulk.values(), *diagnostics.tail.values()]),
        n_components=K,
        of_transitions="energy" in drawn.statistics,
        of_approximation="" if approximation is None else approximation.text,
    )


def mixed(drawn: Posterior) -> bool:
    """Whether R-hats are below 1.01 and effective sample sizes above 100 per chain.

    Or, where so few draws are asked for that they cannot be, whether chains agree but for chance and draws are nearly
    independent.
    """
    diagnostics, (chains, draws) = _diagnostics(drawn), drawn.draws.batch_shape
    if draws < _FEWEST_DRAWS:
        return True
    ess = min([*diagnostics.bulk.values(), *diagnostics.tail.values()])
    if ess >= _ESS_PER_CHAIN * chains:
        return all(value < _LEAST_R_HAT for value in diagnostics.r_hat.values())
    return ess > chains * draws / 2 and not _suspicious(drawn.draws, diagnostics.r_hat, drawn.features)


def separate_modes(draws: GaussianMixture, log_posterior: np.ndarray) -> list[np.ndarray]:
    """Positions of the chains in each mode that chains do not move between, the highest first."""
    return _modes(draws, Heights("log posterior", log_posterior))


def _findings(drawn: Posterior, diagnostics: Diagnostics) -> Iterator[Finding]:
    """All that is to be said, the faults of the sampling first."""
    draws, chains = drawn.draws, np.arange(drawn.draws.batch_shape[0])
    modes = [chains]
    if switch := _switching(drawn):
        yield switch
    members = _member_counts(drawn)
    if not switch and (suspicious := _suspicious(draws, diagnostics.r_hat, drawn.features)):
        heights = _heights(drawn)
        modes = _modes(draws, heights)
        yield from _disagreement(drawn, members, suspicious, modes, heights)
    yield from _sampling(drawn.statistics, diagnostics, len(chains), separate=len(modes) > 1)
    if not switch and members is not None:
        highest = MemberCounts(members.table, members.draws[modes[0]], members.counts[modes[0]])
        yield from _components(drawn, highest)


# The sampling.


def _diagnostics(drawn: Posterior) -> Diagnostics:
    from arviz_stats.base import array_stats  # type: ignore[attr-defined]

    def each(diagnostic: Any, **settings: Any) -> dict[str, float]:
        return _by_name(drawn.draws, drawn.features, diagnostic, **settings)

    with np.errstate(invalid="ignore"):  # a constant, as the weight of a single component, has no R-hat
        return Diagnostics(
            r_hat=each(array_stats.rhat) if drawn.draws.batch_shape[0] > 1 else {},
            bulk=each(array_stats.ess),
            tail=each(array_stats.ess, method="tail", prob=level(None)),
        )


def _by_name(draws: GaussianMixture, features: tuple[str, ...], diagnostic: Any, **settings: Any) -> dict[str, float]:
    """A diagnostic of each parameter by its name, such as "means[1, waiting]", without those that are fixed."""
    values = {}
    for name in draws.parameters:
        array = np.asarray(diagnostic(getattr(draws, name), chain_axis=0, draw_axis=1, **settings))
        for index in np.ndindex(array.shape):
            if np.isfinite(array[index]):
                names = [str(index[0]), *(features[j] for j in index[1:])] if index else []
                values[f"{name}[{', '.join(names)}]" if index else name] = float(array[index])
    return values


def _switching(drawn: Posterior) -> Finding | None:
    """Whether the components of draws that nobody relabelled change their labels."""
    if drawn.labels is not None:
        return None
    order = relabelling(drawn.draws, drawn.draws[0, 0]).order
    share = float((order != np.arange(drawn.n_components)).any(axis=-1).mean())
    return Finding(Symptom.LABELS_SWITCH, {"share": share}) if share > _OFTEN else None


def _suspicious(draws: GaussianMixture, r_hat: Mapping[str, float], features: tuple[str, ...]) -> dict[str, float]:
    """The R-hats that are too large, and larger than chance makes them.

    Chance is judged by the chains' own effective sizes: that of all together is small wherever chains sit apart.
    """
    from arviz_stats.base import array_stats  # type: ignore[attr-defined]

    large = {name: value for name, value in r_hat.items() if value > _LEAST_R_HAT}
    if not large:
        return {}
    chains = [draws[c : c + 1] for c in range(draws.batch_shape[0])]
    kinds: tuple[dict[str, Any], ...] = {"method": "bulk"}, {"method": "tail", "prob": level(None)}
    sizes = [[_by_name(chain, features, array_stats.ess, **kind) for chain in chains] for kind in kinds]
    halves = 2 * len(chains)
    chance = chdtri(halves - 1, 1e-4) / (halves - 1)
    ess = {name: min(sum(chain.get(name, 1.0) for chain in kind) for kind in sizes) for name in large}
    return {name: value for name, value in large.items() if value > 1 + 0.5 * chance * halves / ess[name]}


def _heights(drawn: Posterior) -> Heights | None:
    """How high the draws are, or None where the posterior does not say."""
    if "lp" in drawn.statistics:
        return Heights("log posterior", drawn.statistics["lp"])
    if drawn.log_likelihood is not None:
        return Heights("log-likelihood", np.asarray(drawn.log_likelihood).sum(axis=-1))
    return None


def _modes(draws: GaussianMixture, heights: Heights | None) -> list[np.ndarray]:
    """Positions of the chains in each mode that chains do not move between, the highest first."""
    chains = draws.batch_shape[0]
    parts = [draws.weights, draws.means, np.log(np.einsum("...kii->...ki", draws.covariances))]
    parts += [] if draws.noise_weight is None else [draws.noise_weight]
    if heights is not None and heights.name == "log posterior":
        parts.append(heights.values)
    values = np.concatenate([part.reshape(*draws.batch_shape, -1) for part in parts], axis=2)
    mean, variance = values.mean(axis=1), values.var(axis=1) + 1e-300
    gap = np.abs(mean[:, None] - mean) / np.sqrt((variance[:, None] + variance) / 2)
    n, mode = connected_components(gap.max(axis=2) < _APART, directed=False)
    depth = np.zeros(chains) if heights is None else -heights.values.mean(axis=1)
    groups = [np.flatnonzero(mode == m) for m in range(n)]
    return sorted(groups, key=lambda group: (depth[group].mean(), -len(group)))


def _disagreement(
    drawn: Posterior,
    members: MemberCounts | None,
    suspicious: dict[str, float],
    modes: list[np.ndarray],
    heights: Heights | None,
) -> Iterator[Finding]:
    """In what the chains differ."""
    parameter = max(suspicious, key=lambda name: suspicious[name])
    worst = {"parameter": parameter, "r_hat": suspicious[parameter]}
    if len(modes) == 1:
        yield Finding(Symptom.CHAINS_DISAGREE, worst)
    names, highest = drawn.chain_labels, modes[0]
    for mode in modes[1:]:
        facts: dict[str, Any] = {
            "chains": [names[c] for c in mode],
            "others": [names[c] for c in highest],
            "height": "",
            "lower": None,
            "rows": [],
        }
        if heights is not None:
            average = heights.values.mean(axis=1)
            facts |= {"height": heights.name, "lower": float(average[highest].mean() - average[mode].mean())}
        if members is not None:
            facts["rows"] = list(_changed_counts(*(members.counts[m].mean(axis=(0, 1)) for m in (mode, highest))))
        yield Finding(Symptom.SEPARATE_MODE, facts | worst)


def _changed_counts(counts: np.ndarray, reference: np.ndarray) -> Iterator[tuple[int, float, float]]:
    """The two components whose numbers of rows differ most, if they do: which, the rows here, and there."""
    change = np.abs(counts - reference)
    for k in np.argsort(-change, kind="stable")[:2].tolist():
        if change[k] > max(1.0, 0.1 * reference[k]):
            yield k, float(counts[k]), float(reference[k])


def _sampling(
    statistics: Mapping[str, np.ndarray], diagnostics: Diagnostics, chains: int, separate: bool
) -> Iterator[Finding]:
    """Faults of the sampler's way through the posterior; that few draws are effective follows from separate modes."""
    from arviz_stats.base import array_stats  # type: ignore[attr-defined]

    if count := int(statistics["diverging"].sum()) if "diverging" in statistics else 0:
        yield Finding(Symptom.DIVERGENCES, {"count": count})
    if "energy" in statistics:
        bfmi = float(np.min(array_stats.bfmi(statistics["energy"], chain_axis=0, draw_axis=1)))
        if bfmi < _LEAST_BFMI:
            yield Finding(Symptom.LOW_ENERGY, {"bfmi": bfmi})
    sizes = {"bulk": diagnostics.bulk, "tail": diagnostics.tail}
    kind = min(sizes, key=lambda name: min(sizes[name].values()))
    parameter = min(sizes[kind], key=lambda name: sizes[kind][name])
    ess, least = sizes[kind][parameter], _ESS_PER_CHAIN * chains
    if ess < least and not separate:
        facts = {"parameter": parameter, "kind": kind, "ess": ess, "least": least}
        yield Finding(Symptom.FEW_EFFECTIVE_DRAWS, facts)
    if "tree_depth" in statistics:
        share = float((statistics["tree_depth"] >= _MAX_DEPTH).mean())
        if share > _OFTEN:
            yield Finding(Symptom.LONG_PATHS, {"share": share, "depth": _MAX_DEPTH})


# The components.


def _member_counts(drawn: Posterior) -> MemberCounts | None:
    """The rows held in up to a hundred draws of each chain, as many as a sample stands for; None without rows."""
    draws, table = drawn.draws, drawn.table_or_sample
    if table is None:
        return None
    chains, T = draws.batch_shape
    stands_for = 1.0 if drawn.source is None else drawn.source.n_observations / table.n_observations
    t = int(np.clip(_ENTRIES / (chains * table.n_observations * draws.n_components), 4, min(100, T)))
    thinned = draws[:, np.linspace(0, T - 1, t).astype(int)]
    counts = sum(R.sum(axis=1) for _, R in blocks_of_rows(thinned, table))
    return MemberCounts(table, thinned, stands_for * np.reshape(counts, thinned.weights.shape))


def _components(drawn: Posterior, members: MemberCounts) -> Iterator[Finding]:
    """Components that hold next to nothing, are alike, or are known from the prior."""
    model, K = drawn.covariance_model, drawn.n_components
    needed = 0 if model.volume == "E" else 2 if model.diagonal else drawn.n_features + 1
    usual = np.median(members.counts, axis=(0, 1))
    often = (members.counts < 1).mean(axis=(0, 1))
    empty = [k for k in np.argsort(-often, kind="stable").tolist() if often[k] > _OFTEN]
    if empty:
        shares = [float(often[k]) for k in empty]
        yield Finding(Symptom.EMPTY_COMPONENTS, {"components": empty, "shares": shares, "n_components": K})
    small = [k for k in np.argsort(usual, kind="stable").tolist() if k not in empty and usual[k] < max(needed, _SINGLE)]
    for k in small:
        facts = {"component": k, "n_rows": float(usual[k])}
        if usual[k] < _SINGLE:
            yield Finding(Symptom.SINGLE_ROWS, facts | {"rows": _members(members, k).tolist()})
        else:
            yield Finding(Symptom.COVARIANCE_FROM_PRIOR, facts | {"needed": needed})
    sound = np.setdiff1d(np.arange(K), [*empty, *small])
    yield from _pairs(members.draws, sound)
    yield from _from_prior(drawn, members.draws, sound)


def _members(members: MemberCounts, k: int) -> np.ndarray:
    """Rows that are of component k more likely than not."""
    blocks = blocks_of_rows(members.draws, members.table)
    return np.concatenate([rows[R[..., k].mean(axis=0) > 0.5] for rows, R in blocks])


def _pairs(draws: GaussianMixture, components: np.ndarray) -> Iterator[Finding]:
    """Pairs of components that overlap wholly, or of which a draw has only one."""
    middle = GaussianMixture(*(getattr(draws.clusters, name).mean(axis=(0, 1)) for name in PARAMETERS))
    nearest = divergence(draws, middle).argmin(axis=-2)
    between = np.median(divergence(draws, draws), axis=(0, 1))
    for j in components.tolist():
        for k in components[components > j].tolist():
            share = float((nearest[..., j] == nearest[..., k]).mean())
            if share > _OFTEN:
                yield Finding(Symptom.SHARED_NEAREST, {"pair": (j, k), "share": share})
            elif between[j, k] < _OVERLAP:
                yield Finding(Symptom.OVERLAP, {"pair": (j, k), "divergence": float(between[j, k])})


def _from_prior(drawn: Posterior, draws: GaussianMixture, components: np.ndarray) -> Iterator[Finding]:
    """Components whose means are about as uncertain as their prior."""
    if drawn.priors is None:
        return
    sd, prior_sd = draws.means.std(axis=(0, 1)), drawn.priors.means.scale
    share = sd / prior_sd
    for k in components[share[components].max(axis=1) > _PRIOR_SHARE].tolist():
        j = int(share[k].argmax())
        facts = {"component": k, "feature": drawn.features[j], "sd": float(sd[k, j]), "prior_sd": float(prior_sd[j])}
        yield Finding(Symptom.MEAN_FROM_PRIOR, facts)
