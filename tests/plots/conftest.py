"""Pictures that most tests look at, drawn once; no test changes them."""

from typing import Any, NamedTuple

import pytest
from pictures import CASES, drawings, few_draws, table

import bayesgmm as bg


class Drawn(NamedTuple):
    X: Any
    fit: bg.EMFit
    tree: Any
    pictures: dict


@pytest.fixture(scope="session", params=CASES.values(), ids=CASES)
def drawn(request):
    """A table, its fit, their posterior, and every picture of them."""
    name, K, covariance = request.param
    X = table(name)
    fit = bg.fit_em(X, K, covariance, n_starts=4, rng=0)
    tree = few_draws(X, fit)
    return Drawn(X, fit, tree, {name: draw() for name, draw in drawings(X, fit, tree).items()})


@pytest.fixture
def clustered(drawn):
    """The same, of more than one component."""
    if drawn.fit.n_components == 1:
        pytest.skip("one component has no other")
    return drawn


@pytest.fixture(scope="session")
def faithful():
    X = table("old_faithful")
    fit = bg.fit_em(X, 2, rng=0)
    return X, fit, few_draws(X, fit)


@pytest.fixture(scope="session", params=[1, 2, 4], ids="D={}".format)
def selected(request):
    """A table of one, two or four features, and what `select` says of a few mixtures of it with their posteriors."""
    X = table("iris").iloc[:, : request.param]
    sampling = {"draws": 100, "tune": 100, "chains": 2}
    criteria = ("bic", "loo")
    return X, bg.select(X, (1, 2), ("EEE", "VVI"), criteria, n_starts=4, n_replicates=0, sampling=sampling, rng=0)
