"""Starts near a maximum: its moments with one component taken away and another put elsewhere. Nothing here climbs.

Where a maximum is not the highest, most of its components are right and one is wanted elsewhere. To move it takes many
fewer climbs than to find all of them afresh.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bayesgmm.em.initialize import Candidates, Seeding


class Summit(NamedTuple):
    """The parameters of a maximum: ``weights`` (K,), ``offsets`` (K, D) of the means, ``covariances`` (K, D, D)."""

    weights: np.ndarray
    offsets: np.ndarray
    covariances: np.ndarray


def moved(summit: Summit, seeding: Seeding, n: int, rng: np.random.Generator) -> Candidates:
    """``n`` named moments near a maximum, the two kinds of moves by turns.

    Parameters
    ----------
    summit : Summit
        Of K >= 2 components.
    seeding : Seeding
        The rows of the table.
    n : int
    rng : Generator

    References
    ----------
    Ueda, Nakano, Ghahramani & Hinton (2000), Neural Computation 12:2109-2128, doi:10.1162/089976600300015088 (splits).
    Zhao, Hautamäki & Fränti (2012), IEEE Signal Processing Letters 19:155-158 (swaps).
    """
    reseeds, divisions = _reseeded(summit, seeding, (n + 1) // 2, rng), _divided(summit, seeding, n // 2, rng)
    starts = [(kind, z) for kind, moments in (("reseeded", reseeds), ("divided", divisions)) for z in moments]
    return [starts[i // 2 + (i % 2) * len(reseeds)] for i in range(n)]


def _reseeded(summit: Summit, seeding: Seeding, n: int, rng: np.random.Generator) -> np.ndarray:
    """Moments (n, size) with a random component replaced by one at a random row: an equal share, the pooled shape.

    A narrower one would find rows that lie on a line by chance, of which there are always some.
    """
    K = seeding.n_components
    gone, rows, own = rng.integers(K, size=n), rng.integers(len(seeding.rows), size=n), np.arange(n)
    moments = _repeated(summit, seeding.total, n)
    counts, offsets, covariances = moments
    offsets[own, gone] = seeding.rows[rows]
    covariances[own, gone] = np.einsum("k,kij->ij", summit.weights, summit.covariances)
    counts[own, gone] = seeding.total / K
    return _flat(moments, seeding.total * summit.weights.sum())


def _divided(summit: Summit, seeding: Seeding, n: int, rng: np.random.Generator) -> np.ndarray:
    """Moments (n, size) with a random component gone and another one cut in two halves across a random direction."""
    K, D = summit.offsets.shape
    gone, cut = rng.integers(K, size=n), rng.integers(K - 1, size=n)
    cut += cut >= gone
    lengths, axes = np.linalg.eigh(summit.covariances)
    directions = rng.normal(size=(n, D))
    directions *= np.sqrt(2 / np.pi * lengths[cut].clip(0)) / np.linalg.norm(directions, axis=1, keepdims=True)
    halves = np.einsum("nij,nj->ni", axes[cut], directions)  # from the mean of the whole to that of one half
    moments, own = _repeated(summit, seeding.total, n), np.arange(n)
    counts, offsets, covariances = moments
    counts[own, cut] /= 2
    offsets[own, gone] = offsets[own, cut] + halves
    offsets[own, cut] -= halves
    covariances[own, cut] -= halves[:, :, None] * halves[:, None]
    covariances[own, gone] = covariances[own, cut]
    counts[own, gone] = counts[own, cut]
    return _flat(moments, seeding.total * summit.weights.sum())


def _repeated(summit: Summit, total: float, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts (n, K), means (n, K, D) and covariances (n, K, D, D), the same n times."""
    counts, offsets, covariances = (np.repeat(part[None], n, axis=0) for part in summit)
    return np.maximum(counts * total, 1e-3), offsets, covariances


def _flat(moments: tuple[np.ndarray, np.ndarray, np.ndarray], total: float) -> np.ndarray:
    """The moments (n, size), with counts that add up to the total: that of the rows which are not noise."""
    counts = moments[0]
    counts *= total / counts.sum(axis=1, keepdims=True)
    return np.concatenate([part.reshape(len(part), math.prod(part.shape[1:])) for part in moments], axis=1)
