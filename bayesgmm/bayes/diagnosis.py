"""Whether to trust the draws, and which components the data do not support, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.sparse.csgraph import connected_components
from scipy.special import chdtri

from bayesgmm.alignment import divergence
from bayesgmm.bayes.priors import Priors
from bayesgmm.bayes.relabel import VARIABLES, blocks_of_rows, mixture_of, of_draws, posterior_of, relabelling, rows_of
from bayesgmm.covariance import CovarianceModel
from bayesgmm.mixture import GaussianMixture
from bayesgmm.names import listed

_APART = 2.0  # chains whose means differ by so many of their own standard deviations sit in different modes
_OFTEN = 0.05  # what happens in fewer of the draws is not worth a sentence
_OVERLAP = 1.0  # nats of symmetric divergence; two unit normals at a distance of one
_PRIOR_SHARE = 0.7  # of the prior's sd: a mean so uncertain was told little by the data
_MAX_DEPTH = 10  # of the samplers' trees
_ENTRIES = 2e7  # responsibilities to look at
_REMEDIES = (  # the most effective first
    "bg.relabel(tree)",
    "fewer components",
    "a simpler covariance",
    "a longer tuning (tune)",
    "longer chains (draws)",
)


@dataclass(frozen=True)
class Diagnosis:
    """What is to be said of a posterior.

    Attributes
    ----------
    good : bool
        Whether the chains converged. Findings about components are no faults of the sampling.
    text : str
        All of it: the verdict, the findings, what to do.
    findings : tuple of str
        A sentence each, the most important first.
    """

    good: bool
    text: str
    findings: tuple[str, ...]


class Finding(NamedTuple):
    """A sentence, what to do about it, and whether it is a fault of the sampling."""

    sentence: str
    remedy: str
    fault: bool = False


class Held(NamedTuple):
    """How many rows the components hold in some of each chain's draws."""

    X: np.ndarray  # (N, D)
    draws: GaussianMixture  # (chain, t)
    counts: np.ndarray  # (chain, t, K): sums of responsibilities


def diagnose(tree: xr.DataTree, priors: Priors | None = None) -> Diagnosis:
    """What to hold of the draws: did the chains converge, and which components do the data not support.

    Parameters
    ----------
    tree : DataTree
        From `sample_posterior`.
    priors : Priors, optional
        Those it was drawn with; without them nothing is said of means that only the prior knows.

    Returns
    -------
    Diagnosis

    Raises
    ------
    InputError
        If the tree has no draws of a mixture.

    Notes
    -----
    Converged are draws with R-hat < 1.01, bulk and tail effective sample sizes above 100 per chain, no divergences and
    E-BFMI above 0.3 (Vehtari et al. 2021; Betancourt 2016). An R-hat above 1.01 counts only where chance would hardly
    give it (one in 10 000) at the effective sample sizes of the single chains. Where the chains disagree, those whose
    means of some parameter or of the log posterior are further apart than twice their standard deviation are told
    apart as modes; what is said of components is then said of the highest. A difference in log posterior is one of
    averages, in nats, in the sampler's coordinates. The rows of a component are its responsibilities summed, in up to
    a hundred draws of each chain.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), rng=0)
    >>> bg.diagnose(tree).good, bg.diagnose(tree).findings
    (True, ())
    """
    posterior = posterior_of(tree, "diagnose")
    if posterior.sizes["draw"] < 4:
        return Diagnosis(False, "Not checked: convergence cannot be judged from fewer than four draws a chain.", ())
    return _in_words(*_judge(tree, posterior, priors), posterior.sizes["component"])


def _judge(tree: xr.DataTree, posterior: xr.Dataset, priors: Priors | None) -> tuple[list[Finding], str]:
    """All findings, and what is good to know where there are no faults."""
    import arviz as az

    chains = posterior.sizes["chain"]
    statistics = (
        of_draws(tree["sample_stats"].to_dataset(), posterior) if "sample_stats" in tree.children else xr.Dataset()
    )
    with np.errstate(invalid="ignore"):  # a constant, as the weight of a single component, has no R-hat
        bulk, tail = _flat(az.ess(posterior)), _flat(az.ess(posterior, method="tail"))
        r_hat = _flat(az.rhat(posterior)) if chains > 1 else {}
    draws, X = mixture_of(posterior), rows_of(tree)
    held = None if X is None else _held(draws, X)
    modes: list[np.ndarray] = [np.arange(chains)]
    findings = list(_numbers(tree, draws))
    if numbered := not findings:
        if suspicious := _suspicious(posterior, r_hat):
            modes, height = _modes(draws, _heights(tree, posterior, statistics))
            findings += _disagreement(posterior, held, suspicious, modes, height)
    findings += _sampling(tree, statistics, bulk, tail, chains, separate=len(modes) > 1)
    if numbered and held is not None:
        model = tree["em"].attrs.get("covariance_model", "VVV") if "em" in tree.children else "VVV"
        model = CovarianceModel.named(model).for_features(draws.n_features)
        findings += _components(held, modes[0], model, priors, [str(f) for f in _coordinate(posterior, "feature")])
    agree = f"chains agree (R-hat at most {max(r_hat.values()):.3f})" if r_hat else "one chain, so no R-hat"
    fewest = min([*bulk.values(), *tail.values()])
    return findings, f"{agree}, effective sample size at least {fewest:.0f}, no divergences"


def _in_words(findings: list[Finding], praise: str, K: int) -> Diagnosis:
    good = not any(finding.fault for finding in findings)
    advised = {finding.remedy for finding in findings if K > 1 or finding.remedy != "fewer components"}
    remedies = [remedy for remedy in _REMEDIES if remedy in advised]
    sentences = tuple(finding.sentence for finding in findings)
    text = " ".join([f"Converged: {praise}." if good else "Not converged.", *sentences])
    if remedies:
        text += f" {'Consider' if good else 'Try'} {listed(remedies, 'or')}."
    return Diagnosis(good, text, sentences)


# The sampling.


def _numbers(tree: xr.DataTree, draws: GaussianMixture) -> Iterator[Finding]:
    """Whether the components of draws that nobody relabelled change their numbers."""
    if "relabelling" not in tree.attrs:
        order = relabelling(draws, _picked(draws, (0, 0))).order
        switched = float((order != np.arange(draws.n_components)).any(axis=-1).mean())
        if switched > _OFTEN:
            yield Finding(
                f"In {switched:.0%} of the draws the components have other numbers than in the first: nothing can be "
                "said of a single one.",
                "bg.relabel(tree)",
                fault=True,
            )


def _suspicious(posterior: xr.Dataset, r_hat: dict[str, float]) -> dict[str, float]:
    """The R-hats that are too large, and larger than chance makes them.

    Chance is judged by the chains' own effective sizes: that of all together is small wherever chains sit apart.
    """
    import arviz as az

    large = {name: value for name, value in r_hat.items() if value > 1.01}
    if not large:
        return {}
    chains = [posterior.isel(chain=[c]) for c in range(posterior.sizes["chain"])]
    sizes = [[_flat(az.ess(chain, method=kind)) for chain in chains] for kind in ("bulk", "tail")]
    halves = 2 * len(chains)
    chance = chdtri(halves - 1, 1e-4) / (halves - 1)
    ess = {name: min(sum(of.get(name, 1.0) for of in kind) for kind in sizes) for name in large}
    return {name: value for name, value in large.items() if value > 1 + 0.5 * chance * halves / ess[name]}


def separate_modes(tree: xr.DataTree) -> list[np.ndarray]:
    """Positions of the chains in each mode that chains do not move between, the highest first."""
    lp = tree["sample_stats"].to_dataset()["lp"].values
    return _modes(mixture_of(tree["posterior"]), ("log posterior", lp))[0]


def _heights(tree: xr.DataTree, posterior: xr.Dataset, statistics: xr.Dataset) -> tuple[str, np.ndarray] | None:
    """How high the draws (chain, draw) are, and what that is of; or None where the tree does not say."""
    if "lp" in statistics:
        return "log posterior", statistics["lp"].values
    if "log_likelihood" in tree.children:
        each = of_draws(tree["log_likelihood"].to_dataset(), posterior)
        if "observations" in each:
            return "log-likelihood", each["observations"].sum("observation").values
    return None


def _modes(
    draws: GaussianMixture, heights: tuple[str, np.ndarray] | None
) -> tuple[list[np.ndarray], tuple[str, np.ndarray] | None]:
    """Positions of the chains in each mode, the highest first; and each chain's average height, with its name."""
    chains = draws.batch_shape[0]
    variances = np.einsum("...kii->...ki", draws.covariances)
    parts = [draws.weights, draws.means, np.log(variances)]
    height = None
    if heights is not None:
        height = heights[0], heights[1].mean(axis=1)
        if heights[0] == "log posterior":
            parts.append(heights[1])
    values = np.concatenate([part.reshape(*draws.batch_shape, -1) for part in parts], axis=2)
    mean, variance = values.mean(axis=1), values.var(axis=1) + 1e-300
    gap = np.abs(mean[:, None] - mean) / np.sqrt((variance[:, None] + variance) / 2)
    n, mode = connected_components(gap.max(axis=2) < _APART, directed=False)
    groups = [np.flatnonzero(mode == m) for m in range(n)]
    rank = np.zeros(chains) if height is None else -height[1]
    return sorted(groups, key=lambda group: (rank[group].mean(), -len(group))), height


def _disagreement(
    posterior: xr.Dataset,
    held: Held | None,
    suspicious: dict[str, float],
    modes: list[np.ndarray],
    height: tuple[str, np.ndarray] | None,
) -> Iterator[Finding]:
    """In what the chains differ."""
    worst = max(suspicious, key=lambda name: suspicious[name])
    if len(modes) == 1:
        yield Finding(
            f"The chains disagree about {worst} (R-hat {suspicious[worst]:.3f}).", "longer chains (draws)", fault=True
        )
    else:
        names = _coordinate(posterior, "chain")
        for mode in modes[1:]:
            lower = ""
            if height is not None:
                lower = f" ({height[0]} lower by {height[1][modes[0]].mean() - height[1][mode].mean():.1f})"
            differences: list[str] = []
            if held is not None:
                differences += _other_rows(*(held.counts[m].mean(axis=(0, 1)) for m in (mode, modes[0])))
            yield Finding(
                f"{_chains(names[mode])} {'sits' if len(mode) == 1 else 'sit'} in another mode than "
                f"{_chains(names[modes[0]]).lower()}{lower}: "
                f"{', '.join(differences) or f'they differ most in {worst} (R-hat {suspicious[worst]:.3f})'}.",
                "fewer components",
                fault=True,
            )


def _other_rows(rows: np.ndarray, reference: np.ndarray) -> Iterator[str]:
    """The two components whose numbers of rows differ most, if they do."""
    change = np.abs(rows - reference)
    for k in np.argsort(-change, kind="stable")[:2]:
        if change[k] > max(1.0, 0.1 * reference[k]):
            yield f"component {k} holds {_rows(rows[k])} instead of {_rows(reference[k]).split()[0]}"


def _sampling(
    tree: xr.DataTree, statistics: xr.Dataset, bulk: dict, tail: dict, chains: int, separate: bool
) -> Iterator[Finding]:
    """Faults of the sampler's way through the posterior; that few draws are effective follows from separate modes."""
    import arviz as az

    if divergences := int(statistics["diverging"].sum()) if "diverging" in statistics else 0:
        yield Finding(
            f"{divergences} transition{'s' * (divergences > 1)} diverged: the sampler missed a narrow part of the "
            "posterior.",
            "a longer tuning (tune)",
            fault=True,
        )
    energy = xr.DataTree.from_dict({"sample_stats": statistics})
    bfmi = float(az.bfmi(energy)["energy"].min()) if "energy" in statistics else 1.0
    if bfmi < 0.3:
        yield Finding(f"The energy mixes badly (E-BFMI {bfmi:.2f}).", "a longer tuning (tune)", fault=True)
    kind, ess = min((("bulk", bulk), ("tail", tail)), key=lambda pair: min(pair[1].values()))
    worst = min(ess, key=lambda name: ess[name])
    if ess[worst] < 100 * chains and not separate:
        yield Finding(
            f"There are too few independent draws: {worst} has a {kind} effective sample size of {ess[worst]:.0f}, "
            f"below {100 * chains}.",
            "longer chains (draws)",
            fault=True,
        )
    deep = float((statistics["tree_depth"] >= _MAX_DEPTH).mean()) if "tree_depth" in statistics else 0.0
    if deep > _OFTEN:
        yield Finding(
            f"In {deep:.0%} of the draws the sampler took the longest path it may (tree depth {_MAX_DEPTH}): the data "
            "hardly tell some parameters apart.",
            "fewer components",
        )


# The components.


def _held(draws: GaussianMixture, X: np.ndarray) -> Held:
    """The rows held in up to a hundred draws of each chain."""
    chains, T = draws.batch_shape
    t = int(np.clip(_ENTRIES / (chains * len(X) * draws.n_components), 4, min(100, T)))
    thinned = _picked(draws, np.s_[:, np.linspace(0, T - 1, t).astype(int)])
    counts = sum(R.sum(axis=1) for _, R in blocks_of_rows(thinned, X))
    return Held(X, thinned, np.reshape(counts, thinned.weights.shape))


def _picked(draws: GaussianMixture, index: Any) -> GaussianMixture:
    return GaussianMixture(*(getattr(draws, name)[index] for name in VARIABLES))


def _components(
    held: Held, mode: np.ndarray, model: CovarianceModel, priors: Priors | None, features: list[str]
) -> Iterator[Finding]:
    """Components, in the chains of one mode, that hold next to nothing, are alike, or are known from the prior."""
    draws, counts = _picked(held.draws, mode), held.counts[mode]
    D, K = draws.n_features, draws.n_components
    needed = 0 if model.volume == "E" else 2 if model.diagonal else D + 1
    usual = np.median(counts, axis=(0, 1))
    often = (counts < 1).mean(axis=(0, 1))
    empty = [k for k in np.argsort(-often, kind="stable") if often[k] > _OFTEN]
    if empty:
        shares = listed(f"{often[k]:.0%}" for k in empty)
        yield Finding(
            f"Component{f's {listed(empty)} hold' if len(empty) > 1 else f' {empty[0]} holds'} less than one row in "
            f"{shares} of the draws: the data hardly call for {K} components.",
            "fewer components",
        )
    few = [k for k in np.argsort(usual, kind="stable") if k not in empty and usual[k] < max(needed, 2.5)]
    for k in few:
        if usual[k] < 2.5:
            rows = _members(draws, held.X, k)
            what = f"only row{'s' * (len(rows) > 1)} {listed(rows)} (counted from 0)" if len(rows) else _rows(usual[k])
            yield Finding(f"Component {k} holds {what}: look whether that is an error or an outlier.", "")
        else:
            yield Finding(
                f"Component {k} holds {_rows(usual[k])}, and {needed} are the fewest that determine a covariance: its "
                "own comes from the prior.",
                "a simpler covariance",
            )
    sound = np.setdiff1d(np.arange(K), [*empty, *few])
    yield from _pairs(draws, sound)
    if priors is not None:
        sd = draws.means.std(axis=(0, 1))
        share = sd / priors.means.scale
        for k in sound[share[sound].max(axis=1) > _PRIOR_SHARE]:
            j = int(share[k].argmax())
            yield Finding(
                f"The data say little of the mean of component {k}: the sd of {features[j]} is {sd[k, j]:.3g}, that of "
                f"its prior {priors.means.scale[j]:.3g}.",
                "",
            )


def _members(draws: GaussianMixture, X: np.ndarray, k: int) -> np.ndarray:
    """Rows that are of component k more likely than not."""
    return np.flatnonzero(np.concatenate([R[..., k].mean(axis=0) for _, R in blocks_of_rows(draws, X)]) > 0.5)


def _pairs(draws: GaussianMixture, components: np.ndarray) -> Iterator[Finding]:
    """Pairs of components that overlap wholly, or of which a draw has only one."""
    middle = GaussianMixture(*(getattr(draws, name).mean(axis=(0, 1)) for name in VARIABLES))
    nearest = divergence(draws, middle).argmin(axis=-2)
    between = np.median(divergence(draws, draws), axis=(0, 1))
    for j in components:
        for k in components[components > j]:
            confused = float((nearest[..., j] == nearest[..., k]).mean())
            if confused > _OFTEN or between[j, k] < _OVERLAP:
                yield Finding(
                    f"Components {j} and {k} are hard to tell apart: "
                    + (
                        f"in {confused:.0%} of the draws one component is the nearest to both."
                        if confused > _OFTEN
                        else f"their symmetric divergence is only {between[j, k]:.2g} nats."
                    ),
                    "fewer components",
                )


# Words.


def _rows(n: float) -> str:
    number = f"{n:.0f}" if n >= 9.95 else f"{n:.1f}".removesuffix(".0")
    return f"{number} row{'s' * (number != '1')}"


def _chains(names: np.ndarray) -> str:
    return f"Chain{'s' * (len(names) > 1)} {listed(names)}"


def _coordinate(posterior: xr.Dataset, name: str) -> np.ndarray:
    """Names along a dimension, or positions where it has none."""
    return posterior[name].values if name in posterior.coords else np.arange(posterior.sizes[name])


def _flat(diagnostic: xr.Dataset) -> dict[str, float]:
    """Value by parameter, without those that are fixed."""
    flat = {}
    for name, array in diagnostic.data_vars.items():
        for index in np.ndindex(array.shape):
            where = ", ".join(str(array[dim].values[i]) for dim, i in zip(array.dims, index, strict=True))
            if np.isfinite(array.values[index]):
                flat[f"{name}[{where}]"] = float(array.values[index])
    return flat
