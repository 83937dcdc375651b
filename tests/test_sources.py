"""Laws of how files are read: Parquet is decoded twice at most, where the disk has room for plain numbers."""

import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bayesgmm as bg
from bayesgmm import sources

N, GROUP = 5_000, 700  # rows of a file, and of its row groups
N_GROUPS = 2 * 8


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(2 * N, 3))


@pytest.fixture
def files(X, tmp_path):
    for i, part in enumerate(np.split(X, 2)):
        table = pa.table({"a": part[:, 0], "b": part[:, 1].astype(np.float32), "c": np.arange(N)})
        pq.write_table(table, tmp_path / f"{i}.parquet", row_group_size=GROUP)
    return str(tmp_path / "*.parquet")


@pytest.fixture
def decoded(monkeypatch):
    """How often each row group has been decoded, by its file and number."""
    counts, decode = Counter(), sources._RowGroups.__call__

    def counted(self, group):
        counts[self.unchanged.path, group] += 1
        return decode(self, group)

    monkeypatch.setattr(sources._RowGroups, "__call__", counted)
    return counts


def as_stored(X):
    return np.column_stack([X[:, 0], X[:, 1].astype(np.float32), np.tile(np.arange(N), 2)])


def test_parquet_is_decoded_twice_at_most(X, files, decoded):
    table, rows = bg.open_table(files), as_stored(X)
    for _ in range(4):
        for start in range(0, 2 * N, 1_100):
            stop = min(start + 1_100, 2 * N)
            np.testing.assert_array_equal(table.read(start, stop), rows[start:stop])
    assert set(decoded.values()) == {2}
    assert len(decoded) == N_GROUPS
    for start, stop in ((0, 1), (699, 701), (4_990, 5_010), (0, 2 * N), (2 * N - 1, 2 * N)):
        np.testing.assert_array_equal(table.read(start, stop), rows[start:stop])
    assert sum(decoded.values()) == 2 * N_GROUPS


def test_columns_come_in_the_order_in_which_they_are_named(X, files):
    table = bg.open_table(files, columns=["c", "a"])
    for _ in range(3):
        np.testing.assert_array_equal(table.read(100, 6_000), as_stored(X)[100:6_000, [2, 0]])


def test_a_missing_value_of_any_type_is_nan(tmp_path):
    columns = {"a": pa.array([1, None, 3]), "b": pa.array([True, False, None]), "c": pa.array([None, 0.5, 1.5])}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    expected = [[1, 1, np.nan], [np.nan, 0, 0.5], [3, np.nan, 1.5]]
    np.testing.assert_array_equal(bg.open_table(tmp_path / "x.parquet").read(0, 3), expected)


def test_where_the_disk_is_full_parquet_is_decoded_each_time(X, files, decoded, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=2 * GROUP * 3 * 8 - 1))
    table, rows = bg.open_table(files), as_stored(X)
    for _ in range(3):
        np.testing.assert_array_equal(table.read(0, 2 * N), rows)
    kept = {key for key, n in decoded.items() if n == 2}
    assert len(kept) == 2  # the last group of each file, which is shorter
    assert all(n == 3 for key, n in decoded.items() if key not in kept)


def test_no_more_than_half_of_what_was_free_is_taken(files, monkeypatch):
    size = GROUP * 3 * 8
    usage, room, written = shutil.disk_usage("/"), 6 * size, []
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=room - sum(written)))
    write = sources._Spool.write

    def counted(self, at, values):
        done = write(self, at, values)
        written.append(values.nbytes if done else 0)
        return done

    monkeypatch.setattr(sources._Spool, "write", counted)
    table = bg.open_table(files)
    for _ in range(3):
        table.read(0, 2 * N)
    assert room / 2 - size < sum(written) <= room / 2


def test_a_file_that_changes_is_noticed_though_its_rows_are_kept(files, tmp_path):
    table = bg.open_table(files)
    for _ in range(3):
        table.read(0, 2 * N)
    pq.write_table(pa.table({"a": [1.0], "b": [1.0], "c": [1]}), tmp_path / "1.parquet")
    with pytest.raises(bg.InputError, match=r"1\.parquet has changed since it was opened"):
        table.read(2 * N - 5, 2 * N)


def test_a_file_that_has_been_cut_is_an_error_and_no_crash(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.ones((1_000, 2)))
    table = bg.open_table(tmp_path / "x.npy")
    monkeypatch.setattr(sources._Unchanged, "check", lambda self: None)  # cut just after this looked
    with (tmp_path / "x.npy").open("r+b") as file:
        file.truncate(4_000)
    with pytest.raises(bg.InputError, match=r"x\.npy has changed while it was read"):
        table.read(0, 1_000)


def test_large_temporary_files_go_where_they_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert sources._folder_for_large_files() == str(tmp_path)
