"""Modes that chains do not leave, and what each weighs."""

import re

import numpy as np
import pytest
from oracles import seed

import bayesgmm as bg
from bayesgmm.bayes.chains import Chains
from bayesgmm.bayes.mode_weights import ModeWeights, _in_proportion, multinomial_share
from bayesgmm.bayes.modes import candidates, find_modes, search_modes


def two_modes():
    """Four far clusters of equal size for three components: which two share one is undecided."""
    rng = np.random.default_rng(0)
    corners = 12 * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    X = rng.normal(size=(160, 2)) + corners[np.repeat(np.arange(4), 40)]
    return X, bg.fit_em(X, 3, "VII", rng=0, n_starts=40)


@pytest.mark.statistical
def test_modes_that_chains_do_not_leave_are_weighted_by_evidence():
    """Every chain then holds draws of each, as many as Laplace's approximation, good here, says to within 0.03.

    The log evidence by bridge sampling has an error of about 0.03 nats, that is 0.002 in the share.
    """
    X, fit = two_modes()
    priors = bg.Priors.weakly_informative(X, 3)
    tree = bg.sample_posterior(X, fit, priors, draws=300, rng=seed())
    density = bg.posterior(tree).density
    searched = search_modes(density, fit, np.random.default_rng([tree.attrs["seed"], 2]))
    modes = find_modes(density, candidates(fit, searched, 8))[:4]
    assert len(modes) > 1
    assert "modes that chains do not move between" in tree.attrs["modes"]
    laplace = [float(x) for x in tree.attrs["maxima"].partition(": ")[2].split(", ")]
    exact = [mode.log_integral + density.log_constant + np.log(6) for mode in modes]
    np.testing.assert_allclose(laplace, exact, atol=0.051)
    bridge = [float(x) for x in re.findall(r"log evidence (-[0-9.]+)", tree.attrs["modes"])]
    assert abs(max(bridge) - max(exact)) < 0.5  # two methods, one integral
    log_integrals = np.array([mode.log_integral for mode in modes])
    weights = np.exp(log_integrals - log_integrals.max())
    weights /= weights.sum()
    # share of draws nearest to each mode
    nearest = _nearest(bg.as_mixture(tree).means, np.stack([density.unpack(mode.origin).means for mode in modes]))
    share = np.bincount(nearest.ravel(), minlength=len(modes)) / nearest.size
    np.testing.assert_allclose(share, weights, atol=0.03)


def _nearest(means, modes):
    """Index of the mode whose set of means is nearest to each draw's, whatever the order of components."""
    gap = np.linalg.norm(means[..., None, :, None, :] - modes[:, None, :, :], axis=-1)  # (chain, draw, mode, K, K)
    return gap.min(axis=-1).sum(axis=-1).argmin(axis=-1)


@pytest.mark.parametrize("weights", [[0.5, 0.333, 0.167], [1.0], [0.999, 0.001], [1 / 3] * 3])
def test_shares_are_whole_numbers_nearest_to_the_weights_and_sum_to_all(weights):
    for n in (1, 7, 10, 1000):
        share = multinomial_share(np.array(weights), n)
        assert share.sum() == n
        assert np.abs(share - n * np.array(weights)).max() < 1
    assert multinomial_share(np.array([0.5, 0.333, 0.167]), 10).tolist() == [5, 3, 2]


def test_every_chain_gets_its_share_of_each_mode_from_chains_of_that_mode():
    thetas = np.arange(4)[:, None, None] + np.linspace(0, 0.9, 10)[:, None]  # the chain, and the draw after the point
    groups = [np.array([0, 2]), np.array([1, 3])]
    drawn = _in_proportion(
        np.array([0.7, 0.3]), groups, Chains(thetas, {"lp": thetas[..., 0]}), np.random.default_rng(0)
    )
    source = drawn.thetas[..., 0].astype(int)
    assert source.shape == (4, 10)
    assert (np.isin(source, [0, 2]).sum(axis=1) == 7).all()
    np.testing.assert_array_equal(drawn.statistics["lp"], drawn.thetas[..., 0])
    assert all(len(set(row)) == 10 for row in drawn.thetas[..., 0].tolist())  # no draw twice in a chain


def test_modes_are_told_with_their_chains_and_weights():
    text = ModeWeights(((0, 2), (1,)), (-9.04, -10.26), (0.7714, 0.2286)).text
    assert text == (
        "The posterior has 2 modes that chains do not move between (chains 0, 2: log evidence -9.0, weight 0.77; chain "
        "1: log evidence -10.3, weight 0.23); draws are taken from each in proportion to its evidence."
    )
