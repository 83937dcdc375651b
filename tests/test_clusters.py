"""Laws of assignments and of the comparison of EM with the posterior."""

import numpy as np
import pandas as pd
import pytest
from oracles import random_mixture, table

import bayesgmm as bg
from bayesgmm.clusters import rows_under_draws as rows_module


@pytest.fixture(scope="module")
def fitted(faithful_fit, faithful_posterior):
    return table("old_faithful"), faithful_fit, faithful_posterior


@pytest.mark.parametrize("K", [1, 2, 3])
def test_assignments_equal_the_direct_computation_over_all_draws(monkeypatch, K):
    rng = np.random.default_rng(0)
    draws, X = random_mixture(rng, K, 2, batch=(2, 15)), rng.normal(size=(23, 2)) * 2
    monkeypatch.setattr(rows_module, "_BLOCK_BYTES", 8 * 30 * 3 * 5)  # four rows at a time
    a = bg.assign(draws, X, ci_prob=0.8)
    R = draws.responsibilities(X).reshape(30, 23, K)
    p = R.mean(axis=0)
    np.testing.assert_allclose(a.probabilities, p, rtol=1e-12)
    np.testing.assert_allclose(a.lower, np.quantile(R, 0.1, axis=0), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(a.upper, np.quantile(R, 0.9, axis=0), rtol=1e-10, atol=1e-15)
    np.testing.assert_array_equal(a.labels, p.argmax(axis=1))
    entropy = -(p * np.log(p)).sum(axis=1)
    np.testing.assert_allclose(a.entropy, entropy, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(a.mutual_information, entropy + (R * np.log(R)).sum(axis=2).mean(axis=0), atol=1e-12)


def test_doubt_of_a_single_draw_is_all_overlap():
    rng = np.random.default_rng(1)
    m, X = random_mixture(rng, 2, 2, batch=(1,)), rng.normal(size=(10, 2))
    a = bg.assign(m, X)
    np.testing.assert_allclose(a.mutual_information, 0, atol=1e-12)
    np.testing.assert_allclose(a.lower, a.upper)


def test_training_rows_are_the_default(fitted):
    X, _, tree = fitted
    own, given = bg.assign(tree), bg.assign(tree, X)
    np.testing.assert_array_equal(own.probabilities, given.probabilities)
    assert ((own.lower <= own.upper) & (own.probabilities >= 0)).all()
    np.testing.assert_allclose(own.probabilities.sum(axis=1), 1)
    assert (own.mutual_information <= own.entropy + 1e-12).all()


def test_rows_with_other_columns_are_refused(fitted):
    X, fit, tree = fitted
    names = ["eruptions", "waiting"]
    named = bg.GaussianMixture(fit.mixture.weights, fit.mixture.means, fit.mixture.covariances, names)[None]
    assert len(bg.assign(named, pd.DataFrame(X, columns=names)).labels) == len(X)
    with pytest.raises(bg.InputError, match="in another order"):
        bg.assign(named, pd.DataFrame(X[:, ::-1], columns=names[::-1]))
    with pytest.raises(bg.InputError, match="ci_prob"):
        bg.assign(tree, X, ci_prob=89)
    with pytest.raises(bg.InputError, match="give the rows"):
        bg.assign(bg.as_mixture(tree))


def test_the_table_of_parameters_lists_each_once(fitted):
    _, fit, tree = fitted
    c = bg.parameter_table(tree)
    assert len(c) == 2 + 4 + 2 * 3
    assert not c.duplicated(["parameter", "component", "feature", "feature_bis"]).any()
    assert ((c["lower"] < c["mean"]) & (c["mean"] < c["upper"])).all()
    np.testing.assert_allclose(c["shift"], (c["mean"] - c["em"]) / c["sd"])
    mean = tree["posterior"]["means"].mean(("chain", "draw")).values
    np.testing.assert_allclose(c[c.parameter == "means"]["mean"], mean.ravel())
    np.testing.assert_allclose(c[c.parameter == "weights"]["em"], fit.mixture.weights)


def test_the_table_of_parameters_needs_the_fit(fitted):
    with pytest.raises(bg.InputError, match="needs a posterior with its EM fit"):
        bg.parameter_table(bg.as_mixture(fitted[2]))
