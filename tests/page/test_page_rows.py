"""Which rows a page draws and lists."""

import numpy as np
import pytest

from bayesgmm.page.rows import MOST_DRAWN, MOST_LISTED, Rows


def rows(N, D=2, K=3, seed=0):
    rng = np.random.default_rng(seed)
    return Rows.fitted(rng.normal(size=(N, D)), rng.dirichlet(np.full(K, 0.1), N))


@pytest.mark.parametrize("N", [1, 272, 2000, 5000, 5001, 40_000])
def test_no_more_rows_are_drawn_and_listed_than_a_page_can_carry(N):
    table = rows(N)
    assert len(np.unique(table.drawn)) == len(table.drawn) == min(N, MOST_DRAWN)
    assert len(np.unique(table.listed)) == len(table.listed) == min(N, MOST_LISTED)
    assert (np.diff(table.drawn) > 0).all()
    assert (np.diff(table.probability[table.listed]) >= 0).all()


def test_the_least_certain_rows_are_drawn_and_the_others_evenly():
    table = rows(40_000)
    assert np.isin(table.listed[:500], table.drawn).all()
    quarters = np.histogram(table.drawn, bins=4, range=(0, 40_000))[0]
    np.testing.assert_allclose(quarters, MOST_DRAWN / 4, atol=60)


def test_the_columns_tell_of_every_row_that_is_drawn_or_listed():
    table = rows(8000)
    columns = table.columns([1, 0])
    assert {len(column) for column in columns.values()} == {len(np.union1d(table.drawn, table.listed))}
    assert set(columns["row"]) == set(table.drawn) | set(table.listed)
    assert np.flatnonzero(columns["drawn"]).size == MOST_DRAWN
    some = columns["row"]
    spread = np.ptp(table.values[some], axis=0)
    np.testing.assert_allclose(columns["x0"], table.values[some, 1], atol=1e-4 * spread[1])
    np.testing.assert_allclose(columns["p"], table.probability[some], atol=1e-3)
    assert "drawn" not in rows(100).columns([0])


def test_the_rival_is_the_likeliest_other_group():
    probabilities = np.array([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2], [0.0, 0.0, 1.0]])
    table = Rows.fitted(np.zeros((3, 1)), probabilities)
    assert table.labels.tolist() == [1, 0, 2]
    assert table.rival.tolist()[:2] == [2, 2]
    assert table.rival_probability.tolist() == [0.3, 0.2, 0.0]
    assert Rows.fitted(np.zeros((3, 1)), np.ones((3, 1))).rival is None


def test_noise_is_a_label_and_a_rival():
    components, noise = np.array([[0.6, 0.1], [0.1, 0.2], [0.5, 0.45]]), np.array([0.3, 0.7, 0.05])
    table = Rows.fitted(np.zeros((3, 1)), components, noise)
    assert table.labels.tolist() == [0, -1, 0]
    assert table.probability.tolist() == [0.6, 0.7, 0.5]
    assert table.rival.tolist() == [-1, 1, 1]
    assert table.rival_probability.tolist() == [0.3, 0.2, 0.45]
    assert (table.sizes(2), table.n_noise) == ([2, 0], 1)


def test_whole_numbers_stay_whole_and_small_ones_keep_their_digits():
    values = np.array([[12345678.0, 1e-12, 5.0], [12399999.0, 9e-12, 5.0]])
    table = Rows.fitted(values, np.ones((2, 1)))
    columns = table.columns([0, 1, 2])
    assert columns["x0"] == [12345680, 12400000]
    np.testing.assert_allclose(columns["x1"], values[:, 1], rtol=1e-3)
    assert columns["x2"] == [5.0, 5.0]


@pytest.mark.parametrize("D", [1, 2, 5, 300])
def test_features_are_as_many_as_there_is_room_for(D):
    assert rows(60, D).n_features_shown == min(D, 40)
    many = rows(40_000, D)
    told = sum(len(column) for name, column in many.columns(range(many.n_features_shown)).items() if name[0] == "x")
    assert told <= 60_000
    assert many.n_features_shown >= min(D, 8)
