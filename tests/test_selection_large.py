"""Laws of the choice among fits to a table in parts: that of the same rows in memory, wherever they are."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from oracles import stopped_at

import bayesgmm as bg
from bayesgmm.passes import held_out, survey
from bayesgmm.selection.run import Seeds

N, SIZES, MODELS = 60_000, (1, 2, 3, 4), ("full", "tied")


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    means = np.array([[0.0, 0.0], [5.0, 1.0], [0.0, 6.0]])
    return means[rng.integers(3, size=N)] + rng.standard_t(6, size=(N, 2))


@pytest.fixture(scope="module")
def chosen(X):
    """The choice from a small sample on, with what was told of its progress."""
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bayesgmm.em.large.SAMPLE_ROWS", 4_000)
        chunks = bg.open_table(lambda: iter(np.array_split(X, 9)))
        yield bg.select(chunks, SIZES, MODELS, rng=3, progress=lambda *step: told.append(step)), told


def seen(X):
    return X[~held_out(Seeds.of(3).folds, 0, N)]


def test_fits_are_those_of_the_rows_that_are_not_held_out_in_memory(X, chosen):
    selection, _ = chosen
    sizes = (1, 3)  # of which there is no rival maximum
    here = bg.select(seen(X), sizes, MODELS, ("bic", "icl"), n_replicates=0, rng=3)
    for key, theirs in here.fits.items():
        ours = selection.fits[key]
        assert ours.total_weight == theirs.total_weight == len(seen(X))
        np.testing.assert_allclose([ours.log_likelihood, ours.bic], [theirs.log_likelihood, theirs.bic], atol=4e-3)
        np.testing.assert_allclose(ours.icl, theirs.icl, rtol=1e-5)
        np.testing.assert_allclose(ours.mixture.means, theirs.mixture.means, atol=1e-3)


def test_every_fit_is_at_a_maximum(X, chosen):
    selection, _ = chosen
    assert set(selection.fits) == {(model, K) for model in ("VVV", "EEE") for K in SIZES}
    for (model, K), fit in selection.fits.items():
        onward = bg.fit_em(seen(X), K, model, starts=[fit.mixture], tolerance=1e-7)
        assert fit.log_likelihood > onward.log_likelihood - 5e-3


def test_all_fits_are_climbed_in_the_same_readings(chosen):
    selection, told = chosen
    readings = sum(stage.startswith("pass") and done == total for stage, done, total in told)
    assert len(selection.fits) == 8
    assert readings < sum(1 + fit.n_iterations for fit in selection.fits.values())
    assert told.count(("held-out rows", N, N)) == 1


def test_fits_are_ranked_by_the_rows_that_were_held_out(X, chosen):
    selection, _ = chosen
    rows = X[held_out(Seeds.of(3).folds, 0, N)]
    each = {key: fit.mixture.log_prob(rows) for key, fit in selection.fits.items()}
    ranking = selection.ranking("held_out")
    keys = list(zip(ranking["covariance"], ranking["n_components"], strict=True))
    best = each[keys[0]]
    assert all(best.mean() >= each[key].mean() for key in keys)
    for key, behind, se in zip(keys, ranking["behind"], ranking["se"], strict=True):
        differences = best - each[key]
        np.testing.assert_allclose(behind, differences.mean(), atol=1e-10)
        np.testing.assert_allclose(se, differences.std() / np.sqrt(len(rows)), rtol=1e-6, atol=1e-12)
    assert selection.criteria == ("held_out", "icl", "bic")
    assert selection.text.startswith(
        "The held-out log density per row (which mixture predicts rows that it has not seen)"
    )
    assert f"On {len(rows)} rows that no fit has seen" in selection.text


def test_a_choice_has_the_same_digits_wherever_rows_are(X, tmp_path):
    np.save(tmp_path / "whole.npy", X)
    for i, part in enumerate(np.array_split(X, [12_345, 50_000])):
        pq.write_table(pa.table({"a": part[:, 0], "b": part[:, 1]}), tmp_path / f"{i}.parquet", row_group_size=7_001)
    sources = tmp_path / "whole.npy", f"{tmp_path}/*.parquet"
    one, other = (bg.select(source, (2, 3), rng=0, n_starts=3) for source in sources)
    numbers = ["log_likelihood", "icl", "held_out_log_density", "held_out_log_density_se"]
    np.testing.assert_array_equal(one.table[numbers], other.table[numbers])
    np.testing.assert_array_equal(one.held_out.se_of_gain, other.held_out.se_of_gain)
    for key, fit in one.fits.items():
        np.testing.assert_array_equal(fit.mixture.covariances, other.fits[key].mixture.covariances)


def test_a_choice_that_was_killed_goes_on_to_the_same_digits(X, tmp_path):
    np.save(tmp_path / "x.npy", X)
    run = {"X": tmp_path / "x.npy", "n_components": (1, 2, 3), "n_starts": 3, "rng": 0}
    whole = bg.select(**run)

    read = []

    def until(end):
        read.clear()
        return bg.select(**run, out=tmp_path / "run", progress=stopped_at(end, read))

    for stage in ("pass 3", "held-out rows"):
        with pytest.raises(KeyboardInterrupt):
            until(stage)
    assert not {"rows looked at", "pass 1", "pass 2"} & set(read)
    again = until(None)
    assert set(read) == {"EM fits to a sample", "held-out rows"}
    once_more = until(None)
    assert set(read) == {"EM fits to a sample"}
    for selection in (again, once_more):
        numbers = ["log_likelihood", "icl", "held_out_log_density"]
        np.testing.assert_array_equal(selection.table[numbers], whole.table[numbers])
        np.testing.assert_array_equal(selection.held_out.se_of_gain, whole.held_out.se_of_gain)


def test_what_is_kept_of_a_choice_is_not_that_of_a_file_that_has_changed(X, tmp_path, monkeypatch):
    monkeypatch.setattr("bayesgmm.em.large.SAMPLE_ROWS", 2_000)
    run = {"X": tmp_path / "x.npy", "n_components": 2, "criteria": "bic", "n_starts": 3, "rng": 0}
    np.save(tmp_path / "x.npy", X)
    before = bg.select(**run, out=tmp_path / "run").best("bic")
    sampled = {row.tobytes() for row in survey(bg.open_table(tmp_path / "x.npy"), 2_000, Seeds.of(0).fits).sample}
    other = X.copy()
    other[next(i for i, row in enumerate(X) if row.tobytes() not in sampled)] += 3.0
    np.save(tmp_path / "x.npy", other)
    after = bg.select(**run, out=tmp_path / "run").best("bic")
    assert after.log_likelihood != before.log_likelihood
    assert after.log_likelihood == bg.select(**run).best("bic").log_likelihood


def test_without_that_criterion_no_rows_are_held_out(X):
    selection = bg.select(lambda: iter([X]), 3, criteria="bic", rng=0)
    assert selection.held_out is None
    assert selection.best("bic").total_weight == N
    assert selection.best("bic").log_likelihood == pytest.approx(bg.fit_em(X, 3, rng=0).log_likelihood, abs=2e-3)


def test_a_fit_that_fails_is_a_row_with_its_reason():
    X = np.repeat(np.random.default_rng(0).normal(size=(5, 1)), 400, axis=0)
    selection = bg.select(lambda: iter([X]), (1, 9), rng=0)
    assert list(selection.fits) == [("V", 1)]
    assert "distinct rows" in selection.fit_states["V", 9].detail
    assert np.isnan(selection.table["held_out_log_density"].iloc[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"criteria": "cv"}, "use 'held_out'"),
        (
            {"criteria": ("bic", "loo")},
            "'loo' needs posteriors, and these all rows in memory; give select a random sample",
        ),
        ({"posterior": "all"}, "posterior needs all rows in memory"),
        ({"overfitted": True}, "overfitted needs all rows"),
        ({"n_replicates": 10}, "n_replicates needs all rows"),
        ({"error_sd": [0.1, 0.1]}, "error_sd cannot be given with a table in parts"),
        ({"noise": True}, "noise cannot be given with a table in parts"),
    ],
)
def test_what_needs_all_rows_in_memory_is_refused_before_they_are_read(settings, message):
    chunks = bg.open_table(lambda: iter([np.arange(20.0).reshape(10, 2)]))
    told = []
    with pytest.raises(bg.InputError, match=message):
        bg.select(chunks, 2, rng=0, progress=lambda *step: told.append(step), **settings)
    assert not told


def test_rows_in_memory_are_held_out_in_turn():
    with pytest.raises(bg.InputError, match="'held_out' is for tables in parts; of one in memory 'cv'"):
        bg.select(bg.datasets.old_faithful(), 2, criteria="held_out")
