"""A file's cells are the same at once and in parts, of text and of columns with types."""

import gzip
import sys

import numpy as np
import pandas as pd
import pytest
from command_line import zipped

from bayesgmm.cli.reading import read_parts, read_table
from bayesgmm.errors import InputError

COLUMNS, VALUES = ["a", "b"], [[1.5, 2.0], [3.0, -4e-3]]


@pytest.mark.parametrize("kind", ["parquet", "feather", "excel"])
def test_files_with_types_are_read_like_text_whatever_their_name(tmp_path, kind):
    path = tmp_path / "table"
    table = pd.DataFrame(VALUES, columns=COLUMNS).assign(b=pd.array([None, -4e-3], "Float64"))
    with path.open("wb") as file:
        getattr(table, f"to_{kind}")(file, **({"index": False} if kind == "excel" else {}))
    read = read_table(path)
    assert list(read.features.columns) == COLUMNS
    np.testing.assert_array_equal(read.features, [[1.5, np.nan], VALUES[1]])
    assert read.gap == ("row 0 (from 0) of table", "b", 1)


def test_what_a_library_is_missing_for_is_said(tmp_path, monkeypatch, file):
    path = tmp_path / "t.parquet"
    pd.DataFrame(VALUES, columns=COLUMNS).to_parquet(path)
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"reading t.parquet needs pyarrow"):
        read_table(path)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r"reading t.xlsx needs openpyxl"):
        read_table(file(zipped("", "xl/workbook.xml"), "t.xlsx"))


@pytest.mark.parametrize("pack", [str.encode, lambda text: gzip.compress(text.encode())])
def test_a_table_in_parts_is_the_same_table(file, pack):
    rows = [f"r{i};{i}.5;{i * i},25" if i % 2 else f"r{i};?;{i}" for i in range(25)]
    path = file(pack("\n".join(["key;a;b", *(row.replace(".", ",") for row in rows)])))
    whole, parts = read_table(path, ["b", "a"]), list(read_parts(path, ["b", "a"], 10))
    assert [len(part.features) for part in parts] == [10, 10, 5]
    pd.testing.assert_frame_equal(pd.concat([part.features for part in parts], ignore_index=True), whole.features)
    pd.testing.assert_frame_equal(pd.concat([part.own for part in parts], ignore_index=True), whole.own)
    assert parts[1].gap == ("line 12 of t.csv", "a", 5)


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_a_file_with_types_in_parts_is_the_same_table(tmp_path, kind):
    path = tmp_path / "table"
    table = pd.DataFrame(np.arange(50.0).reshape(25, 2), columns=COLUMNS)
    getattr(table, f"to_{kind}")(path)
    parts = list(read_parts(path, COLUMNS, 10))
    assert [len(part.features) for part in parts] == [10, 10, 5]
    pd.testing.assert_frame_equal(pd.concat([part.features for part in parts], ignore_index=True), table)
