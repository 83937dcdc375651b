"""What is said of a posterior: modes, faults of the sampling, components that the data do not support."""

import numpy as np
import pytest
import xarray as xr
from oracles import seed, tree_of, wobbling
from scipy import stats

import bayesgmm as bg
from bayesgmm.bayes.relabel import relabelling

CHAINS, DRAWS = 4, 400
NAMES = ("weights", "means", "covariances")


@pytest.fixture(scope="module")
def three():
    rng = np.random.default_rng(0)
    means = [[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]]
    m = bg.GaussianMixture(weights=[0.4, 0.4, 0.2], means=means, covariances=[np.eye(2)] * 3)
    return m, m.sample(100, rng=rng)[0]


def healthy(**changes):
    """Statistics of a sampler without complaints."""
    rng = np.random.default_rng(7)
    shape = (CHAINS, DRAWS)
    return {
        "diverging": np.zeros(shape, dtype=bool),
        "energy": rng.normal(size=shape),
        "tree_depth": np.full(shape, 3),
        "lp": -300 + rng.normal(size=shape),
    } | changes


def diagnosis(draws, X, em=None, priors=None, **changes):
    known = {} if priors is None else {"prior_values": priors.to_json()}
    return bg.diagnose(tree_of(draws, X, em, healthy(**changes), relabelling="hungarian", **known))


def steady(mixture, seed=1, size=0.05):
    return wobbling(mixture, CHAINS, DRAWS, np.random.default_rng(seed), size)


def join(parts):
    """One batch of draws from several, chains after chains."""
    return bg.GaussianMixture(*(np.concatenate([getattr(p, name) for p in parts]) for name in NAMES))


def test_of_sound_draws_only_good_is_said(three):
    m, X = three
    found = diagnosis(steady(m), X, m)
    assert found.good
    assert found.findings == ()
    assert found.text.startswith("Converged: chains agree (R-hat at most 1.0")
    assert found.text.endswith("no divergences.")


def test_chains_in_another_mode_are_named_with_what_differs(three):
    """Chains 1 and 3 have moved all rows of the second component but one to the first."""
    m, X = three
    far = X[:, 0].argmax()
    other = bg.GaussianMixture(
        weights=[0.79, 0.01, 0.2],
        means=[[3.0, 0.0], X[far], [0.0, 6.0]],
        covariances=[np.diag([10.0, 1.0]), 0.01 * np.eye(2), np.eye(2)],
    )
    here, there = wobbling(m, 2, DRAWS, np.random.default_rng(1), 0.05), np.random.default_rng(2)
    draws = join([here, wobbling(other, 2, DRAWS, there, 0.01)])
    order = [0, 2, 1, 3]
    draws = bg.GaussianMixture(draws.weights[order], draws.means[order], draws.covariances[order])
    lp = healthy()["lp"] - np.array([[0.0], [6.1], [0.0], [6.1]])
    found = diagnosis(draws, X, m, lp=lp)
    assert not found.good
    assert len(found.findings) == 1
    assert str(found.findings[0]).startswith(
        "Chains 1 and 3 sit in another mode than chains 0 and 2 (log posterior lower by 6.1): "
    )
    assert "component 1 holds 0.9 rows instead of 38, component 0 holds 72 rows instead of 35." in str(
        found.findings[0]
    )
    assert found.text.startswith("Not converged. Chains 1 and 3")
    assert found.text.endswith("Try fewer components.")


def test_without_a_log_posterior_the_log_likelihood_tells_the_better_mode(three):
    m, X = three
    moved = bg.GaussianMixture(m.weights, m.means + np.array([1.0, 0.0]), m.covariances)
    parts = [wobbling(m, 1, DRAWS, np.random.default_rng(3), 0.02), wobbling(moved, 3, DRAWS, np.random.default_rng(4))]
    statistics = healthy()
    del statistics["lp"]
    found = bg.diagnose(tree_of(join(parts), X, m, statistics, relabelling="hungarian"))
    assert str(found.findings[0]).startswith(
        "Chains 1, 2 and 3 sit in another mode than chain 0 (log-likelihood lower by"
    )


def test_chains_that_wander_apart_disagree_but_are_no_modes(three):
    m, X = three
    draws = steady(m)
    draws = bg.GaussianMixture(
        draws.weights, draws.means + 0.04 * np.arange(CHAINS)[:, None, None, None], draws.covariances
    )
    found = diagnosis(draws, X, m)
    assert not found.good
    assert str(found.findings[0]).startswith("The chains disagree about means[")
    assert "longer chains" in found.text
    assert "mode" not in found.text


@pytest.mark.parametrize("by", ["chain", "draw"])
def test_draws_that_change_numbers_are_to_be_relabelled_first(three, by):
    m, X = three
    flips = np.random.default_rng(0).random((CHAINS, DRAWS if by == "draw" else 1)) < 0.5
    draws = steady(m).permute(np.where(flips[..., None], [1, 0, 2], [0, 1, 2]))
    tree = tree_of(draws, X, m, healthy())
    found = bg.diagnose(tree)
    assert not found.good
    assert "the components have other labels than in the first" in str(found.findings[0])
    assert "Try bg.relabel(tree)" in found.text
    assert "hard to tell apart" not in found.text
    assert bg.diagnose(bg.relabel(tree)).findings == ()


def test_draws_that_never_move_are_not_called_converged(three):
    m, X = three
    still = wobbling(m, CHAINS, 1, np.random.default_rng(0))
    draws = bg.GaussianMixture(*(np.repeat(getattr(still, name), DRAWS, axis=1) for name in NAMES))
    assert not diagnosis(draws, X, m).good


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"diverging": np.arange(CHAINS * DRAWS).reshape(CHAINS, DRAWS) < 3}, "3 transitions diverged"),
        ({"energy": np.cumsum(np.ones((CHAINS, DRAWS)), axis=1)}, "The energy mixes badly (E-BFMI 0.00)"),
    ],
)
def test_faults_of_the_sampler_are_faults(three, changes, words):
    m, X = three
    found = diagnosis(steady(m), X, m, **changes)
    assert not found.good
    assert str(found.findings[0]).startswith(words)
    assert found.text.endswith("Try a longer tuning (tune).")


def test_long_paths_are_a_note(three):
    m, X = three
    found = diagnosis(steady(m), X, m, tree_depth=np.full((CHAINS, DRAWS), 10))
    assert found.good
    assert "In 100% of the draws" in str(found.findings[0])


def test_an_empty_component_is_a_note(three):
    m, X = three
    spare = bg.GaussianMixture(
        weights=[*(0.996 * m.weights), 0.004],
        means=[*m.means, [40.0, 40.0]],
        covariances=[*m.covariances, np.eye(2)],
    )
    found = diagnosis(steady(spare), X, spare)
    assert found.good
    assert tuple(map(str, found.findings)) == (
        "Component 3 holds less than one row in 100% of the draws: the data hardly call for 4 components.",
    )
    assert found.text.endswith("Consider fewer components.")


def test_a_component_of_one_row_is_named_with_its_row(three):
    m, X = three
    X = np.vstack([X[:60], [[30.0, 30.0]], X[60:]])
    lone = bg.GaussianMixture(
        weights=[*(0.99 * m.weights), 0.01], means=[*m.means, [30.0, 30.0]], covariances=[*m.covariances, np.eye(2)]
    )
    found = diagnosis(steady(lone), X, lone)
    assert found.good
    assert len(found.findings) == 1
    assert str(found.findings[0]).startswith("Component 3 holds only row 60 (counted from 0)")


def test_too_few_rows_for_a_covariance_depend_on_the_model():
    rng = np.random.default_rng(5)
    X = np.vstack([rng.normal(size=(60, 3)), 20 + rng.normal(size=(3, 3))])
    m = bg.GaussianMixture([0.95, 0.05], [[0.0] * 3, [20.0] * 3], [np.eye(3)] * 2)
    tree = tree_of(steady(m), X, m, healthy(), relabelling="hungarian")
    tree["em"].attrs["covariance_model"] = "VVV"
    found = bg.diagnose(tree)
    assert found.good
    assert str(found.findings[0]).startswith("Component 1 holds 3 rows, and 4 are the fewest")
    assert found.text.endswith("Consider a simpler covariance.")
    for model in ("VVI", "EEE"):
        tree["em"].attrs["covariance_model"] = model
        assert bg.diagnose(tree).findings == ()


def test_overlapping_components_are_hard_to_tell_apart(three):
    m, X = three
    split = bg.GaussianMixture(
        weights=[0.2, 0.2, 0.4, 0.2], means=[[-0.3, 0.0], [0.3, 0.0], *m.means[1:]], covariances=[np.eye(2)] * 4
    )
    found = diagnosis(steady(split, size=0.02), X, split)
    assert found.good
    assert tuple(map(str, found.findings)) == (
        "Components 0 and 1 are hard to tell apart: their symmetric divergence is only 0.36 nats.",
    )
    swapped = diagnosis(steady(split, size=0.4), X, split)
    assert "0 and 1 are hard to tell apart: in" in " ".join(map(str, swapped.findings))


def test_what_only_the_prior_knows_is_a_note(three):
    m, X = three
    priors = bg.Priors(np.ones(3), bg.NormalMeans([0.0, 0.0], [0.06, 50.0]), bg.InverseWishart(4, np.eye(2)))
    assert diagnosis(steady(m), X, m).findings == ()
    found = diagnosis(steady(m), X, m, priors)
    assert found.good
    assert len(found.findings) == 3
    assert "the sd of x0 is 0.045" in str(found.findings[0])
    assert "that of its prior 0.06" in str(found.findings[0])


def test_one_component_is_never_advised_to_be_fewer():
    X = np.random.default_rng(0).normal(size=(30, 1))
    m = bg.GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    found = diagnosis(steady(m), X, m, tree_depth=np.full((CHAINS, DRAWS), 10))
    assert found.good
    assert len(found.findings) == 1
    assert "fewer" not in found.text


def test_only_the_draws_are_needed(three):
    m, X = three
    tree = xr.DataTree.from_dict({"posterior": tree_of(steady(m), X)["posterior"].to_dataset()})
    assert bg.diagnose(tree).good


def replaced(tree, **groups):
    """The tree with some of its groups replaced, or left out where they are None."""
    new = {name: group.to_dataset() for name, group in tree.children.items()} | groups
    new = xr.DataTree.from_dict({name: group for name, group in new.items() if group is not None})
    new.attrs = tree.attrs
    return new


def laid_out(three):
    """A tree whose chains are in two modes, with coordinates as `sample_posterior` gives them."""
    m, X = three
    moved = bg.GaussianMixture(m.weights, m.means + np.array([1.0, 0.0]), m.covariances)
    parts = [wobbling(m, 3, DRAWS, np.random.default_rng(3), 0.02), wobbling(moved, 1, DRAWS, np.random.default_rng(4))]
    lp = healthy()["lp"] - np.array([[0.0], [0.0], [0.0], [9.0]])
    tree = tree_of(join(parts), X, m, healthy(lp=lp), relabelling="hungarian")
    coords = {"chain": np.arange(CHAINS), "draw": np.arange(DRAWS), "component": np.arange(3)}
    new = {name: group.to_dataset() for name, group in tree.children.items()}
    return replaced(
        tree, **{n: g.assign_coords({k: v for k, v in coords.items() if k in g.dims}) for n, g in new.items()}
    )


def test_the_order_of_dimensions_does_not_matter(three):
    tree = laid_out(three)
    expected = bg.diagnose(tree)
    assert str(expected.findings[0]).startswith(
        "Chain 3 sits in another mode than chains 0, 1 and 2 (log posterior lower by"
    )
    for order in (("component", "draw", "chain"), ("draw", "chain", "component")):
        turned = tree["posterior"].to_dataset().transpose(*order, ...)
        assert bg.diagnose(replaced(tree, posterior=turned)) == expected
        np.testing.assert_array_equal(bg.as_mixture(replaced(tree, posterior=turned)).means, bg.as_mixture(tree).means)
    statistics = tree["sample_stats"].to_dataset().transpose("draw", "chain")
    assert bg.diagnose(replaced(tree, sample_stats=statistics)) == expected
    assert (
        bg.diagnose(replaced(tree, posterior=tree["posterior"].to_dataset().stack(sample=("chain", "draw"))))
        == expected
    )


def test_some_of_the_draws_are_judged_by_their_own_statistics(three):
    """Whether the posterior alone is cut or the whole tree; without coordinates, statistics of others are left out."""
    tree = laid_out(three)
    posterior = tree["posterior"].to_dataset()
    for some in ({"chain": [1, 3]}, {"draw": slice(50, 300)}, {"chain": [3, 0], "draw": slice(0, None, 2)}):
        whole, alone = bg.diagnose(tree.isel(some)), bg.diagnose(replaced(tree, posterior=posterior.isel(some)))
        assert (whole.convergence, whole.text) == (alone.convergence, alone.text)  # sums may differ in the last digit
        assert "(log posterior lower by 9" in str(whole.findings[0])
        assert "Chain 3" in str(whole.findings[0])
    bare = posterior.isel(chain=[1, 3]).drop_vars("chain")
    other = bg.diagnose(replaced(tree, posterior=bare, log_likelihood=None))
    assert str(other.findings[0]).startswith("Chain 1 sits in another mode than chain 0:")


@pytest.mark.parametrize("chain", [2, [2]])
def test_one_chain_is_judged_without_the_others(three, chain):
    found = bg.diagnose(laid_out(three).isel(chain=chain))
    assert found.good
    assert found.text.startswith("Converged: one chain, so no R-hat")


def test_chains_relabelled_each_in_its_own_way_are_told_apart(three):
    m, X = three
    order = xr.DataArray([[0, 1, 2], [1, 0, 2], [0, 1, 2], [0, 1, 2]], dims=("chain", "component"))
    tree = tree_of(steady(m), X, m, healthy(), relabelling="hungarian")
    found = bg.diagnose(replaced(tree, posterior=tree["posterior"].to_dataset().isel(component=order)))
    assert not found.good
    assert str(found.findings[0]).startswith("Chain 1 sits in another mode than chains 0, 2 and 3")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (None, "needs a posterior"),
        (xr.DataTree.from_dict({"posterior": xr.Dataset({"means": 1.0})}), "has no weights and no covariances"),
        (
            xr.DataTree.from_dict({"posterior": xr.Dataset({n: (("iteration",), [1.0]) for n in NAMES})}),
            "the draws have the dimensions iteration; a posterior has chain and draw",
        ),
    ],
)
def test_what_is_no_posterior_is_refused(tree, message):
    with pytest.raises(bg.InputError, match=message):
        bg.diagnose(tree)


def test_three_draws_are_not_judged(three):
    m, X = three
    found = bg.diagnose(tree_of(wobbling(m, 2, 3, np.random.default_rng(0)), X))
    assert not found.good
    assert found.text.startswith("Not checked")


@pytest.mark.statistical
def test_a_component_too_many_is_found():
    """Of one normal and sparse weights: in most of the draws one component holds nothing, where 5 % would be said."""
    X = stats.norm.ppf((np.arange(12) + 0.5) / 12)[:, None]
    weak = bg.Priors.weakly_informative(X, 2)
    sparse = bg.Priors(0.05, weak.means, weak.covariances)
    tree = bg.sample_posterior(X, bg.fit_em(X, 2, "E", rng=0), sparse, draws=300, rng=seed())
    found = bg.diagnose(tree)
    assert tree.attrs["convergence"].startswith(found.text)
    assert "the data hardly call for 2 components" in found.text
    assert "fewer components" in found.text


@pytest.mark.statistical
def test_posteriors_of_two_fits_are_two_modes():
    """Four clusters for three components: which two share one is a matter of the start."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 40)
    X = rng.normal(size=(160, 2)) + 12 * np.array([[0, 0], [1, 0], [0, 1], [1.3, 1.3]])[labels]
    fits = [bg.fit_em(X, 3, starts=[np.array(s)[labels]]) for s in ([0, 1, 0, 2], [0, 0, 1, 2])]
    trees = [bg.sample_posterior(X, fit, method="laplace", draws=300, chains=2, rng=seed()) for fit in fits]
    draws = relabelling(join([bg.as_mixture(tree) for tree in trees]), fits[0].mixture).mixture
    statistics = {n: np.concatenate([t["sample_stats"][n] for t in trees]) for n in trees[0]["sample_stats"]}
    found = bg.diagnose(tree_of(draws, X, fits[0].mixture, statistics, relabelling="hungarian"))
    lp = statistics["lp"].mean(axis=1).reshape(2, 2).mean(axis=1)
    better = ("0 and 1", "2 and 3") if lp[0] > lp[1] else ("2 and 3", "0 and 1")
    assert str(found.findings[0]).startswith(f"Chains {better[1]} sit in another mode than chains {better[0]}")
    assert f"lower by {abs(lp[0] - lp[1]):.1f}" in str(found.findings[0])


def test_an_approximation_keeps_its_verdict():
    """Its draws are independent, so that chains always agree."""
    X = np.array([-2.1, -1.4, -1.0, -0.2, 0.3, 1.2, 1.9, 2.2])[:, None]
    priors = bg.Priors(1.0, bg.NormalMeans([0.0], [4.3]), bg.InverseWishart(3, [[1.0]]))
    tree = bg.sample_posterior(X, bg.fit_em(X, 2, "V", priors=priors), priors, method="laplace", rng=0)
    found = bg.diagnose(tree)
    assert found.convergence is bg.posterior(tree).verdict.convergence
    assert found.text.startswith(tree.attrs["convergence"])
    assert "chains" not in found.text
