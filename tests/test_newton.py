"""A climb steered by a sample's curvature ends where EM does, after few passes."""

import numpy as np
import pytest

import bayesgmm as bg
from bayesgmm.covariance import NAMES, CovarianceModel
from bayesgmm.em.newton import _Moments, steered_climb
from bayesgmm.expectation import NO_LABELS, Rows
from bayesgmm.observations import observations
from bayesgmm.passes import InMemory, answer


class Counted:
    """Passes that count themselves."""

    def __init__(self, X, center):
        self.n, self.passes = 0, InMemory(Rows(X, np.ones(1), NO_LABELS, center))

    def totals(self, requests):
        self.n += 1
        return self.passes.totals(requests)


@pytest.fixture(scope="module")
def overlapping():
    rng = np.random.default_rng(0)
    means, label = np.array([[0.0, 0.0], [3.5, 0.0], [0.0, 3.0]]), rng.integers(3, size=40_000)
    stretched = np.array([[[1.0, 0.5], [0.5, 1.0]], [[1.3, 0.2], [0.2, 0.6]], [[0.6, -0.3], [-0.3, 1.2]]])
    return means[label] + np.einsum("nij,nj->ni", stretched[label], rng.normal(size=(40_000, 2)))


@pytest.mark.parametrize("covariance", NAMES)
def test_it_ends_at_the_maximum_in_fewer_passes_than_em(overlapping, covariance):
    X, sample = overlapping, observations(overlapping[::8])
    model, start = CovarianceModel.named(covariance), bg.fit_em(sample, 3, covariance, rng=0, n_starts=4)
    whole = bg.fit_em(X, 3, covariance, starts=[start.mixture], tolerance=1e-9, rng=0)
    passes = Counted(X, X.mean(axis=0))
    mixture = answer(passes, steered_climb(len(X), X.mean(axis=0), start.mixture, model, sample, 1e-3, 30))
    assert mixture.log_likelihood(X) > whole.log_likelihood - 2e-3
    assert passes.n <= 12
    assert passes.n < whole.n_iterations


def test_it_goes_nowhere_from_where_nothing_is_to_gain(overlapping):
    table = observations(overlapping[:5000])
    fit = bg.fit_em(table, 3, rng=0, n_starts=4, tolerance=1e-8)
    passes = Counted(table.values, fit.mixture.mean)
    steered = steered_climb(5000, fit.mixture.mean, fit.mixture, fit.covariance_model, table, 1e-3, 30)
    mixture = answer(passes, steered)
    assert passes.n == 1
    np.testing.assert_allclose(mixture.means, fit.mixture.means, rtol=1e-12)


def thin(X):
    """The same rows along other axes, in one of which they are thin."""
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    return X @ turn @ np.diag([1.0, 1e-3]) @ turn.T


def test_few_passes_are_taken_where_components_are_thin_too(overlapping):
    """Beside a thin component the others would seem to be known badly, were all bends measured by its own."""
    counts = []
    for X in (overlapping, np.where(overlapping[:, :1] > 1.5, overlapping, thin(overlapping) - 20.0)):
        sample = observations(X[::8])
        start = bg.fit_em(sample, 3, rng=0, n_starts=8)
        passes = Counted(X, X.mean(axis=0))
        model = start.covariance_model
        answer(passes, steered_climb(len(X), X.mean(axis=0), start.mixture, model, sample, 1e-3, 30))
        counts.append(passes.n)
    assert max(counts) <= 12, counts  # thirty, the most that are allowed, without units of each component's own


@pytest.mark.parametrize("covariance", ["VVV", "EEE"])
def test_moments_of_a_mixture_are_linear_in_the_coordinates(covariance):
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(3, 2, 2))
    S = roots @ roots.swapaxes(1, 2) + np.eye(2)
    if covariance == "EEE":
        S = np.repeat(S[:1], 3, axis=0)
    at = bg.GaussianMixture(np.array([0.2, 0.3, 0.5]), rng.normal(size=(3, 2)), S)
    coordinates = _Moments(at, CovarianceModel.named(covariance))

    def moments(v):
        there = coordinates.free.mixture(coordinates.parameters(v))
        return np.concatenate((there.mean, (there.covariance + np.outer(there.mean, there.mean)).ravel()))

    v = 0.05 * rng.normal(size=coordinates.free.size)
    assert np.abs(coordinates.parameters(v) - v).max() > 1e-4
    np.testing.assert_allclose(moments(v) - moments(-v), 2 * (moments(v) - moments(0 * v)), atol=1e-12)
