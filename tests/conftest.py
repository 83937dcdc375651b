"""The posterior that most tests look at, drawn once; no test changes it."""

import pytest
from oracles import seed, table

import bayesgmm as bg


@pytest.fixture(scope="session")
def faithful_fit():
    return bg.fit_em(table("old_faithful"), 2, rng=0)


@pytest.fixture(scope="session")
def faithful_posterior(faithful_fit):
    """Four chains of a thousand draws under the default priors."""
    return bg.sample_posterior(table("old_faithful"), faithful_fit, rng=seed())
