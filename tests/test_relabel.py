"""Laws of relabelling: consistent numbers, by three methods, and nothing else changed."""

from itertools import permutations

import numpy as np
import pytest
import xarray as xr
from oracles import deviation_allowed, random_mixture, table, tree_of, wobbling
from scipy.special import xlogy

import bayesgmm as bg
from bayesgmm.alignment import cheapest_order, divergence
from bayesgmm.bayes import relabel as module
from bayesgmm.bayes.relabel import relabelling, stephens

METHODS = ("hungarian", "ecr", "stephens")


def shuffled(draws, rng):
    numbers = np.broadcast_to(np.arange(draws.n_components), draws.weights.shape)
    return draws.permute(rng.permuted(numbers, axis=-1))


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(1)
    target = bg.GaussianMixture(
        weights=[0.3, 0.5, 0.2], means=[[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], covariances=[np.eye(2)] * 3
    )
    X, _ = target.sample(150, rng=rng)
    draws = wobbling(target, 2, 100, rng)
    return target, X, draws, shuffled(draws, rng)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", ["em", "map"])
def test_shuffled_draws_are_recovered(case, method, target):
    em, X, draws, mixed = case
    found = bg.relabel(tree_of(mixed, X, em), method, target=target)
    back = bg.as_mixture(found)
    if target == "map":  # numbers of some draw: one permutation leads back for all
        back = back.permute(cheapest_order(divergence(back, em))[0, 0])
    for name in ("weights", "means", "covariances"):
        np.testing.assert_array_equal(getattr(back, name), getattr(draws, name))
    attributes = found.attrs
    assert attributes["relabelling"] == method
    assert attributes["switch_rate"] == pytest.approx(5 / 6, abs=deviation_allowed(5 / 6, 200))
    assert attributes["ambiguous_rate"] == 0
    assert 0 < attributes["margin_min"] < attributes["margin_mean"] < np.inf


@pytest.mark.parametrize("method", METHODS)
def test_relabelling_changes_only_numbers(case, method):
    em, X, _, mixed = case
    tree = tree_of(mixed, X, em, seed=5)
    tree["posterior"]["radius"] = xr.Variable(("component", "draw", "chain"), mixed.means[..., 0].T)
    tree["posterior"]["total"] = xr.Variable(("chain", "draw"), mixed.weights.sum(axis=-1))
    before = tree.copy(deep=True)
    found = bg.relabel(tree, method)
    xr.testing.assert_identical(tree, before)
    for group in ("log_likelihood", "observed_data", "em"):
        xr.testing.assert_identical(found[group], tree[group])
    assert found.attrs["seed"] == 5
    posterior = found["posterior"]
    assert posterior["radius"].dims == ("component", "draw", "chain")
    np.testing.assert_array_equal(posterior["radius"].values.T, posterior["means"].values[..., 0])
    np.testing.assert_array_equal(posterior["total"], tree["posterior"]["total"])
    old, new = bg.as_mixture(tree), bg.as_mixture(found)
    np.testing.assert_allclose(new.log_prob(X), old.log_prob(X), rtol=1e-12)
    together = [np.einsum("cdik,cdjk->ij", m.responsibilities(X), m.responsibilities(X)) for m in (old, new)]
    np.testing.assert_allclose(*together, rtol=1e-12)


def test_stephens_lowers_the_divergence_from_the_mean_to_where_no_permutation_helps(case):
    X = case[1][:40]
    target = random_mixture(np.random.default_rng(3), 3, 2)
    draws = shuffled(wobbling(target, 1, 60, np.random.default_rng(4), size=0.8), np.random.default_rng(5))
    start = np.broadcast_to(np.arange(3), draws.weights.shape)
    passes = list(stephens(draws, X, start))
    assert len(passes) > 2
    np.testing.assert_array_less(np.diff([p.total for p in passes]), 0)
    R = draws.responsibilities(X)[0]  # (S, N, K)

    def against_mean(order):
        P = np.take_along_axis(R, order[0, :, None, :], axis=2)
        return P, np.maximum(P.mean(axis=0), 1e-300)

    for step in passes:
        P, q = against_mean(step.order)
        kl = sum(xlogy(p, p).sum() - (p * np.log(q)).sum() for p in P)  # one draw at a time
        np.testing.assert_allclose(step.total, kl - xlogy(R, R).sum(), rtol=1e-10)
    P, q = against_mean(passes[-1].order)
    for r, p in zip(R, P, strict=True):
        best = min(-(r[:, list(o)] * np.log(q)).sum() for o in permutations(range(3)))
        assert -(p * np.log(q)).sum() <= best + 1e-6


def test_ecr_agrees_with_the_pivot_on_as_many_rows_as_any_permutation(case):
    target, X, *_ = case
    rough = shuffled(wobbling(target, 1, 30, np.random.default_rng(0), size=1.0), np.random.default_rng(1))
    found = relabelling(rough, target, X, "ecr")
    pivot, labels = target.predict(X), rough.predict(X)[0]
    agreements = np.array([[(np.array(o)[z] == pivot).sum() for o in permutations(range(3))] for z in labels])
    np.testing.assert_array_equal((found.mixture.predict(X)[0] == pivot).sum(axis=1), agreements.max(axis=1))
    best, second = np.sort(agreements, axis=1).T[[-1, -2]]
    np.testing.assert_array_equal(found.margin[0], best - second)


def test_blocks_of_rows_change_nothing(case, monkeypatch):
    target, X, _, mixed = case
    whole = [relabelling(mixed, target, X, method) for method in METHODS]
    monkeypatch.setattr(module, "_BLOCK_BYTES", 8 * mixed.weights.size * 7)  # seven rows at a time
    for method, expected in zip(METHODS, whole, strict=True):
        found = relabelling(mixed, target, X, method)
        np.testing.assert_array_equal(found.order, expected.order)
        np.testing.assert_allclose(found.margin, expected.margin, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_rows_without_values_change_nothing(case, method):
    target, X, _, mixed = case
    found, more = (relabelling(mixed, target, rows, method) for rows in (X, np.insert(X, [0, 9], np.nan, axis=0)))
    np.testing.assert_array_equal(more.order, found.order)
    np.testing.assert_allclose(more.margin, found.margin, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_single_component_has_one_number(method):
    X = np.random.default_rng(0).normal(size=(20, 1))
    draws = wobbling(bg.GaussianMixture([1.0], [[0.0]], [[[1.0]]]), 2, 5, np.random.default_rng(1))
    found = bg.relabel(tree_of(draws, X), method, target="map")
    np.testing.assert_array_equal(found["posterior"]["means"], draws.means)
    assert (found.attrs["switch_rate"], found.attrs["margin_min"]) == (0.0, np.inf)


@pytest.mark.parametrize("method", METHODS)
def test_a_symmetric_posterior_gets_the_summary_of_one_of_its_modes(method):
    """Chains that switch between (-2, 2) and (2, -2): every raw mean is near 0, the relabelled ones are not."""
    rng = np.random.default_rng(2)
    target = bg.GaussianMixture([0.5, 0.5], [[-2.0], [2.0]], [[[1.0]], [[1.0]]])
    X, _ = target.sample(60, rng=rng)
    flips = np.cumsum(rng.random((4, 250)) < 0.05, axis=1) % 2
    draws = wobbling(target, 4, 250, rng).permute(np.where(flips[..., None] == 1, [1, 0], [0, 1]))
    assert np.abs(draws.means.mean((0, 1))).max() < 0.5
    found = bg.relabel(tree_of(draws, X, target), method)
    np.testing.assert_allclose(found["posterior"]["means"].mean(("chain", "draw"))[:, 0], [-2, 2], atol=0.02)
    assert found.attrs["switch_rate"] == (flips != flips[:, :1]).mean()


def test_two_equal_components_are_said_to_be_ambiguous():
    rng = np.random.default_rng(3)
    same = bg.GaussianMixture([0.5, 0.5], [[0.0], [0.0]], [[[1.0]], [[1.0]]])
    X = rng.normal(size=(50, 1))
    found = bg.relabel(tree_of(wobbling(same, 2, 200, rng), X, same), "stephens")
    assert found.attrs["ambiguous_rate"] > 0.4
    assert found.attrs["margin_min"] < 0.1


def test_a_prior_that_tells_components_apart_keeps_them(faithful_fit):
    """Not even the few draws here are renumbered."""
    X = table("old_faithful")
    priors = bg.Priors.weakly_informative(X, 2)
    unlike = bg.Priors([1.0, 5.0], priors.means, priors.covariances)
    assert priors.exchangeable
    assert not unlike.exchangeable
    tree = bg.sample_posterior(X, faithful_fit, unlike, draws=50, chains=2, rng=0)
    assert tree.attrs["relabelling"] == "none"
    with pytest.raises(bg.InputError, match="tells the components apart"):
        bg.relabel(tree)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "kmeans"}, "unknown relabelling method 'kmeans'"),
        ({"target": "EM"}, "target is 'em', 'map' or a GaussianMixture"),
        ({"target": "em"}, "has no EM fit"),
        ({"target": bg.GaussianMixture([1.0], [[0.0, 0.0]], [np.eye(2)])}, "target has means of shape"),
        ({"posterior": 3}, "needs a posterior"),
    ],
)
def test_what_cannot_be_relabelled_is_said(case, change, message):
    _, X, draws, _ = case
    with pytest.raises(bg.InputError, match=message):
        bg.relabel(**{"posterior": tree_of(draws, X), "target": "map", **change})


def test_methods_that_need_the_rows_say_so(case):
    target, X, draws, _ = case
    tree = tree_of(draws, X, target)
    del tree["observed_data"]
    bg.relabel(tree)
    with pytest.raises(bg.InputError, match="needs the rows"):
        bg.relabel(tree, "ecr")


def test_draws_in_any_order_are_relabelled_to_the_fit(faithful_fit, faithful_posterior):
    fit, draws = faithful_fit, bg.as_mixture(faithful_posterior)
    rng = np.random.default_rng(0)
    shuffled = draws.permute(rng.permuted(np.broadcast_to(np.arange(2), draws.weights.shape), axis=-1))
    found = relabelling(shuffled, fit.mixture)
    np.testing.assert_array_equal(found.mixture.means, draws.means)
    assert found.labels.switch_rate > 0.3
    assert found.labels.ambiguous_rate == 0


def test_a_posterior_is_relabelled_to_a_posterior(case):
    em, X, draws, mixed = case
    found = bg.relabel(bg.posterior(tree_of(mixed, X, em)))
    np.testing.assert_array_equal(found.draws.means, draws.means)
    assert found.labels.method == "hungarian"


def test_draws_without_chains_or_without_heights_are_refused(case):
    _, X, draws, _ = case
    tree = tree_of(draws, X, draws[0, 0])
    for part in (
        tree.isel(chain=0),
        xr.DataTree.from_dict({"posterior": tree["posterior"].to_dataset().stack(s=("chain", "draw"))}),
    ):
        with pytest.raises(bg.InputError, match="with the dimensions chain and draw, not stacked"):
            bg.relabel(part)
    with pytest.raises(bg.InputError, match="neither lp nor observed_data"):
        bg.relabel(xr.DataTree.from_dict({"posterior": tree["posterior"].to_dataset()}), target="map")


def test_the_most_probable_draw_is_that_of_the_greatest_lp(case):
    em, X, draws, mixed = case
    height = np.zeros((2, 100))
    height[1, 42] = 1.0
    found = bg.relabel(tree_of(mixed, X, em, {"lp": height}), target="map")
    np.testing.assert_array_equal(bg.as_mixture(found).means[1, 42], mixed.means[1, 42])
    np.testing.assert_allclose(np.sort(bg.as_mixture(found).weights), np.sort(draws.weights))
