"""Laws of how files are read: Parquet is decoded twice at most, where the disk has room for plain numbers."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bayesgmm as bg
from bayesgmm import sources

N, GROUP = 5_000, 700  # rows of a file, and of its row groups


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
    """How many rows were decoded at a time."""
    counts, decode = [], sources._side_by_side

    def counted(batch):
        counts.append(len(batch))
        return decode(batch)

    monkeypatch.setattr(sources, "_side_by_side", counted)
    monkeypatch.setattr(sources, "_DECODED_ROWS", 512)
    return counts


def assert_reads(table, rows, step):
    """That a pass over a table in blocks of so many rows finds these."""
    for start in range(0, len(rows), step):
        stop = min(start + step, len(rows))
        np.testing.assert_array_equal(table.read(start, stop), rows[start:stop])


def as_stored(X):
    return np.column_stack([X[:, 0], X[:, 1].astype(np.float32), np.tile(np.arange(N), 2)])


def test_parquet_is_decoded_twice_at_most(X, files, decoded):
    table, rows = bg.open_table(files), as_stored(X)
    for step in (1_100, 300, 900, 2 * N):
        assert_reads(table, rows, step)
    assert sum(decoded) == 2 * (2 * N)
    for start, stop in ((0, 1), (699, 701), (4_990, 5_010), (0, 2 * N), (2 * N - 1, 2 * N)):
        np.testing.assert_array_equal(table.read(start, stop), rows[start:stop])
    assert sum(decoded) == 2 * (2 * N)


def test_rows_that_are_far_ahead_need_not_be_decoded_up_to(X, files, decoded):
    table, rows = bg.open_table(files), as_stored(X)
    for row in (0, 10, GROUP * 3, N - 1, 5):
        np.testing.assert_array_equal(table.read(row, row + 1), rows[row : row + 1])
    assert sum(decoded) <= 4 * 512


def test_files_are_open_only_while_they_are_read(tmp_path):
    if not Path("/proc/self/fd").exists():
        pytest.skip("the system does not tell which files are open")
    for i in range(30):
        pq.write_table(pa.table({"a": np.arange(10.0) + 10 * i}), tmp_path / f"{i:02d}.parquet")
    before = len(list(Path("/proc/self/fd").iterdir()))
    table = bg.open_table(f"{tmp_path}/*.parquet")
    assert_reads(table, np.arange(300.0)[:, None], 7)
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 15


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
    room, step = 2 * GROUP * 3 * 8, 100
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=room))
    table, rows = bg.open_table(files), as_stored(X)
    for _ in range(4):
        assert_reads(table, rows, step)
    kept = room // (3 * 8)
    assert 4 * 2 * N - 2 * (kept + GROUP) <= sum(decoded) <= 4 * 2 * N


def test_no_more_than_half_of_what_was_free_is_taken(X, files, monkeypatch):
    step = 100
    size = step * 3 * 8
    usage, room, written = shutil.disk_usage("/"), 6 * GROUP * 3 * 8, []
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=room - sum(written)))
    write = sources._Spool.write

    def counted(self, at, values):
        done = write(self, at, values)
        written.append(values.nbytes if done else 0)
        return done

    monkeypatch.setattr(sources._Spool, "write", counted)
    table, rows = bg.open_table(files), as_stored(X)
    for _ in range(3):
        assert_reads(table, rows, step)
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
