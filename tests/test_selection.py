"""Choosing among fits: choices that others published, how sure the answers are, and what is refused."""

import copy
import pickle
import warnings
from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest
from oracles import reference, seed, table

import bayesgmm as bg
from bayesgmm.covariance import NAMES

PUBLISHED = {  # mclust's choice by BIC, and what it says of it
    "faithful": ("EEE", 3),
    "iris": ("VEV", 2),
    "diabetes_fixed": ("VVV", 3),
    "acidity": ("E", 2),
}


def rows(name):
    return table("old_faithful" if name == "faithful" else name)


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request):
    """All models with 1 to 9 components of a table whose best mixture is published."""
    name = request.param
    return name, bg.select(rows(name), covariances="all", criteria=("bic", "icl"), n_replicates=0, rng=seed())


@pytest.mark.statistical
def test_the_choices_are_the_published_ones(published):
    name, chosen = published
    best = chosen.best("bic")
    assert (best.covariance_model.label(best.n_features), best.n_components) == PUBLISHED[name]
    said = chosen.recommend()
    assert (said.covariance, said.n_components) == PUBLISHED[name]


@pytest.mark.statistical
def test_no_fit_is_worse_than_mclusts(published):
    name, chosen = published
    ours = chosen.table.set_index(["covariance", "n_components"])["bic"]
    theirs = {(row["model"], row["G"]): -row["bic"] for row in reference(f"{name}.json")["table"] if row["bic"]}
    assert len(theirs) > 10
    worse = {key: ours[key] - bic for key, bic in theirs.items() if key in ours.index and not ours[key] <= bic + 1e-3}
    assert not worse


def test_every_fit_has_its_row(published):
    name, chosen = published
    one = rows(name).shape[1] == 1
    assert len(chosen.table) == 9 * (2 if one else 14)
    assert set(chosen.table["covariance"]) == ({"E", "V"} if one else set(NAMES))
    assert (chosen.table["status"] == "converged").all()


@pytest.mark.statistical
def test_the_tie_of_iris_is_told():
    chosen = bg.select(bg.datasets.iris(), (2, 3), "VEV", ("bic",), n_replicates=100, rng=seed())
    ranking = chosen.ranking("bic")
    assert ranking["tied"].tolist() == [True, True]
    assert ranking["behind"][1] == pytest.approx(0.822, abs=0.01)
    assert "barely" in chosen.text
    assert "0.8 behind" in chosen.text
    assert chosen.recommend().rivals == (("VEV", 3),)
    frequencies = chosen.frequencies("bic")
    assert frequencies.sum() == pytest.approx(1.0)
    assert frequencies.min() > 0.15  # other rows could well speak for the other


def test_held_out_density_finds_the_truth_where_there_is_one():
    mixture = bg.GaussianMixture([0.5, 0.3, 0.2], [[0.0, 0.0], [6.0, 0.0], [0.0, 7.0]], np.tile(np.eye(2), (3, 1, 1)))
    X, _ = mixture.sample(400, rng=0)
    chosen = bg.select(X, range(1, 6), ("spherical", "full"), n_starts=5, n_replicates=50, rng=1)
    for name in chosen.criteria:
        assert chosen.best(name).n_components == 3
    assert chosen.frequencies("bic")[3] > 0.8
    assert chosen.frequencies("icl")[3] > 0.9
    assert chosen.recommend().n_components == 3
    truth = mixture.log_likelihood(X)
    found = chosen.table["cv_log_density"].max()
    assert abs(found - truth) < 30  # a few nats for each of the 12 to 18 parameters at most
    assert "They agree" in chosen.text


def test_weights_are_rows():
    """BIC and ICL of rows counted twice are those of the rows written twice."""
    X = rows("faithful")[:100]
    weight = np.random.default_rng(0).integers(1, 3, size=100)
    a = bg.select(X, (1, 2), "tied", ("bic", "icl"), sample_weight=weight, n_replicates=0, rng=0).table
    b = bg.select(np.repeat(X, weight, axis=0), (1, 2), "tied", ("bic", "icl"), n_replicates=0, rng=0).table
    numbers = ["log_likelihood", "bic", "aic", "icl"]
    np.testing.assert_allclose(a[numbers], b[numbers], rtol=1e-7)


def test_a_failed_fit_is_a_row_with_its_reason():
    X = np.repeat([[0.0, 1.0], [3.0, 2.0], [5.0, 9.0], [7.0, 4.0]], 3, axis=0)
    chosen = bg.select(X, (1, 2, 5), ("full", "tied"), rng=0, n_folds=3, n_replicates=20)
    failed = chosen.table[chosen.table["n_components"] == 5]
    assert failed["status"].str.startswith("failed: ").all()
    assert failed["bic"].isna().all()
    states = {K: state for (_, K), state in chosen.fit_states.items()}
    assert states[5].outcome is bg.FitOutcome.FAILED
    assert states[5].left_out
    assert "distinct rows" in states[5].detail
    assert states[1] == bg.FitState(bg.FitOutcome.CONVERGED)
    assert failed["status"].str.contains("distinct rows").all()
    assert chosen.best("bic").n_components < 5
    assert "the column status says why" in chosen.text


def test_a_spurious_fit_is_never_chosen():
    rng = np.random.default_rng(1)
    X = np.concatenate([rng.normal(size=(40, 2)), np.full((3, 2), 9.0) + 1e-6 * rng.normal(size=(3, 2))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the table says it
        chosen = bg.select(X, (1, 2, 3), "full", ("bic", "icl"), n_replicates=20, rng=0)
    assert any(state.outcome is bg.FitOutcome.SPURIOUS for state in chosen.fit_states.values())
    for name in ("bic", "icl"):
        assert not chosen.best(name).spurious


def test_one_component_is_ranked_once():
    """Equal and varying are the same for one component, so that they are no rivals."""
    chosen = bg.select(np.random.default_rng(0).normal(size=(100, 2)), 1, "all", "bic", rng=0, n_replicates=0)
    assert len(chosen.table) == 14
    assert chosen.ranking()["covariance"].tolist() == ["EII", "EEI", "EEE"]


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_clusters_that_rounding_makes_are_spurious(seed):
    """Rows of one normal, rounded: thin components along the recorded values fit far better, and mean nothing."""
    X = np.round(np.random.default_rng(seed).normal(size=(200, 2)))
    chosen = bg.select(X, range(1, 6), "all", "bic", n_replicates=0, rng=0)
    assert chosen.best().n_components == 1
    thin = [
        fit.bic + 2 * (fit.log_likelihood - maximum.log_likelihood)
        for fit in chosen.fits.values()
        for maximum in fit.maxima
        if "narrower than the steps in which 'x" in maximum.detail
    ]
    assert min(thin) < chosen.best().bic - 40


def test_a_column_of_rare_ones_is_not_taken_for_rounding():
    rng = np.random.default_rng(0)
    X = np.c_[rng.normal(size=300) + 5 * (np.arange(300) % 2), rng.random(300) < 0.05]
    chosen = bg.select(X, (1, 2), "tied", "bic", n_replicates=0, rng=0)
    assert chosen.best().n_components == 2
    assert (chosen.table["status"] == "converged").all()


def test_more_parameters_than_numbers_are_spurious():
    chosen = bg.select(np.random.default_rng(0).normal(size=(8, 2)), range(1, 7), "tied", "bic", rng=0, n_replicates=20)
    bad = [state.outcome is bg.FitOutcome.SPURIOUS for state in chosen.fit_states.values()]
    assert chosen.table["status"].str.startswith("spurious: ").tolist() == bad
    bad = np.array(bad)
    assert (bad == (chosen.table["n_parameters"] >= 16)).all()
    assert bad.sum() == 2
    assert chosen.best("bic").n_parameters < 16


@pytest.mark.parametrize("K", [1, 2])
def test_one_fit_alone_can_be_told(K):
    chosen = bg.select(rows("acidity"), K, "V", rng=0, n_replicates=10)
    assert chosen.best("icl").n_components == K
    assert "the only fit" in chosen.text
    assert "It is the only fit" in chosen.recommend().reason
    assert repr(chosen) == f"Selection(1 fits, bic chooses K={K})"


def test_the_same_seed_gives_the_same_table():
    a, b = (bg.select(rows("faithful"), (2, 3), ("tied", "VVE"), rng=3, n_replicates=20).table for _ in range(2))
    pd.testing.assert_frame_equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n_components": []}, "n_components is empty"),
        ({"n_components": 0}, "n_components must be a whole number"),
        ({"n_components": "3"}, "n_components must be a whole number"),
        ({"covariances": ()}, "covariances is empty"),
        ({"covariances": "round"}, "unknown covariance 'round'"),
        ({"criteria": ("bic", "waic")}, "unknown criterion 'waic'"),
        ({"criteria": ()}, "criteria is empty"),
        ({"posterior": "some"}, "posterior must be"),
        ({"n_folds": 1}, "n_folds must be"),
        ({"n_replicates": -1}, "n_replicates must be"),
    ],
)
def test_what_cannot_be_used_is_named(arguments, said):
    with pytest.raises(bg.InputError, match=said):
        bg.select(rows("faithful"), **({"n_components": (1, 2)} | arguments))


def test_a_criterion_that_was_not_asked_for_is_refused():
    chosen = bg.select(rows("faithful"), (1, 2), criteria="icl", n_replicates=0, rng=0)
    assert chosen.best("bic").n_components == 2  # costs nothing and is always there
    with pytest.raises(bg.InputError, match="'cv' is not in the table; it has bic, icl, aic"):
        chosen.best("cv")
    with pytest.raises(bg.InputError, match="no replicates"):
        chosen.frequencies("bic")
    with pytest.raises(bg.InputError, match="none of the 2 fits succeeded"):
        bg.select([[0.0, 1.0], [1.0, 3.0], [2.0, 0.5]], (8, 9))


def test_what_needs_posteriors_says_so():
    selection = bg.select(table("old_faithful"), 2, criteria="bic", n_replicates=0, rng=0)
    with pytest.raises(bg.InputError, match="'evidence'"):
        selection.probabilities()
    with pytest.raises(bg.InputError, match="'loo'"):
        selection.log_prob([[1.0, 2.0]])
    variational = {"method": "variational"}
    with pytest.raises(bg.InputError, match="no posterior of any fit"):
        bg.select(table("old_faithful"), 2, "EEV", "evidence", sampling=variational, n_replicates=0, rng=0)


def test_a_selection_cannot_be_changed_but_copied_and_pickled():
    chosen = bg.select(rows("faithful"), (1, 2), criteria=("bic", "cv"), n_folds=3, n_replicates=5, rng=0)
    with pytest.raises(FrozenInstanceError):
        chosen.criteria = ("icl",)
    for mapping in (chosen.fits, chosen.fit_states, chosen.densities["cv"], chosen.replicates["bic"]):
        with pytest.raises(TypeError, match="does not support item assignment"):
            mapping["VVV", 9] = None
    for other in (copy.deepcopy(chosen), pickle.loads(pickle.dumps(chosen))):
        assert other.text == chosen.text
        assert list(other.fits) == list(chosen.fits)
        with pytest.raises(TypeError, match="does not support item assignment"):
            other.fits["VVV", 9] = None


def test_progress_names_each_stage_and_ends_with_all_of_it():
    seen = []
    bg.select(rows("faithful"), (1, 2), n_folds=3, n_replicates=5, rng=0, progress=lambda *a: seen.append(a))
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == ["EM fits", "held-out folds", "replicates"]
    last = {stage: (done, total) for stage, done, total in seen}
    assert last == {"EM fits": (2, 2), "held-out folds": (3, 3), "replicates": (1, 1)}  # one could lead
