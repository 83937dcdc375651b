"""Posteriors that many tests look at, drawn once a session. No test changes them: arrays are read-only, the rest is
compared at the end of the session with what it was. And the levels of processor."""

import warnings

import numpy as np
import pytest
from oracles import random_mixture, seed, table, tree_of, wobbling

import bayesgmm as bg
from bayesgmm import native
from bayesgmm.observations import observations


def lent(tree):
    """Lend a tree to tests: its arrays cannot be written, and its attributes must be the same when it comes back."""
    for group in tree.subtree:
        for variable in group.variables.values():
            values = variable.values
            if values.flags.owndata or values.base is not None:
                values.flags.writeable = False
    before = {group.path: (dict(group.attrs), list(group.variables)) for group in tree.subtree}
    yield tree
    after = {group.path: (dict(group.attrs), list(group.variables)) for group in tree.subtree}
    assert after == before, "a test changed a posterior that all tests share; let it make a copy"


def quietly_drawn(X, fit, *arguments, **options):
    """A posterior whose convergence is a matter of luck: tests that need it assert it of their own draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.ConvergenceWarning)
        return bg.sample_posterior(X, fit, *arguments, **options)


@pytest.fixture(scope="session")
def faithful_fit():
    return bg.fit_em(table("old_faithful"), 2, rng=0)


@pytest.fixture(scope="session")
def faithful_posterior(faithful_fit):
    """Four chains of a thousand draws under the default priors."""
    yield from lent(bg.sample_posterior(table("old_faithful"), faithful_fit, rng=seed()))


@pytest.fixture(scope="session")
def laplace_posterior(faithful_fit):
    """Four thousand draws of the normal approximation at the mode."""
    yield from lent(quietly_drawn(table("old_faithful"), faithful_fit, method="laplace", rng=seed()))


@pytest.fixture(scope="session")
def iris_posterior():
    """Two chains of two hundred draws: three components of one covariance, and columns with names."""
    X = bg.datasets.iris()
    yield from lent(quietly_drawn(X, bg.fit_em(X, 3, "tied", rng=0), draws=200, chains=2, rng=seed()))


@pytest.fixture(scope="session")
def galaxies_posterior():
    """Two chains of two hundred draws: three components of one feature."""
    X = table("galaxies")
    yield from lent(quietly_drawn(X, bg.fit_em(X, 3, rng=0), draws=200, chains=2, rng=seed()))


@pytest.fixture(scope="session")
def line_posterior():
    """One feature and one component, with an outlier at 12 sds on either side: table, priors, posterior."""
    X = np.append(np.random.default_rng(3).normal(2.0, 1.0, size=40), [-10.0, 14.0])[:, None]
    priors = bg.Priors(np.ones(1), bg.NormalMeans([0.0], [10.0]), bg.InverseWishart(3.0, [[2.0]]))
    for tree in lent(bg.sample_posterior(X, bg.fit_em(X, 1), priors, draws=500, rng=seed())):
        yield X, priors, tree


@pytest.fixture(scope="session")
def imperfect_posterior():
    """One component of two independent features, with holes, an empty row and errors: table, priors, posterior.

    The last two rows are far out in the first feature, and one of them has no other.
    """
    rng = np.random.default_rng(4)
    X = rng.normal([2.0, -1.0], [1.0, 0.5], size=(42, 2))
    X[40:, 0] = [-10.0, 14.0]
    X[:40][rng.random((40, 2)) < 0.2] = np.nan
    X[3], X[40, 1] = np.nan, np.nan
    rows = observations(X, error_sd=rng.uniform(0.0, 0.6, size=X.shape))
    priors = bg.Priors(np.ones(1), bg.NormalMeans([0.0, 0.0], [10.0, 4.0]), bg.InverseWishart(4.0, np.diag([2.0, 1.0])))
    fit = bg.fit_em(rows, 1, "VVI")
    for tree in lent(bg.sample_posterior(rows, fit, priors, draws=500, chains=8, rng=seed())):
        yield rows, priors, tree


@pytest.fixture(scope="session")
def three_blobs():
    """Three clusters far apart, and made-up draws near them that nothing is wrong with: mixture, rows, posterior."""
    rng = np.random.default_rng(0)
    means = [[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]]
    m = bg.GaussianMixture(weights=[0.4, 0.4, 0.2], means=means, covariances=[np.eye(2)] * 3)
    X = m.sample(100, rng=rng)[0]
    draws = wobbling(m, 4, 400, np.random.default_rng(1), 0.05)
    statistics = {"lp": -300 + rng.normal(size=(4, 400)), "diverging": np.zeros((4, 400), dtype=bool)}
    for tree in lent(tree_of(draws, X, m, statistics, relabelling="hungarian")):
        yield m, X, tree


@pytest.fixture(scope="session")
def overlapping_draws():
    """Draws of an overlapping mixture and rows of it."""
    rng = np.random.default_rng(0)
    one = random_mixture(rng, 3, 2)
    means = one.means + 0.2 * rng.normal(size=(2, 60, 3, 2))
    batch = bg.GaussianMixture(
        np.broadcast_to(one.weights, (2, 60, 3)), means, np.broadcast_to(one.covariances, (2, 60, 3, 2, 2))
    )
    return batch, one.sample(90, rng=1)[0]


@pytest.fixture(params=native.levels())
def level(request):
    """Each level of processor that the compiled core can run on here."""
    before = native.level()
    native.use_level(request.param)
    yield request.param
    native.use_level(before)
