"""A fit as arrays, and back."""

import warnings
from dataclasses import fields, replace

import numpy as np
import pytest

import bayesgmm as bg
from bayesgmm.em.record import fit_from_arrays, fit_to_arrays

MIXTURE = ("weights", "means", "covariances", "precisions_cholesky")


def same(a, b):
    for name in MIXTURE:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.features == b.features


@pytest.fixture(params=["plain", "array", "labels and fixed", "priors", "spurious"])
def fit(request):
    """Fits of every kind."""
    X = bg.datasets.iris()
    if request.param == "plain":
        return bg.fit_em(X, 3, "VEV", rng=0)
    if request.param == "array":
        return bg.fit_em(X.to_numpy(), 2, "tied", rng=0)
    if request.param == "labels and fixed":
        labels = np.r_[0, 1, np.full(148, -1)]
        return bg.fit_em(X, 2, labels=labels, fixed={"weights": [0.5, 0.5]}, rng=0)
    if request.param == "priors":
        return bg.fit_em(X, 3, priors=bg.Priors.weakly_informative(X.to_numpy(), 3), rng=0)
    rng = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.ConvergenceWarning)
        X = np.concatenate([rng.normal(size=(40, 2)), np.full((3, 2), 9.0) + 1e-6 * rng.normal(size=(3, 2))])
        fit = bg.fit_em(X, 2, rng=0)
    assert any(maximum.spurious and maximum.detail for maximum in fit.maxima)
    return fit


def test_a_fit_comes_back_from_its_arrays_as_it_was(fit):
    back = fit_from_arrays(fit_to_arrays(fit))
    same(back.mixture, fit.mixture)
    for ours, its in zip(back.maxima, fit.maxima, strict=True):
        assert (ours.mixture is None) == (its.mixture is None)
        if its.mixture is not None:
            same(ours.mixture, its.mixture)
    np.testing.assert_array_equal(back.log_likelihood_path, fit.log_likelihood_path)
    assert not back.log_likelihood_path.flags.writeable
    for field in fields(fit):
        if field.name not in ("mixture", "log_likelihood_path"):
            assert getattr(back, field.name) == getattr(fit, field.name), field.name
    assert (back.bic, back.icl, back.spurious, back.doubts) == (fit.bic, fit.icl, fit.spurious, fit.doubts)


def test_maxima_without_parameters_stay_without(fit):
    bare = replace(fit, maxima=tuple(replace(m, mixture=None) if i % 2 else m for i, m in enumerate(fit.maxima)))
    back = fit_from_arrays(fit_to_arrays(bare))
    assert [m.mixture is None for m in back.maxima] == [m.mixture is None for m in bare.maxima]
