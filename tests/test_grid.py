"""Grids of EM fits: what a fit starts from in its neighbours, and laws between the fits of one table."""

import itertools

import numpy as np
import pytest
from oracles import random_mixture, table

import bayesgmm as bg
from bayesgmm.covariance import NAMES, CovarianceModel
from bayesgmm.em.grid import Grid, contains, fit_grid, merges, splits
from bayesgmm.observations import observations


def grid(X, names=NAMES, counts=range(1, 6), n_starts=10, known=None, seed=0):
    X = observations(X)
    models = list(dict.fromkeys(CovarianceModel.named(name).for_features(X.n_features) for name in names))
    told = []
    fits = fit_grid(
        Grid(X, tuple(models), tuple(counts), n_starts),
        np.random.default_rng(seed),
        (lambda key, make: make()) if known is None else known,
        lambda *of: told.append(of),
    )
    assert told == [(i + 1, len(fits)) for i in range(len(fits))]
    return fits


@pytest.mark.parametrize(("K", "D"), [(1, 2), (3, 1), (4, 3)])
def test_splitting_and_merging_keep_mean_and_covariance(K, D):
    mixture = random_mixture(np.random.default_rng(K), K, D)
    neighbours = splits(mixture)
    assert len(neighbours) == K
    assert all(other.n_components == K + 1 for other in neighbours)
    if K > 1:
        merged = merges(mixture)
        assert merged
        assert all(other.n_components == K - 1 for other in merged)
        neighbours += merged
    for other in neighbours:
        np.testing.assert_allclose(other.mean, mixture.mean, rtol=1e-10)
        np.testing.assert_allclose(other.covariance, mixture.covariance, rtol=1e-9, atol=1e-12)


def test_splits_and_merges_move_with_the_units():
    rng = np.random.default_rng(5)
    mixture, A, b = random_mixture(rng, 3, 2), rng.normal(size=(2, 2)), rng.normal(size=2)

    def moved(m):
        return bg.GaussianMixture(m.weights, m.means @ A.T + b, A @ m.covariances @ A.T)

    for change in (splits, merges):
        for ours, theirs in zip(map(moved, change(mixture)), change(moved(mixture)), strict=True):
            order = np.lexsort(ours.means.T), np.lexsort(theirs.means.T)
            np.testing.assert_allclose(ours.means[order[0]], theirs.means[order[1]], rtol=1e-8)
            np.testing.assert_allclose(ours.covariances[order[0]], theirs.covariances[order[1]], rtol=1e-8)


def test_a_model_that_contains_another_fits_at_least_as_well():
    fits = grid(table("old_faithful"), counts=range(1, 5))
    for (a, j), (b, k) in itertools.product(fits, fits):
        if j == k and contains(CovarianceModel.named(a), CovarianceModel.named(b)):
            assert fits[a, k].log_likelihood >= fits[b, k].log_likelihood - 1e-5, (a, b, k)


def test_neighbours_never_make_a_fit_worse():
    X = table("iris")
    fits = grid(X, ("VEV", "full"), n_starts=20)
    for (name, K), fit in fits.items():
        assert fit.log_likelihood >= bg.fit_em(X, K, name, n_starts=1, rng=0).log_likelihood - 1e-6
    assert {"split", "merged", "fit of VEV"} <= {start.kind for fit in fits.values() for start in fit.starts}


def test_finished_fits_are_taken_up_and_give_the_same_answer():
    X, kept = table("old_faithful"), {}

    def keep(key, make):
        if key not in kept:
            kept[key] = make()
        return kept[key]

    whole = grid(X, ("EEE", "VVV"), known=keep)
    assert kept.keys() == whole.keys()
    for key in list(kept)[::2]:
        del kept[key]
    again = grid(X, ("EEE", "VVV"), known=keep)
    for key, fit in whole.items():
        assert again[key].log_likelihood == fit.log_likelihood
