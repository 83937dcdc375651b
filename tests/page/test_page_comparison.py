"""How fits compare, as a value that is kept as JSON."""

import json

import pandas as pd
import pytest

import bayesgmm as bg
from bayesgmm.files import plain_json
from bayesgmm.page.comparison import Comparison


@pytest.fixture(scope="module")
def selection():
    X = bg.datasets.old_faithful()
    return bg.select(X, (1, 2, 3), ("EEE", "VVI"), ("bic", "icl", "aic", "cv"), n_replicates=5, rng=0)


def test_a_comparison_is_the_same_after_json(selection):
    compared = Comparison.of(selection)
    again = Comparison.from_record(json.loads(json.dumps(plain_json(compared.record))))
    assert again.record.keys() == compared.record.keys()
    assert (again.chosen, again.reason, again.rivals) == (compared.chosen, compared.reason, compared.rivals)
    assert (again.sentences, again.best_first) == (compared.sentences, compared.best_first)
    pd.testing.assert_frame_equal(again.table, compared.table)
    assert compared.rankings["aic"]["se"].isna().any()  # an unknown number is null in JSON, and comes back
    for name, ranking in compared.rankings.items():
        pd.testing.assert_frame_equal(again.rankings[name], ranking)


def test_shares_of_the_replicates_are_those_of_the_selection(selection):
    compared = Comparison.of(selection)
    assert compared.n_replicates == 5
    assert list(compared.frequencies) == list(selection.replicates)
    for name, shares in compared.frequencies.items():
        pd.testing.assert_series_equal(shares, selection.frequencies(name), check_names=False)


def test_without_replicates_there_are_no_shares():
    compared = Comparison.of(bg.select(bg.datasets.old_faithful(), (1, 2), criteria="bic", n_replicates=0, rng=0))
    assert (compared.n_replicates, compared.frequencies) == (0, {})
