"""Laws of the starts near a maximum."""

import numpy as np
import pytest
from oracles import random_mixture

from bayesgmm.em.initialize import Seeding
from bayesgmm.em.moves import Summit, _divided, _reseeded, moved
from bayesgmm.expectation import NO_LABELS
from bayesgmm.observations import observations


def made(K, D, seed=0, A=None):
    """A summit and the rows around it, mapped by A."""
    rng = np.random.default_rng(seed)
    mixture = random_mixture(rng, K, D)
    A = np.eye(D) if A is None else A
    X = mixture.sample(200, rng=rng)[0] @ A.T
    table, center = observations(X), X.mean(axis=0)
    seeding = Seeding(table, NO_LABELS, center, np.cov(X.T).reshape(D, D), K, rng)
    return Summit(mixture.weights, mixture.means @ A.T - center, A @ mixture.covariances @ A.T), seeding


def parts(moments, K, D):
    n = len(moments)
    return (
        moments[:, :K],
        moments[:, K : K + K * D].reshape(n, K, D),
        moments[:, K + K * D :].reshape(n, K, D, D),
    )


@pytest.mark.parametrize(("K", "D"), [(2, 1), (3, 2), (5, 4)])
def test_one_component_goes_to_a_row_and_the_others_stay(K, D):
    summit, seeding = made(K, D)
    counts, offsets, covariances = parts(_reseeded(summit, seeding, 30, np.random.default_rng(1)), K, D)
    np.testing.assert_allclose(counts.sum(axis=1), 200)
    pooled = np.einsum("k,kij->ij", summit.weights, summit.covariances)
    for i in range(30):
        (gone,) = np.flatnonzero((offsets[i] != summit.offsets).any(axis=1))
        assert (seeding.rows == offsets[i, gone]).all(axis=1).any()
        np.testing.assert_allclose(covariances[i, gone], pooled)
        others = np.arange(K) != gone
        assert counts[i, gone] == pytest.approx(200 / (1 + K * summit.weights[others].sum()))
        np.testing.assert_array_equal(covariances[i, others], summit.covariances[others])
        ratio = counts[i, others] / summit.weights[others]
        np.testing.assert_allclose(ratio, ratio[0])


@pytest.mark.parametrize(("K", "D"), [(2, 1), (3, 2), (5, 4)])
def test_two_halves_make_the_component_that_was_cut(K, D):
    summit, seeding = made(K, D)
    counts, offsets, covariances = parts(_divided(summit, seeding, 30, np.random.default_rng(1)), K, D)
    np.testing.assert_allclose(counts.sum(axis=1), 200)
    for i in range(30):
        pair = np.flatnonzero((offsets[i] != summit.offsets).any(axis=1))
        assert len(pair) == 2
        assert counts[i, pair[0]] == pytest.approx(counts[i, pair[1]])
        mean = offsets[i, pair].mean(axis=0)
        (cut,) = (k for k in pair if np.allclose(summit.offsets[k], mean))
        between = np.einsum("ki,kj->ij", offsets[i, pair] - mean, offsets[i, pair] - mean) / 2
        np.testing.assert_allclose(covariances[i, pair].mean(axis=0) + between, summit.covariances[cut])
        np.testing.assert_array_less(0, np.linalg.eigvalsh(covariances[i, pair]))


def test_reseeding_moves_with_the_units():
    A = np.random.default_rng(3).normal(size=(2, 2))
    (summit, seeding), (mapped, mapped_seeding) = made(3, 2), made(3, 2, A=A)
    ours = parts(_reseeded(summit, seeding, 10, np.random.default_rng(1)), 3, 2)
    theirs = parts(_reseeded(mapped, mapped_seeding, 10, np.random.default_rng(1)), 3, 2)
    np.testing.assert_allclose(theirs[0], ours[0])
    np.testing.assert_allclose(theirs[1], ours[1] @ A.T, atol=1e-12)
    np.testing.assert_allclose(theirs[2], A @ ours[2] @ A.T, atol=1e-12)


def test_both_kinds_of_moves_come_by_turns():
    summit, seeding = made(3, 2)
    for n in (1, 4, 7):
        kinds = [kind for kind, _ in moved(summit, seeding, n, np.random.default_rng(0))]
        assert kinds == [("reseeded", "divided")[i % 2] for i in range(n)]
