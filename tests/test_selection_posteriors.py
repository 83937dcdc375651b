"""Selections with posteriors: LOO, stacking, evidence, overfitted mixtures, and what became of each posterior."""

import numpy as np
import pytest
from oracles import seed, table

import bayesgmm as bg

FEW = {"sampling": {"draws": 100, "tune": 100, "chains": 2}, "n_replicates": 0, "n_starts": 4, "rng": 0}


def test_loo_and_stacking_come_with_posteriors():
    chosen = bg.select(table("old_faithful"), (1, 2, 3), ("tied", "VVE"), ("bic", "loo"), **(FEW | {"n_starts": 20}))
    drawn = chosen.table.dropna(subset="elpd_loo")
    assert 3 <= len(drawn) <= 5
    assert len(drawn) == len(chosen.posteriors) == len(chosen.posterior_states)
    assert drawn["weight"].sum() == pytest.approx(1.0)
    assert ("EEE", 3) in chosen.posteriors
    assert {name for name, _ in chosen.posteriors} == {"EEE", "VVE"}
    assert not chosen.table["posterior"].str.startswith("none: ").any()
    assert "LOO (" in chosen.text
    elpd = drawn.set_index(["covariance", "n_components"])["elpd_loo"]
    for key, densities in chosen.densities["loo"].items():
        assert elpd[key] == pytest.approx(densities.sum())


@pytest.fixture(scope="module")
def with_posteriors():
    options = {"sampling": {"draws": 250, "tune": 250}, "n_replicates": 0, "overfitted": True, "rng": seed()}
    X = table("old_faithful")
    return X, bg.select(X, range(1, 4), ("VVV", "EEE", "EEV"), ("bic", "loo", "evidence"), **options)


@pytest.mark.statistical
def test_columns_from_posteriors_are_those_of_their_functions(with_posteriors):
    _, selection = with_posteriors
    key = ("VVV", 2)
    row = selection.table.set_index(["covariance", "n_components"]).loc[key]
    assert row["elpd_loo"] == selection.loos[key].elpd
    assert row["pareto_k_max"] == selection.loos[key].pareto_k.max()
    assert row["log_evidence"] == selection.evidences[key].value
    again = bg.log_evidence(selection.posteriors[key], rng=seed(5))
    assert abs(row["log_evidence"] - again.value) < 0.2  # with errors of 0.02
    assert row["filled_components"] == 2
    assert "Pareto k" in row["loo_repairs"]


def test_a_fit_without_posterior_is_named():
    options = {"posterior": "all", "sampling": {"method": "variational"}, "n_replicates": 0, "rng": 0}
    selection = bg.select(table("old_faithful"), 2, ("VVV", "EEV"), "bic", **options)
    said = selection.table.set_index("covariance")["posterior"]
    assert said["EEV"].startswith("none: the variational approximation is there for")
    assert list(selection.posteriors) == [("VVV", 2)]
    assert selection.posterior_states["EEV", 2].no_draws.startswith("the variational approximation is there for")
    assert selection.posterior_states["VVV", 2].verdict.good
    assert "There is no posterior of EEV" in selection.text
    assert "did not converge" not in selection.text


def test_an_evidence_that_fails_is_a_note_and_not_the_end(monkeypatch):
    from bayesgmm.bayes import evidence

    estimate = evidence.log_evidence

    def fails(drawn, *options, **settings):
        if drawn.n_components == 2:
            raise bg.DegenerateFitError("all 10 starts collapsed")
        return estimate(drawn, *options, **settings)

    monkeypatch.setattr(evidence, "log_evidence", fails)
    chosen = bg.select(table("old_faithful"), (1, 2), "full", ("bic", "evidence"), **FEW)
    said = chosen.table.set_index("n_components")
    assert np.isnan(said.loc[2, "log_evidence"])
    assert np.isfinite(said.loc[1, "log_evidence"])
    assert "No evidence: all 10 starts collapsed" in said.loc[2, "posterior"]
    assert "There is no evidence of K=2;" in chosen.text
    assert chosen.posterior_states["VVV", 2].no_evidence == "all 10 starts collapsed"
    assert not chosen.posterior_states["VVV", 1].no_evidence
    assert chosen.best("evidence").n_components == 1
    assert "the only one with a posterior" in chosen.text
    with pytest.raises(bg.InputError, match="no evidence of any fit"):
        bg.select(table("old_faithful"), 2, "full", ("bic", "evidence"), **FEW)


def test_at_least_three_fits_are_compared_where_there_are_so_many():
    X = table("iris")
    chosen = bg.select(X, (2, 3), ("VEV", "EEE"), ("bic", "loo"), **FEW)
    assert chosen.best("bic").covariance_model.name == "VEV"
    assert len(chosen.posteriors) == 3
    assert {("VEV", 2), ("VEV", 3)} <= set(chosen.posteriors)


def test_posterior_of_the_number_of_components_follows_the_prior(with_posteriors):
    _, selection = with_posteriors
    p = selection.probabilities()
    sizes = [K for _, K in selection.evidences]
    values = np.array([e.value - np.log(sizes.count(K)) for (_, K), e in selection.evidences.items()])
    np.testing.assert_allclose(p, np.exp(values - np.logaddexp.reduce(values)))
    sure = selection.probabilities({2: 1.0, 3: 0.0})
    by_size = sure.groupby("n_components").sum()
    assert by_size[2] == pytest.approx(1)
    assert by_size[3] == 0
    with pytest.raises(bg.InputError, match="K=2, K=3"):
        selection.probabilities({2: 1.0})


def test_averaged_density_is_a_density_between_those_averaged(with_posteriors):
    X, selection = with_posteriors
    each = []
    for tree in selection.posteriors.values():
        lines = bg.as_mixture(tree).log_prob(X[:5]).reshape(-1, 5)
        each.append(np.logaddexp.reduce(lines, axis=0) - np.log(len(lines)))
    log_prob = selection.log_prob(X[:5])
    one = np.linspace(0.0, 7.0, 701)[:, None]
    assert np.trapezoid(np.exp(selection.log_prob(one, features=[0])), one[:, 0]) == pytest.approx(1, abs=1e-3)
    np.testing.assert_array_less(np.min(each, axis=0) - 1e-9, log_prob)
    np.testing.assert_array_less(log_prob, np.max(each, axis=0) + 1e-9)


@pytest.mark.statistical
def test_too_many_components_with_sparse_weights_stay_empty(with_posteriors):
    _, selection = with_posteriors
    said = selection.overfitted
    assert said.n_components == 10
    assert said.probabilities.sum() == pytest.approx(1)
    # A hundred nats speak against a single component; the chain that starts there may take long to leave.
    np.testing.assert_array_less(1, said.filled[:-1])
    assert "sparse weights" in selection.text


LAPLACE = {"posterior": "contenders", "sampling": {"method": "laplace"}, "n_replicates": 0, "rng": 0}


def test_approximations_are_not_called_chains_that_did_not_converge():
    """Whichever are good: the text names those that are not, and them alone."""
    selection = bg.select(table("old_faithful"), (2, 3, 4), criteria="bic", **LAPLACE)
    verdicts = {K: state.verdict.convergence for (_, K), state in selection.posterior_states.items()}
    assert set(verdicts.values()) <= {bg.Convergence.APPROXIMATION_GOOD, bg.Convergence.APPROXIMATION_POOR}
    assert "chains" not in selection.text
    named = [line for line in selection.text.splitlines() if line.startswith("The approximation is not to be trusted")]
    assert len(named) == (bg.Convergence.APPROXIMATION_POOR in verdicts.values())
    for K, verdict in verdicts.items():
        assert (f"K={K}" in " ".join(named)) == (not verdict.good), (K, verdict, named)


def test_the_evidence_of_normal_approximations_is_laplaces():
    X = table("old_faithful")
    selection = bg.select(X, (1, 2), criteria=("bic", "evidence"), **LAPLACE)
    assert {evidence.method for evidence in selection.evidences.values()} == {"laplace"}
    assert selection.best("evidence").n_components == 2
    line = next(line for line in selection.text.splitlines() if line.startswith("The evidence"))
    assert line.endswith("nats behind.")
    assert "nan" not in line
    assert list(selection.posterior_states) == [("VVV", 1), ("VVV", 2)]
    with pytest.raises(bg.InputError, match="LOO needs draws of the posterior"):
        bg.select(X, 2, criteria=("bic", "loo"), **LAPLACE)


def test_weights_of_rows_are_refused_before_anything_is_fitted():
    X, seen = table("old_faithful"), []
    for options in ({"criteria": "loo"}, {"posterior": "all"}, {"overfitted": True}):
        with pytest.raises(bg.InputError, match="sample_weight"):
            bg.select(X, 2, sample_weight=np.ones(len(X)), progress=lambda *a: seen.append(a), **options)
    assert not seen
