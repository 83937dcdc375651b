"""Laws of the bootstrap of an EM fit, and of the test of K components against K + 1."""

import numpy as np
import pytest
from oracles import reference, table

import bayesgmm as bg


def test_diabetes_bootstrap_is_mclusts():
    """mclust's 999 replicates, to 15 %."""
    X, theirs = table("diabetes_fixed"), reference("diabetes_bootstrap.json")["bootstrap_se"]
    ours = bg.bootstrap(X, bg.fit_em(X, 3, rng=0), rng=0)
    assert ours.mixture.batch_shape == (999 - ours.n_collapsed,)
    np.testing.assert_allclose(ours.standard_errors().weights, theirs["weights"], rtol=0.15)
    np.testing.assert_allclose(ours.standard_errors().means, theirs["means"], rtol=0.15)


@pytest.mark.parametrize("method", ["nonparametric", "weighted", "parametric"])
def test_every_method_estimates_the_same_error(method):
    """Of the means of Old Faithful, to 15 % of the information's."""
    X = table("old_faithful")
    fit = bg.fit_em(X, 2, rng=0)
    calls = []
    result = bg.bootstrap(X, fit, method=method, n_replicates=400, rng=1, progress=lambda *a: calls.append(a))
    np.testing.assert_allclose(result.standard_errors().means, fit.standard_errors(X).means, rtol=0.15)
    lower, upper = result.intervals()["means"]
    assert ((lower < fit.mixture.means) & (fit.mixture.means < upper)).all()
    assert calls[-1] == ("bootstrap replicates", 400, 400)


def test_likelihood_ratio_test_finds_two_eruption_types():
    X = table("old_faithful")
    test = bg.bootstrap_lrt(X, 1, n_replicates=39, rng=0)
    gain = bg.fit_em(X, 2, rng=0).log_likelihood - bg.fit_em(X, 1).log_likelihood
    assert test.statistic == pytest.approx(2 * gain, abs=1e-3)
    assert test.p_value == pytest.approx(1 / 40)
    np.testing.assert_array_less(0, test.replicates)


def test_p_values_of_a_single_normal_are_uniform():
    """Their mean over 20 tables, to three standard errors of a uniform variable's."""
    rng = np.random.default_rng(5)
    p = [
        bg.bootstrap_lrt(rng.normal(size=(60, 2)), 1, "tied", n_replicates=19, n_starts=6, rng=rng).p_value
        for _ in range(20)
    ]
    assert abs(np.mean(p) - 0.525) < 3 / np.sqrt(12 * 20)


def test_intervals_have_arviz_level_by_default():
    X = table("old_faithful")
    refits = bg.bootstrap(X, bg.fit_em(X, 2, rng=0), n_replicates=100, rng=0)
    for name, interval in refits.intervals().items():
        expected = np.quantile(getattr(refits.mixture, name), [0.055, 0.945], axis=0)
        np.testing.assert_allclose(interval, expected, rtol=1e-9)
    with pytest.raises(bg.InputError, match="ci_prob must be between 0 and 1, not 89"):
        refits.intervals(89)


def test_progress_of_the_likelihood_ratio_test_counts_its_replicates():
    calls = []
    bg.bootstrap_lrt(
        table("old_faithful"), 1, n_replicates=3, n_starts=2, rng=0, progress=lambda *call: calls.append(call)
    )
    assert calls == [("likelihood-ratio replicates", done, 3) for done in (1, 2, 3)]


def test_what_cannot_be_bootstrapped_is_refused():
    X = table("old_faithful")
    fit = bg.fit_em(X, 2, rng=0)
    with pytest.raises(bg.InputError, match="unknown method"):
        bg.bootstrap(X, fit, method="jackknife")
    with pytest.raises(bg.InputError, match="100 rows, the fit 272"):
        bg.bootstrap(X[:100], fit)
    with pytest.raises(bg.InputError, match="needs the fit that fit_em returned, not ndarray"):
        bg.bootstrap(fit, X)


@pytest.mark.parametrize("constraint", [{"labels": np.full(272, -1)}, {"fixed": {"weights": [0.5, 0.5]}}])
@pytest.mark.parametrize(
    "use",
    [lambda X, fit: fit.standard_errors(X), bg.bootstrap, bg.sample_posterior],
    ids=["standard_errors", "bootstrap", "sample_posterior"],
)
def test_a_fit_under_constraints_is_refused_where_they_are_not_taken_account_of(use, constraint):
    X = table("old_faithful")
    constrained = bg.fit_em(X, 2, rng=0, **constraint)
    assert constrained.constraints == tuple(constraint)
    with pytest.raises(bg.InputError, match="cannot take account of"):
        use(X, constrained)
