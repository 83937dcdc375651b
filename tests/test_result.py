"""Laws of what a fit says of itself: criteria, local maxima and doubts."""

import warnings

import numpy as np
import pytest
from oracles import mclusts_mixture, reference, table

import bayesgmm as bg
from bayesgmm.em.result import fitted_table


def test_icl_is_bic_and_twice_the_hard_labels_doubt():
    X = table("iris")
    fit = bg.fit_em(X, 3, rng=0)
    R = fit.mixture.responsibilities(X)
    assert fit.icl == pytest.approx(fit.bic - 2 * np.log(R.max(axis=1)).sum(), rel=1e-9)
    assert fit.aic == pytest.approx(-2 * fit.log_likelihood + 2 * fit.n_parameters)


def test_the_repr_says_what_was_found():
    text = repr(bg.fit_em(table("iris"), 2, rng=0))
    assert "VVV, K=2" in text
    assert "bic=574.02" in text
    assert "converged" in text


def test_local_maxima_are_listed_and_spurious_ones_passed_over():
    X = table("iris")
    fit = bg.fit_em(X, 5, rng=0)
    values = [m.log_likelihood for m in fit.maxima]
    assert values == sorted(values, reverse=True)
    converged = [s for s in fit.starts if s.status is bg.Status.CONVERGED]
    assert sum(m.hits for m in fit.maxima) == len(converged)
    best = next(m for m in fit.maxima if not m.spurious)
    assert best.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-3)


def test_only_spurious_maxima_are_a_warning():
    rng = np.random.default_rng(0)
    X = np.r_[rng.normal(size=(30, 2)), rng.normal(size=(3, 2)) * 0.01 + 20]
    with pytest.warns(bg.ConvergenceWarning, match="every maximum found is spurious: component 1"):
        bg.fit_em(X, 2, labels=np.r_[np.zeros(30, int), np.ones(3, int)])


def doubted(X, K, covariance="full", **arguments):
    """A fit and its doubts, which must have been warned of."""
    with pytest.warns(bg.ConvergenceWarning) as caught:
        fit = bg.fit_em(X, K, covariance, rng=0, **arguments)
    assert [str(warning.message) for warning in caught] == ["; ".join(fit.doubts)]
    return fit


def test_a_single_row_far_out_is_no_component():
    X = np.r_[np.random.default_rng(0).normal(size=(200, 2)), [[1e6, 1e6]]]
    for fit in (doubted(X, 2, "tied"), doubted(X, 2, priors=bg.Priors.weakly_informative(X, 2))):
        k = fit.mixture.weights.argmin()
        assert any(doubt.startswith(f"component {k} holds 1.0 effective rows") for doubt in fit.doubts)


@pytest.mark.parametrize("K", [2, 3])
def test_heavy_tails_are_a_doubt(K):
    X = np.random.default_rng(1).standard_cauchy((200, 2))
    assert any("times as wide as any other in 'x" in doubt for doubt in doubted(X, K).doubts)


@pytest.mark.parametrize("name", ["iris", "faithful", "diabetes_fixed", "acidity"])
def test_mclusts_published_maxima_are_not_doubted(name):
    """But where a component holds a single row, as some of acidity's do."""
    X = table("old_faithful" if name == "faithful" else name)
    for key, row in reference(f"{name}.json")["converged"].items():
        covariance, K = key.split(",")
        start = mclusts_mixture(row, X.shape[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bg.ConvergenceWarning)
            fit = bg.fit_em(X, int(K), covariance, starts=[start], rng=0)
        if fit.spurious:  # nine components in fifty rows
            continue
        assert bool(fit.doubts) == bool(int(K) > 1 and min(row["weights"]) * len(X) < 1.5), key


def test_the_table_of_a_fit_is_known_again_however_it_was_made():
    """In any order of rows, weighted, far from the origin, under priors, with rows of weight 0."""
    X = table("old_faithful")
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 3, size=len(X)).astype(float)
    for shift in (0.0, 1e6):
        for priors in (None, bg.Priors.weakly_informative(X + shift, 2)):
            for w in (None, weight):
                fit = bg.fit_em(X + shift, 2, sample_weight=w, priors=priors, rng=0)
                order = rng.permutation(len(X))
                same = fitted_table(fit, (X + shift)[order], None if w is None else w[order], (), "this")
                np.testing.assert_array_equal(same.values, (X + shift)[order])
                with pytest.raises(bg.InputError, match="another table"):
                    fitted_table(fit, X + shift + np.array([0.1, 0.0]), w, (), "this")
