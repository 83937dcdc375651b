"""Bytes come from files and standard input, packed or not."""

import bz2
import gzip
import io
import lzma
import sys

import numpy as np
import pandas as pd
import pytest
from command_line import zipped

from bayesgmm.cli import sources
from bayesgmm.cli.reading import read_table
from bayesgmm.errors import InputError

VALUES = [[1.5, 2.0], [3.0, -4e-3]]
PLAIN = "a,b\n1.5,2\n3,-4e-3\n"


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, bz2.compress, lzma.compress, lambda text: zipped(text, "t.csv")],
    ids=["gzip", "bzip2", "xz", "zip"],
)
def test_packed_tables_are_read_whatever_their_name(file, pack, monkeypatch):
    content = pack(PLAIN.encode())
    np.testing.assert_array_equal(read_table(file(content, "table")).features, VALUES)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    np.testing.assert_array_equal(read_table("-").features, VALUES)


def test_a_directory_and_a_missing_file_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="is a directory"):
        read_table(tmp_path)
    with pytest.raises(InputError, match="no file"):
        read_table(tmp_path / "absent.csv")


def test_a_text_that_is_not_utf8_is_read_and_that_is_said(file):
    table = read_table(file("Länge,b\n1.5,2\n3,-4e-3\n".encode("latin-1")))
    assert list(table.features.columns) == ["Länge", "b"]
    assert "Windows-1252" in table.notes[0]


def test_what_is_read_in_parts_is_told_by_names_and_by_size(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"a": range(1000), "b": range(1000)}).to_parquet(path)
    assert sources.in_parts([tmp_path])
    assert sources.in_parts([tmp_path / "*.parquet"])
    assert sources.in_parts([tmp_path / "x.npy"])
    assert sources.in_parts([path, path])
    assert not sources.in_parts([path])
    assert not sources.in_parts([sources.STDIN])
    assert not sources.in_parts([tmp_path / "none.parquet"])
    monkeypatch.setattr(sources, "_memory", lambda: 4 * 16_000)
    assert not sources.in_parts([path])
    monkeypatch.setattr(sources, "_memory", lambda: 4 * 16_000 - 1)
    assert sources.in_parts([path])
