"""Laws of K-fold cross-validation: against quadrature, and folds as they are asked for."""

from dataclasses import fields

import arviz as az
import numpy as np
import pytest
from oracles import errors_allowed, predictive, predictive_of_known, quiet, seed, table

import bayesgmm as bg


@pytest.mark.statistical
def test_kfold_agrees_with_quadrature(line_posterior):
    """Fold by fold."""
    X, priors, _ = line_posterior
    X = X[:40]
    seen = []
    result = bg.kfold(X, 1, priors, n_folds=4, draws=1000, rng=seed(), progress=lambda *stage: seen.append(stage[1:]))
    for fold, rows, elpd, mcse, *_ in result.fold_table.itertuples(index=False):
        held_out = result.folds == fold
        # The rows of a fold are predicted one by one: their sum is not the joint density.
        exact = predictive(X, 1.0 - held_out, priors)[held_out].sum()
        assert rows == held_out.sum()
        assert abs(elpd - exact) < errors_allowed(comparisons=4) * mcse
    assert seen == [(i, 5) for i in range(1, 6)]
    assert result.elpd == pytest.approx(float(result.elpd_i.sum()))
    assert isinstance(result, az.ELPDDataLOOKFold)
    assert result.text in str(result)


@pytest.mark.statistical
def test_known_values_are_predicted_as_quadrature_does(imperfect_posterior):
    rows, priors, _ = imperfect_posterior
    rows = rows.take(np.arange(40))
    X, sd = rows.values, np.sqrt(rows.errors)
    fit = bg.fit_em(X, 1, "VVI", error_sd=sd)
    result = bg.kfold(X, fit, priors, n_folds=4, draws=1000, error_sd=sd, rng=seed())
    for fold, _, elpd, mcse, *_ in result.fold_table.itertuples(index=False):
        held_out = result.folds == fold
        exact = predictive_of_known(rows, 1.0 - held_out, priors)[held_out].sum()
        assert abs(elpd - exact) < errors_allowed(comparisons=4) * mcse
    np.testing.assert_array_equal(result.elpd_i[rows.empty], 0.0)
    others = np.delete(np.asarray(result.elpd_i), rows.empty)
    assert result.se == pytest.approx(np.sqrt(others.size) * others.std(ddof=1))


@pytest.mark.statistical
def test_kfold_names_the_rows_that_are_too_far_out(line_posterior):
    """At 60 sds the log density varies by hundreds of nats; those of the other rows vary by less than one."""
    X, priors, _ = line_posterior
    X = np.append(X[:40], [[60.0]], axis=0)
    with pytest.warns(bg.ConvergenceWarning, match=r"Not to be trusted: 1 row \(40\)"):
        result = bg.kfold(X, 1, priors, n_folds=5, draws=1000, chains=2, rng=seed(1))
    assert result.warning
    assert (result.fold_table["pareto_k"] > 0.7).sum() == 1


@pytest.mark.statistical
def test_kfold_takes_folds_and_spreads_clusters_over_them():
    X = table("old_faithful")
    fit = bg.fit_em(X, 2, rng=0)
    few = {"draws": 100, "tune": 200, "chains": 2}  # two components are better than one by more than a hundred nats
    folds = np.arange(len(X)) % 3
    two, one = (bg.kfold(X, f, folds=folds, rng=seed(), **few) for f in (fit, 1))
    np.testing.assert_array_equal(two.folds, folds)
    assert list(az.compare({"two": two, "one": one}).index) == ["two", "one"]
    stratified = bg.kfold(X, fit, n_folds=5, stratify=True, rng=1, **few)
    counts = np.array([np.bincount(stratified.folds[fit.mixture.predict(X) == k]) for k in range(2)])
    assert np.ptp(counts, axis=1).max() <= 1


def test_impossible_folds_are_refused():
    X = table("old_faithful")
    fit = bg.fit_em(X, 1)
    with pytest.raises(bg.InputError, match="n_folds must be a whole number of at least 2"):
        bg.kfold(X, fit, n_folds=1)
    with pytest.raises(bg.InputError, match="some would be empty"):
        bg.kfold(X, fit, n_folds=1000)
    with pytest.raises(bg.InputError, match="the fold of each row"):
        bg.kfold(X, fit, folds=[0, 1])
    with pytest.raises(bg.InputError, match="all rows are in one"):
        bg.kfold(X, fit, folds=np.zeros(len(X), dtype=int))
    with pytest.raises(bg.InputError, match="n_components"):
        bg.kfold(X, "two")


def test_a_result_has_a_line_for_each_row_and_names_what_is_in_doubt():
    X = table("old_faithful")[::4]
    result = quiet(bg.kfold, X, 1, n_folds=2, draws=50, tune=50, chains=2, rng=0)
    rows = result.to_dataframe()
    assert list(rows) == ["elpd", "p_kfold", "fold", "trusted"]
    np.testing.assert_array_equal(rows["fold"], result.folds)
    assert rows["elpd"].sum() == pytest.approx(result.elpd)
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    doubtful = bg.KFold(**(values | {"disagreeing": (1,), "untrusted": (3, 8)}))
    assert "The chains disagree about the rows of fold 1: draw longer (tune, draws)." in doubtful.text
    assert "Not to be trusted: 2 rows (3, 8), whose density varies too much" in doubtful.text
    assert doubtful.to_dataframe().query("not trusted").index.tolist() == [3, 8]
