"""What interrupted runs have done is found again, by the same run only."""

import re

import numpy as np
import pytest

import bayesgmm as bg
from bayesgmm.bayes import sample
from bayesgmm.bayes.tree import write_tree
from bayesgmm.checkpoints import Checkpoints, fingerprint
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
    assert Checkpoints.of(tmp_path, observations(X), 20, 0).fit(key, lambda: fit) is fit

    def never():
        raise AssertionError("made again")

    back = Checkpoints.of(tmp_path, observations(X), 20, 0).fit(key, never)
    assert back.bic == fit.bic
    assert back.starts == fit.starts
    for table, seed in ((X, 1), (X + 1, 0)):
        with pytest.raises(AssertionError, match="made again"):
            Checkpoints.of(tmp_path, observations(table), 20, seed).fit(key, never)
    next(tmp_path.iterdir()).write_bytes(b"half")  # as a full disk leaves it
    assert Checkpoints.of(tmp_path, observations(X), 20, 0).fit(key, lambda: fit) is fit


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
