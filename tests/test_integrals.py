"""What the estimates of the evidence are made of."""

import itertools
import math

import numpy as np
import pytest
from oracles import random_mixture

import bayesgmm as bg
from bayesgmm.bayes import integrals
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.integrals import FAILED, Estimate, Tile
from bayesgmm.covariance import CovarianceModel
from bayesgmm.observations import observations


def density_of(X, K):
    priors = bg.Priors.weakly_informative(X, K)
    return Density(observations(X), X.mean(axis=0), priors, CovarianceModel.named("VVV"))


@pytest.fixture(scope="module")
def labelled():
    """A density of three components, and a mixture that tells them apart."""
    rng = np.random.default_rng(0)
    target = random_mixture(rng, 3, 2)
    return density_of(target.sample(60, rng=rng)[0], 3), target


def test_tiny_weights_keep_their_coordinates():
    density = density_of(np.random.default_rng(0).normal(size=(20, 1)), 2)
    theta = density.pack(bg.GaussianMixture([0.5, 0.5], [[0.0], [1.0]], [[[1.0]], [[1.0]]]))
    theta[0] = -40.0
    np.testing.assert_allclose(density.pack(density.unpack(theta)), theta)


def test_a_tile_holds_one_of_all_labellings(labelled):
    density, target = labelled
    orders = list(itertools.permutations(range(3)))
    thetas = np.array([density.pack(target.permute(list(order))) for order in orders])
    tile = Tile(density, target)
    assert [order for order, held in zip(orders, tile.holds(thetas), strict=True) if held] == [(0, 1, 2)]
    assert tile.log_copies == pytest.approx(math.log(6))
    values = tile.log_values(thetas, -math.inf)
    assert np.isfinite(values).tolist() == [True] + [False] * 5
    assert tile.log_values(thetas[:1], values[0] + 1).tolist() == [-math.inf]


def test_without_a_target_every_labelling_is_held(labelled):
    density, target = labelled
    tile = Tile(density, None)
    assert tile.holds(np.array([density.pack(target.permute([2, 0, 1]))])).all()
    assert tile.log_copies == 0


def test_draws_are_relabelled_into_the_tile(labelled):
    density, target = labelled
    thetas = np.array([[density.pack(target.permute(order)) for order in ([2, 0, 1], [0, 1, 2], [1, 0, 2])]])
    inside, _, tile = integrals.into_tile(density, thetas, np.zeros((1, 3)), target)
    assert tile.holds(inside[0]).all()
    np.testing.assert_allclose(density.log_densities(inside), density.log_densities(thetas), rtol=1e-9)


def test_a_target_of_equal_components_gives_way_to_the_best_draw(labelled):
    density, target = labelled
    same = bg.GaussianMixture(np.full(3, 1 / 3), np.zeros((3, 2)), np.tile(np.eye(2), (3, 1, 1)))
    thetas = np.array([[density.pack(target.permute(order)) for order in ([0, 1, 2], [1, 0, 2])]])
    *_, tile = integrals.into_tile(density, thetas, np.array([[-2.0, -1.0]]), same)
    np.testing.assert_allclose(tile.target.means, target.permute([1, 0, 2]).means)


def test_the_error_of_two_halves_is_the_greater_of_what_they_state_and_what_they_show():
    agreeing, apart = Estimate(-10.0, 0.3), Estimate(-12.0, 0.4)
    assert integrals._mean(agreeing, agreeing._replace(se=0.4)) == (-10.0, pytest.approx(0.25))
    assert integrals._mean(agreeing, apart) == (-11.0, pytest.approx(1.0))
    assert integrals._mean(agreeing, FAILED) is FAILED


@pytest.mark.parametrize(("rows", "expected"), [(50, 2000), (200_000, 250)])
def test_a_long_pass_over_the_rows_allows_fewer_proposals(rows, expected):
    X = np.random.default_rng(0).normal(size=(rows, 8))
    assert integrals.n_proposals(density_of(X, 2)) == expected
