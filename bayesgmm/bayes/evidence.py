"""The marginal likelihood (log evidence) of a mixture from its posterior draws, by methods that check one another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np

from bayesgmm.bayes.density import Density
from bayesgmm.bayes.integrals import Estimate, by_laplace, by_sampling, into_tile, n_proposals
from bayesgmm.bayes.posterior import posterior as as_posterior
from bayesgmm.errors import InputError
from bayesgmm.mixture import GaussianMixture

METHODS = {"bridge": "bridge sampling", "thames": "THAMES", "laplace": "Laplace's approximation"}
_LARGEST_ERROR = 0.5  # nats: a Bayes factor known to a factor of 1.6
_FAILURE = {
    "bridge": "no proposal fell where the posterior is",
    "thames": "no region was found that is rich in draws and whose volume could be estimated",
    "laplace": "the normal approximation at the mode lies outside the region of the draws' labelling",
}


class EvidenceProblem(Enum):
    """What can be wrong with an estimate of the evidence; the value is the wording, a format string for the facts.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> bg.EvidenceProblem.CHAINS_NOT_CONVERGED.value
    'the chains did not converge, see the attribute convergence of the tree'
    """

    FAILED = "{method} failed: {reason}"
    LARGE_ERROR = "the standard error of {se:.2g} exceeds {largest} nats; draw more"
    NOT_CONFIRMED = "{other} could not confirm it: {reason}"
    DISAGREEMENT = "{method} and {other} differ by {gap:.2g} nats, {errors:.0f} errors"
    CHAINS_NOT_CONVERGED = "the chains did not converge, see the attribute convergence of the tree"


@dataclass(frozen=True, slots=True)
class EvidenceFault:
    """A reason not to trust an estimate of the evidence; ``str(fault)`` puts it in words.

    Attributes
    ----------
    problem : EvidenceProblem
    facts : mapping from str
        The numbers and names that its wording contains.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> print(bg.EvidenceFault(bg.EvidenceProblem.LARGE_ERROR, {"se": 0.71, "largest": 0.5}))
    the standard error of 0.71 exceeds 0.5 nats; draw more
    """

    problem: EvidenceProblem
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.problem.value.format(**self.facts)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Log marginal likelihood of a mixture, and whether to trust it.

    Attributes
    ----------
    value : float
        Log evidence in nats, all labellings included.
    se : float
        Monte Carlo standard error in nats; NaN for Laplace's approximation, whose error is unknown.
    method : {"bridge", "thames", "laplace"}
        The method that ``value`` comes from.
    estimates : mapping from method to (value, se)
        Every estimate that was computed; independent methods should agree within their errors.
    log_copies : float
        The part of ``value`` that counts the labellings of the components: log K!, or 0 where the prior tells the
        components apart.
    faults : tuple of EvidenceFault
        Reasons not to trust it; empty if every check passed.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), method="laplace", rng=0)
    >>> evidence = bg.log_evidence(tree, "laplace")
    >>> round(evidence.value, 1), evidence.trusted
    (-1166.8, True)
    """

    value: float
    se: float
    method: str
    estimates: Mapping[str, Estimate]
    log_copies: float
    faults: tuple[EvidenceFault, ...]

    @property
    def trusted(self) -> bool:
        """Whether every check passed."""
        return not self.faults

    def __str__(self) -> str:
        def show(method: str) -> str:
            value, se = self.estimates[method]
            if not math.isfinite(value):
                return "failed"
            return f"{value:.2f}" + (f", standard error {se:.2g}" if math.isfinite(se) else "")

        others = "".join(f"; {METHODS[name]} {show(name)}" for name in self.estimates if name != self.method)
        text = f"log evidence {show(self.method)} (nats, {METHODS[self.method]}{others})"
        if self.log_copies:
            text += f"\nincludes log K! = {self.log_copies:.2f} for the labellings of the components"
        return text + "".join(f"\nNot to be trusted: {fault}." for fault in self.faults)


def log_evidence(posterior: Any, method: str = "bridge", *, rng: Any = None) -> Evidence:
    """Log marginal likelihood of the mixture whose posterior was drawn: log of the integral of likelihood times prior.

    Parameters
    ----------
    posterior : DataTree or Posterior
        From `sample_posterior`.
    method : {"bridge", "thames", "laplace"}
        Bridge sampling from a Gaussian mixture fitted to the draws (Meng & Wong 1996; Gronau et al. 2017); reciprocal
        importance sampling in a truncated ellipsoid (THAMES; Metodiev et al. 2025); or the normal approximation at the
        mode, the quickest. The first two are always computed together, so that each checks the other.
    rng : Generator, seed or None

    Returns
    -------
    Evidence
        ``value`` and ``se`` in nats; ``faults`` lists reasons not to trust it. Print the result to read all of it.

    Raises
    ------
    InputError
        For an unknown method, too few draws, or draws that are not of the posterior.

    Notes
    -----
    No method sees a part of the posterior that the draws never visited. Evidence depends on the prior, including its
    width, so compare models only under priors that you stand by. Where the prior tells the components apart, draws are
    not relabelled, and the evidence covers only the labellings that the chains visited.

    One half of each chain's draws is used to build the approximation with which the other half estimates the evidence,
    and vice versa (Overstall & Forster 2010). The standard error of bridge sampling is that of Frühwirth-Schnatter
    (2004).

    References
    ----------
    Meng & Wong (1996), Statistica Sinica 6, 831-860.

    Gronau et al. (2017), Journal of Mathematical Psychology 81, 80-97. doi:10.1016/j.jmp.2017.09.005

    Overstall & Forster (2010), Computational Statistics and Data Analysis 54, 3269-3288. doi:10.1016/j.csda.2010.03.008

    Frühwirth-Schnatter (2004), The Econometrics Journal 7, 143-167. doi:10.1111/j.1368-423X.2004.00125.x

    Metodiev, Irons, Perrot-Dockès, Latouche & Raftery (2025), Easily computed marginal likelihoods for multivariate
    mixture models using the THAMES estimator. arXiv:2504.21812

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> evidence = bg.log_evidence(tree, rng=0)
    >>> round(evidence.value), round(evidence.se, 1)
    (-1167, 0.0)
    """
    _check_method(method)
    drawn = as_posterior(posterior)
    drawn.need_table("log_evidence")
    if drawn.table is None or drawn.em is None or drawn.priors is None:
        raise InputError(
            "log_evidence needs a posterior with its table, fit and priors, as sample_posterior returns it"
        )
    if method != "laplace" and drawn.sampling.approximate:
        raise InputError(
            f"{METHODS[method]} needs draws of the posterior, but these are of an approximation; sample with "
            "method='nuts', or ask for log_evidence(tree, 'laplace')"
        )
    density = drawn.density
    thetas = density.pack(drawn.draws)
    if "lp" in drawn.statistics and not density.coordinates.layout.frames:  # lp is of other frames than these
        heights = drawn.statistics["lp"]
    else:
        every = -(-thetas[..., 0].size // (2 * n_proposals(density)))
        thetas = thetas[:, :: max(every, 1)]
        heights = density.log_densities(thetas)
    target = drawn.em if density.priors.exchangeable else None
    evidence = evidence_of_draws(density, thetas, heights, target, method, rng=rng)
    if drawn.verdict is not None and not drawn.verdict.good and method != "laplace":
        unconverged = EvidenceFault(EvidenceProblem.CHAINS_NOT_CONVERGED)
        evidence = replace(evidence, faults=(*evidence.faults, unconverged))
    return evidence


def evidence_of_draws(
    density: Density,
    thetas: np.ndarray,
    log_values: np.ndarray,
    target: GaussianMixture | None,
    method: str = "bridge",
    *,
    rng: Any = None,
) -> Evidence:
    """The evidence by draws of some chains: of the whole posterior, or of the mode in which these chains sit.

    Parameters
    ----------
    density : Density
    thetas : (chains, draws, n)
        Coordinates.
    log_values : (chains, draws)
        The density's value at them, nats.
    target : GaussianMixture or None
        Draws are relabelled to it; None where the prior is not the same for every component.
    method, rng
        As for `log_evidence`.

    Returns
    -------
    Evidence
        Of the whole tile of labellings, K! times the integral over it. Of chains that sit in one mode it is the
        evidence of that mode; the modes' exponentials add up, and are the weights of their chains.

    Raises
    ------
    InputError
        For an unknown method, or too few draws.
    """
    _check_method(method)
    rng = np.random.default_rng(rng)
    if thetas.shape != (*log_values.shape, density.n_dim) or log_values.ndim != 2:
        raise InputError(
            f"coordinates {thetas.shape} and log values {log_values.shape} must have shapes (chains, draws, "
            f"{density.n_dim}) and (chains, draws)"
        )
    if not (np.isfinite(thetas).all() and np.isfinite(log_values).all()):
        raise InputError("the coordinates of every draw and the density there must be finite")
    thetas, log_values, tile = into_tile(density, thetas, log_values, target)
    constant = density.log_constant + tile.log_copies
    if method == "laplace":
        estimates = {"laplace": by_laplace(density, thetas, log_values, tile, rng)}
    else:
        n, middle = tile.n_dim, log_values.shape[1] // 2
        distinct = min(len(np.unique(half)) for half in (log_values[:, :middle], log_values[:, middle:]))
        if middle < 4 or distinct < 5 * (n + 1):
            raise InputError(
                f"{log_values.size} draws, {distinct} of them distinct in a half of each chain, are too few for the "
                f"evidence of a posterior with {n} coordinates; at least {5 * (n + 1)} are needed, better thousands"
            )
        estimates = by_sampling(thetas, log_values, tile, rng)
    estimates = {name: Estimate(value + constant, se) for name, (value, se) in estimates.items()}
    value, se = estimates[method]
    return Evidence(value, se, method, estimates, tile.log_labellings, tuple(_faults(estimates, method)))


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}; use one of {', '.join(map(repr, METHODS))}")


def _faults(estimates: Mapping[str, Estimate], method: str) -> Iterator[EvidenceFault]:
    """What speaks against the estimates."""
    value, se = estimates[method]
    if not math.isfinite(value):
        yield EvidenceFault(EvidenceProblem.FAILED, {"method": METHODS[method], "reason": _FAILURE[method]})
    elif se > _LARGEST_ERROR:
        yield EvidenceFault(EvidenceProblem.LARGE_ERROR, {"se": se, "largest": _LARGEST_ERROR})
    for name, (other_value, other_se) in estimates.items():
        if name == method:
            continue
        gap, error = abs(value - other_value), math.hypot(se, other_se)
        if not math.isfinite(other_value):
            yield EvidenceFault(EvidenceProblem.NOT_CONFIRMED, {"other": METHODS[name], "reason": _FAILURE[name]})
        elif gap > max(4 * error, 0.1):
            facts = {"method": METHODS[method], "other": METHODS[name], "gap": gap, "errors": gap / error}
            yield EvidenceFault(EvidenceProblem.DISAGREEMENT, facts)
