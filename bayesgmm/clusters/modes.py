"""How many modes the density of a mixture has: components that make one lump share theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesgmm import native
from bayesgmm.bayes.posterior import posterior as as_posterior
from bayesgmm.expectation import in_threads, n_threads
from bayesgmm.mixture import GaussianMixture
from bayesgmm.names import counted
from bayesgmm.native import address


@dataclass(frozen=True, slots=True, eq=False)
class Modes:
    """Modes of a mixture's density, or of each of a posterior's draws.

    Attributes
    ----------
    counts : (...)
        Number of modes of each mixture: int array of the batch shape, (chain, draw) for a posterior.
    probabilities : (K,)
        Share of the mixtures with 1, ..., K modes.
    together : (K, K)
        Share of the mixtures in which two components climb to the same mode. Needs relabelled draws.
    locations : (..., K, D)
        The mode that each component's mean climbs to.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), method="laplace", rng=0)
    >>> modes = bg.number_of_modes(tree)
    >>> modes.counts.shape, modes.probabilities
    ((4, 1000), array([0., 1.]))
    >>> modes
    Modes(2 modes: 1)
    """

    counts: np.ndarray
    probabilities: np.ndarray
    together: np.ndarray
    locations: np.ndarray

    def __repr__(self) -> str:
        shares = [f"{counted(n, 'mode')}: {p:.3g}" for n, p in enumerate(self.probabilities, 1) if p > 0]
        return f"Modes({', '.join(shares)})"


def number_of_modes(source: Any) -> Modes:
    """Number of modes of a mixture's density, with its posterior probabilities.

    Parameters
    ----------
    source : DataTree, Posterior, EMFit or GaussianMixture
        The posterior from `sample_posterior`; or a fit or a mixture, with or without batch axes.

    Returns
    -------
    Modes

    Raises
    ------
    InputError
        If the source is none of these.

    Notes
    -----
    From each component's mean the density is climbed by the fixed-point iteration that is EM for the location of a mode
    (Carreira-Perpiñán 2000, 2007), with Newton steps wherever these are short and raise the density. Components whose
    climbs end in the same place form one mode. With several features a density can have a few more modes than
    components; those are not looked for.

    References
    ----------
    Carreira-Perpiñán (2000), IEEE Transactions on Pattern Analysis and Machine Intelligence 22, 1318-1323.
    doi:10.1109/34.888716

    Carreira-Perpiñán (2007), IEEE Transactions on Pattern Analysis and Machine Intelligence 29, 767-776.
    doi:10.1109/TPAMI.2007.1057

    Examples
    --------
    >>> import bayesgmm as bg
    >>> pair = bg.GaussianMixture([0.5, 0.5], [[0.0], [1.9]], [[[1.0]], [[1.0]]])
    >>> int(bg.number_of_modes(pair).counts)  # equal components show two modes from two sds apart
    1
    """
    mixture = getattr(source, "mixture", source)
    if not isinstance(mixture, GaussianMixture):
        mixture = as_posterior(source).draws
    K, D = mixture.n_components, mixture.n_features
    weights, means = mixture.weights.reshape(-1, K), mixture.means.reshape(-1, K, D)
    P = mixture.precisions_cholesky.reshape(-1, K, D, D)
    with np.errstate(divide="ignore"):
        scale = np.maximum(np.log(weights) + np.log(np.einsum("skii->ski", P)).sum(-1), -1e300)
    locations, groups = np.empty_like(means), np.empty((len(means), K), np.int64)
    given = [np.ascontiguousarray(array) for array in (scale, means, P @ np.swapaxes(P, -1, -2))]
    of, to = [address(array) for array in given], (address(locations), address(groups, np.int64))
    step = max(len(means) // (16 * n_threads()), 1)
    ranges = [(s, min(s + step, len(means))) for s in range(0, len(means), step)]
    in_threads(lambda some: native.modes(*of, K, D, *some, *to), ranges)
    counts = groups.max(axis=1) + 1
    return Modes(
        counts=counts.reshape(mixture.batch_shape),
        probabilities=np.bincount(counts, minlength=K + 1)[1:] / len(counts),
        together=(groups[:, :, None] == groups[:, None, :]).mean(axis=0),
        locations=locations.reshape(mixture.means.shape),
    )
