"""Laws of the table that has EM beside the posterior."""

import numpy as np
import pytest
from oracles import table

import bayesgmm as bg


@pytest.fixture(scope="module")
def fitted(faithful_fit, faithful_posterior):
    return table("old_faithful"), faithful_fit, faithful_posterior


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


def test_a_shared_diagonal_covariance_is_listed_on_its_diagonal(galaxies_posterior, iris_posterior):
    X = bg.datasets.iris()
    tree = bg.sample_posterior(X, bg.fit_em(X, 2, "diag", rng=0), method="laplace", draws=100, chains=2, rng=0)
    listed = bg.parameter_table(tree).query("parameter == 'covariances'")
    assert (listed["feature"] == listed["feature_bis"]).all()
    assert len(listed) == 2 * 4
    assert len(bg.parameter_table(iris_posterior)) == 3 + 3 * 4 + 3 * 10
    one = bg.parameter_table(galaxies_posterior)
    assert one["parameter"].tolist() == ["weights"] * 3 + ["means"] * 3 + ["covariances"] * 3
    assert set(bg.parameter_table(iris_posterior)["feature"].dropna()) == set(X.columns)


def test_intervals_are_equal_tailed_with_the_level_asked_for(galaxies_posterior):
    draws = bg.as_mixture(galaxies_posterior)
    for ci_prob in (None, 0.5):
        rows = bg.parameter_table(galaxies_posterior, ci_prob=ci_prob)
        ends = np.quantile(draws.weights, [0.055, 0.945] if ci_prob is None else [0.25, 0.75], axis=(0, 1))
        np.testing.assert_allclose(rows[["lower", "upper"]].to_numpy()[:3].T, ends)


def test_one_chain_has_no_r_hat_and_a_fixed_weight_no_shift():
    X = table("galaxies")
    tree = bg.sample_posterior(X, bg.fit_em(X, 1), method="laplace", draws=100, chains=1, rng=0)
    rows = bg.parameter_table(tree)
    assert rows["r_hat"].isna().all()
    weight = rows[rows["parameter"] == "weights"].iloc[0]
    assert (weight["mean"], weight["sd"], weight["shift"]) == (1.0, 0.0, 0.0)
