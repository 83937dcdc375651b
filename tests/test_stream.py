"""Laws of assignments that are written to files: they say of each row what is said of it in memory."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

import bayesgmm as bg
from bayesgmm.clusters import stream

COUNTS = (100, 1, 171)


@pytest.fixture(scope="module")
def X():
    return bg.datasets.old_faithful()


@pytest.fixture(scope="module")
def fit(X):
    return bg.fit_em(X, 2, rng=0)


@pytest.fixture(scope="module")
def draws(X, fit):
    return bg.posterior(bg.sample_posterior(X, fit, method="laplace", draws=40, chains=2, rng=0))


@pytest.fixture
def files(X, tmp_path):
    """The rows in three files."""
    for i, stop in enumerate(np.cumsum(COUNTS)):
        X.iloc[stop - COUNTS[i] : stop].to_parquet(tmp_path / f"rows-{i}.parquet")
    return str(tmp_path / "rows-*.parquet")


def written(assigned):
    tables = [pd.read_parquet(assigned.directory / name) for name in assigned.files]
    assert tuple(map(len, tables)) == COUNTS
    return pd.concat(tables, ignore_index=True)


def test_a_fit_labels_rows_in_files_as_in_memory(X, fit, files, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "_ROWS", 64)
    told = []
    assigned = bg.assign_to_files(fit, files, tmp_path / "out", progress=lambda *step: told.append(step))
    found = written(assigned)
    np.testing.assert_array_equal(found["label"], fit.mixture.predict(X))
    np.testing.assert_allclose(found["probability"], fit.mixture.responsibilities(X).max(axis=1), rtol=1e-12)
    assert list(found) == ["label", "probability"]
    assert assigned.counts == tuple(np.bincount(found["label"]))
    assert assigned.n_doubtful == (found["probability"] < 0.9).sum()
    assert told[-1] == ("rows assigned", 272, 272)
    assert "272 rows by label: 0: 97 (35.66%), 1: 175 (64.34%)." in assigned.text
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out"), found)  # the directory is one table


def test_intervals_are_those_of_the_log_odds_over_the_draws(X, draws, files, tmp_path):
    found = written(bg.assign_to_files(draws, files, tmp_path / "out", n_draws=10_000, ci_prob=0.8))
    R = draws.draws.reshape(-1).responsibilities(X)  # (S, N, K)
    mean = R.mean(axis=0)
    np.testing.assert_array_equal(found["label"], mean.argmax(axis=1))
    np.testing.assert_allclose(found["probability"], mean.max(axis=1), rtol=1e-9)
    own = np.take_along_axis(R, mean.argmax(axis=1)[None, :, None], axis=2)[..., 0]
    unsure = mean.max(axis=1) < 1 - 1e-6  # elsewhere the oracle's 1 - p cancels
    odds = logit(own[:, unsure])
    reach = norm.ppf(0.9) * odds.std(axis=0, ddof=1)
    np.testing.assert_allclose(found["lower"][unsure], expit(odds.mean(axis=0) - reach), rtol=1e-6)
    np.testing.assert_allclose(found["upper"][unsure], expit(odds.mean(axis=0) + reach), rtol=1e-6)
    assert unsure.sum() > 10


def test_some_draws_are_spread_evenly_over_all(draws, files, tmp_path):
    some = draws.draws.reshape(-1)[np.array([0, 26, 53, 79])]
    one = written(bg.assign_to_files(draws, files, tmp_path / "one", n_draws=4))
    other = written(bg.assign_to_files(some, files, tmp_path / "other", n_draws=4))
    pd.testing.assert_frame_equal(one, other)


def test_rows_may_miss_values_and_be_noise(X, tmp_path):
    m = bg.fit_em(X, 2, rng=0).mixture
    box = bg.Noise(low=[1, 40], high=[6, 100])
    fit = bg.GaussianMixture(0.9 * m.weights, m.means, m.covariances, noise_weight=0.1, noise=box)
    rows = X.to_numpy().copy()
    rows[3, 0], rows[5], rows[7] = np.nan, np.nan, (1.7, 95.0)
    assigned = bg.assign_to_files(fit, lambda: iter([rows]), tmp_path)
    found = pd.read_parquet(tmp_path)
    np.testing.assert_array_equal(found["label"], fit.predict(rows))
    assert found["label"][7] == -1
    assert assigned.n_noise == (found["label"] == -1).sum()
    assert f"none: {assigned.n_noise}" in assigned.text
    rows[200, 1] = np.inf
    with pytest.raises(bg.InputError, match="row 200 of the chunks, column 'x1' is infinite"):
        bg.assign_to_files(fit, lambda: iter([rows]), tmp_path / "infinite")


def test_rows_are_assigned_to_the_clusters_of_a_partition(X, draws, files, tmp_path):
    best = bg.partition(draws, rng=0)
    found = written(bg.assign_to_files(draws, files, tmp_path / "out", n_draws=10_000, partition=best))
    here = bg.assign(draws, X, partition=best, rng=0)
    np.testing.assert_array_equal(found["label"], here.labels)
    np.testing.assert_allclose(found["probability"], here.label_probability, rtol=1e-9)
    with pytest.raises(bg.InputError, match="a partition goes with the posterior"):
        bg.assign_to_files(draws.fit, files, tmp_path / "other", partition=best)


def test_what_an_interrupted_run_has_written_is_not_done_again(draws, files, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "_ROWS", 64)
    whole = written(bg.assign_to_files(draws, files, tmp_path / "whole"))

    def interrupt(*step):
        if step[1] > 101 + 64:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        bg.assign_to_files(draws, files, out, progress=interrupt)
    assert [path.name for path in sorted(out.iterdir())] == ["part-00000.parquet", "part-00001.parquet"]
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assigned = bg.assign_to_files(draws, files, out)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    pd.testing.assert_frame_equal(written(assigned), whole)
    assert json.loads((out / "_summary.json").read_text())["counts"] == list(assigned.counts)
    assert bg.assign_to_files(draws, files, out) == assigned


def test_files_of_other_rows_or_by_another_fit_are_refused(X, fit, draws, files, tmp_path):
    out = tmp_path / "out"
    bg.assign_to_files(draws, files, out)
    for other in (fit, draws.draws[:, ::2]):
        with pytest.raises(bg.InputError, match=r"part-00000.parquet was made by another fit"):
            bg.assign_to_files(other, files, out)
    with pytest.raises(bg.InputError, match="by another fit, or with other draws or intervals"):
        bg.assign_to_files(draws, files, out, ci_prob=0.5)
    with pytest.raises(bg.InputError, match=r"part-00001\.parquet would be taken for rows of this table"):
        bg.assign_to_files(draws, tmp_path / "rows-0.parquet", out)
    os.utime(tmp_path / "rows-1.parquet", ns=(1, 1))
    with pytest.raises(bg.InputError, match=r"part-00001\.parquet has the rows 0 to 0 of .*rows-1\.parquet.*and now"):
        bg.assign_to_files(draws, files, out)
    X.to_parquet(tmp_path / "part-00000.parquet")
    with pytest.raises(bg.InputError, match=r"part-00000\.parquet is there already, and not from here"):
        bg.assign_to_files(draws, tmp_path / "rows-0.parquet", tmp_path)


def test_columns_must_be_those_of_the_fit(X, fit, tmp_path):
    X[["waiting", "eruptions"]].to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(bg.InputError, match="in another order than those that were fitted"):
        bg.assign_to_files(fit, tmp_path / "rows.parquet", tmp_path / "out")
    table = bg.open_table(tmp_path / "rows.parquet", columns=["eruptions", "waiting"])
    assert bg.assign_to_files(fit, table, tmp_path / "out").counts == tuple(np.bincount(fit.mixture.predict(X)))


@pytest.mark.parametrize(
    "question",
    [bg.assign, bg.partition, bg.posterior_similarity, lambda draws, X: draws.fit.mixture.predict(X)],
    ids=["assign", "partition", "similarity", "predict"],
)
def test_what_needs_rows_in_memory_says_what_to_do(draws, files, question):
    with pytest.raises(bg.InputError, match=r"in parts: bg.random_rows\(X, 2000\) draws some of its rows"):
        question(draws, bg.open_table(files))
