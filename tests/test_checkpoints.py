"""What interrupted runs have done is found again, by the same run only."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from oracles import seed

import bayesgmm as bg
from bayesgmm.bayes import sample
from bayesgmm.bayes.tree import write_tree
from bayesgmm.checkpoints import Checkpoints, fingerprint
from bayesgmm.em.record import kept_fit
from bayesgmm.observations import observations


def test_a_fingerprint_is_of_numbers_weights_and_settings():
    X = bg.datasets.iris()
    one = fingerprint(observations(X), "VVV", 3)
    assert one == fingerprint(observations(X.to_numpy()), "VVV", 3)
    others = [
        fingerprint(observations(X), "VVV", 4),
        fingerprint(observations(X), "EEE", 3),
        fingerprint(observations(X.iloc[::-1]), "VVV", 3),
        fingerprint(observations(X, np.arange(len(X))), "VVV", 3),
        fingerprint(observations(X.to_numpy().reshape(300, 2)), "VVV", 3),
    ]
    assert len({one, *others}) == 6


def test_without_a_directory_nothing_is_stored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints, calls = Checkpoints.of(None, observations(bg.datasets.iris())), []
    for _ in range(2):
        checkpoints.arrays("part", lambda: calls.append(1) or {"x": np.ones(2)})
    assert len(calls) == 2
    assert checkpoints.path("part", "nc") is None
    assert not list(tmp_path.iterdir())


def test_a_stored_fit_comes_back_for_its_table_and_settings_only(tmp_path):
    X, key = bg.datasets.iris(), ("VEV", 3)
    fit = bg.fit_em(X, 3, "VEV", rng=0)
    assert kept_fit(Checkpoints.of(tmp_path, observations(X), 20, 0), key, lambda: fit) is fit

    def never():
        raise AssertionError("made again")

    back = kept_fit(Checkpoints.of(tmp_path, observations(X), 20, 0), key, never)
    assert back.bic == fit.bic
    assert back.starts == fit.starts
    for table, other in ((X, 1), (X + 1, 0)):
        with pytest.raises(AssertionError, match="made again"):
            kept_fit(Checkpoints.of(tmp_path, observations(table), 20, other), key, never)
    next(tmp_path.iterdir()).write_bytes(b"half")  # as a full disk leaves it
    assert kept_fit(Checkpoints.of(tmp_path, observations(X), 20, 0), key, lambda: fit) is fit


def test_draws_of_an_interrupted_selection_are_taken_up(tmp_path, monkeypatch):
    """The second posterior is interrupted half-way; the first is not drawn again, and the second goes on."""
    X, trees = bg.datasets.old_faithful(), []
    arguments = dict(criteria="bic", posterior="all", n_replicates=0, out=tmp_path, rng=0)
    arguments |= {"sampling": {"draws": 100, "tune": 100, "chains": 2}}
    sample_posterior = sample.sample_posterior

    def interrupted(X, fit, out, **settings):
        if len(trees) == 1:
            trees.append(sample_posterior(X, fit, **(settings | {"draws": 50})))
            trees[-1].attrs["partial"] = "interrupted with 50 of 100 draws"
            write_tree(trees[-1], out)
        else:
            trees.append(sample_posterior(X, fit, out=out, **settings))
        return trees[-1]

    monkeypatch.setattr(sample, "sample_posterior", interrupted)
    with pytest.raises(KeyboardInterrupt, match=f"50 of 100 draws; the draws are kept in {re.escape(str(tmp_path))}"):
        bg.select(X, (1, 2), **arguments)
    chosen = bg.select(X, (1, 2), **arguments)
    assert list(chosen.posteriors) == [("VVV", 1), ("VVV", 2)]
    first, half, again, whole = (tree["posterior"]["means"].values for tree in trees)
    np.testing.assert_array_equal(again, first)
    assert whole.shape[1] == 100
    np.testing.assert_allclose(whole[:, :50], half)


def test_a_selection_that_cannot_be_taken_up_is_refused(tmp_path):
    with pytest.raises(bg.InputError, match="give rng a seed with out"):
        bg.select(bg.datasets.old_faithful(), 1, out=tmp_path)


N = 40_000
KILLED = """
import os, signal, sys
import bayesgmm as bg

folder, stage = sys.argv[1:]

def kill(*step):
    if step[0] == stage:
        os.kill(os.getpid(), signal.SIGKILL)

bg.fit_em(f"{folder}/*.npy", 3, rng=0, n_starts=4, out=f"{folder}/out", progress=kill)
"""


@pytest.fixture
def folder(tmp_path):
    """Overlapping clusters in two files."""
    rng = np.random.default_rng(0)
    means = np.array([[0.0, 0.0], [2.5, 1.0], [0.0, 3.0]])
    X = means[rng.integers(3, size=N)] + rng.normal(size=(N, 2))
    for i, part in enumerate(np.array_split(X, 2)):
        np.save(tmp_path / f"{i}.npy", part)
    return tmp_path


def fitted(folder, told=None, **settings):
    progress = None if told is None else lambda *step: told.append(step)
    return bg.fit_em(f"{folder}/*.npy", **{"n_components": 3, "rng": 0, "n_starts": 4} | settings, progress=progress)


def passes_in(told):
    return {stage for stage, _, _ in told if stage.startswith("pass")}


def test_a_fit_that_is_killed_again_and_again_ends_at_the_same_digits(folder, monkeypatch):
    monkeypatch.setattr("bayesgmm.em.large.SAMPLE_ROWS", 2_000)
    told = []
    whole = fitted(folder, told)
    n_passes = len(passes_in(told))
    assert n_passes > 5
    setting = "from bayesgmm.em import large; large.SAMPLE_ROWS = 2_000\n"
    some_pass = np.random.default_rng(seed()).integers(1, n_passes)
    for stage in ("rows looked at", f"pass {some_pass}", f"pass {n_passes}"):
        command = [sys.executable, "-c", setting + KILLED, str(folder), stage]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    told = []
    fit = fitted(folder, told, out=folder / "out")
    assert passes_in(told) == {f"pass {n_passes}"}
    assert not any(stage == "rows looked at" for stage, _, _ in told)
    assert fit.log_likelihood == whole.log_likelihood
    for name in ("weights", "means", "covariances"):
        np.testing.assert_array_equal(getattr(fit.mixture, name), getattr(whole.mixture, name))
    np.testing.assert_array_equal(fit.log_likelihood_path, whole.log_likelihood_path)
    assert fit.maxima == whole.maxima
    assert fit.starts == whole.starts


def test_a_finished_fit_is_there_without_reading_rows(folder):
    fit = fitted(folder, out=folder / "out", rng=None)
    told = []
    again = fitted(folder, told, out=folder / "out", rng=None)
    assert not told
    assert again.log_likelihood == fit.log_likelihood
    np.testing.assert_array_equal(again.mixture.means, fit.mixture.means)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_components": 2}, "n_components 3 has done, and in this one it is 2"),
        ({"covariance": "diag"}, "covariance VVV has done, and in this one it is VVI"),
        ({"tolerance": 0.1}, "tolerance 1e-06 has done, and in this one it is 0.1"),
        ({"rng": 1}, "rng 0 has done, and in this one it is 1"),
        ({"rng": np.random.default_rng(1)}, "seed [0-9]+ has done"),
        ({"starts": [np.zeros((3, 2))]}, r"starts None has done, and in this one it is \['array \(3, 2\)"),
    ],
    ids=["n_components", "covariance", "tolerance", "rng", "generator", "starts"],
)
def test_a_fit_with_other_settings_does_not_go_on(folder, settings, message):
    fitted(folder, out=folder / "out")
    with pytest.raises(bg.InputError, match=message):
        fitted(folder, out=folder / "out", **settings)


def test_a_fit_to_a_table_that_has_changed_does_not_go_on(folder):
    fitted(folder, out=folder / "out")
    os.utime(folder / "1.npy", ns=(1, 1))
    with pytest.raises(bg.InputError, match=r"parts 1\.npy: 20000 rows, .*1\.npy.* changed at .* it is 1\.npy"):
        fitted(folder, out=folder / "out")


def test_rows_that_nothing_is_known_of_are_looked_at_again(folder):
    X = [np.load(folder / f"{i}.npy") for i in range(2)]
    calls = []

    def chunks():
        calls.append(1)
        return iter(X)

    def fit():
        calls.clear()
        return bg.fit_em(chunks, 3, rng=0, n_starts=4, out=folder / "out")

    one, n_first = fit(), len(calls)
    other = fit()
    assert len(calls) == 2 < n_first  # to count them, and to look at them
    assert one.log_likelihood == other.log_likelihood
    X[1][5:] += 1
    with pytest.raises(bg.InputError, match="rows, of which a random sample is"):
        fit()


def test_only_passes_over_parts_are_kept(tmp_path):
    with pytest.raises(bg.InputError, match="out keeps the passes over a table in parts"):
        bg.fit_em(bg.datasets.old_faithful(), 2, out=tmp_path)
