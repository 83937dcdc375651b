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
