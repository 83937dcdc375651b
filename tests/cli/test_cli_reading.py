"""A file is read as it stands, or refused in a sentence that says where."""

import sys

import numpy as np
import pandas as pd
import pytest

from bayesgmm.cli.reading import read_table
from bayesgmm.errors import InputError

COLUMNS, VALUES = ["a", "b"], [[1.5, 2.0], [3.0, -4e-3]]


@pytest.fixture
def file(tmp_path):
    def write(content, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1.5,2\n3,-4e-3\n",
        "a;b\n1.5;2\n3;-4e-3\n",
        "a;b\n1,5;2\n3;-0,004\n",
        "a\tb\n1.5\t2\n3\t-4e-3\n",
        '"a","b"\r\n"1.5",2\r\n3,-.004\r\n',
        "\ufeffa,b\n1.5,2\n3,-4e-3",
        "\n a , b \n\n1.5 , 2\n  \n3, -4e-3\n\n",
    ],
    ids=["comma", "semicolon", "decimal comma", "tab", "quotes and CRLF", "BOM", "blanks"],
)
def test_every_dialect_gives_the_same_table(file, text):
    table = read_table(file(text))
    assert list(table.columns) == COLUMNS
    np.testing.assert_array_equal(table, VALUES)


@pytest.mark.parametrize("text", ["1.5,2\n3,-4e-3\n", "1,5;2\n3;-0,004\n"])
def test_a_first_line_of_numbers_is_data(file, text):
    table = read_table(file(text))
    assert list(table.columns) == ["x0", "x1"]
    np.testing.assert_array_equal(table, VALUES)


def test_a_fraction_in_the_first_line_makes_it_data(file):
    table = read_table(file("5.1,setosa\n4.9,setosa\n"), ["x0"])
    np.testing.assert_array_equal(table, [[5.1], [4.9]])


def test_whole_numbers_may_be_column_names(file):
    assert list(read_table(file("id,2019\nx,1\ny,2\n"), ["2019"]).columns) == ["2019"]


def test_columns_come_in_the_order_asked_for(file):
    table = read_table(file('a,"b, c",class\n1,2,x\n3,4,y\n'), ["b, c", "a"])
    assert list(table.columns) == ["b, c", "a"]


def test_parquet_is_read_like_csv(tmp_path):
    path = tmp_path / "t.parquet"
    pd.DataFrame(VALUES, columns=COLUMNS).assign(b=pd.array([2.0, -4e-3], "Float64")).to_parquet(path)
    table = read_table(path)
    assert list(table.columns) == COLUMNS
    np.testing.assert_array_equal(table, VALUES)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    pd.DataFrame(VALUES, columns=COLUMNS).to_parquet(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="pyarrow"):
        read_table(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("a,b\n", "no rows"),
        ("a,b\n1,2\n3,\n", "line 3 of t.csv, column 'b': the value is missing"),
        ("a,b\n\n1,2\n\nNA,4\n", "line 5 of t.csv, column 'a': the value is missing"),
        ('a,"b\nc"\n1,2\n3,?\n5,6\n', r"line 4 of t.csv, column 'b\\nc': '\?' is not a finite number"),
        ("1,2\ninf,4\n", "line 2 of t.csv, column 'x0': 'inf' is not a finite number"),
        ("a,b\n1,2\n3\n", "line 3 of t.csv, column 'b': the value is missing"),
        ("a,b\n1,2\n3,4,5\n", "line 3, saw 3"),
        ("a,b\nr1,1,2\nr2,3,4\n", "2 cells and the next 3"),
        ('"",a,b\n1,5,6\n2,7,9\n', "no name.*--columns a,b"),
        ("a,a\n1,2\n", "two columns of t.csv are called 'a'"),
        ("a,b,class\n1,2,x\n3,4,y\n", "column 'class' holds text; choose numeric columns with --columns a,b"),
        ("a,b,c\n1,p,x\n3,q,y\n", "columns 'b', 'c' hold text; .* --columns a$"),
        ("a b\n1 2\n3 4\n", "column 'a b' holds text"),
        (b"a,b\n1,\xff\n", "not UTF-8"),
        (b"PK\x03\x04\x00\xfe", "not UTF-8"),
    ],
)
def test_an_unusable_file_is_refused_with_the_place(file, text, said):
    with pytest.raises(InputError, match=said):
        read_table(file(text))


def test_an_unknown_column_is_answered_with_the_known_ones(file):
    with pytest.raises(InputError, match="no column 'z'; it has a, b"):
        read_table(file("a,b\n1,2\n"), ["a", "z"])


def test_a_directory_a_missing_file_and_a_false_parquet_are_told_apart(tmp_path, file):
    with pytest.raises(InputError, match="is a directory"):
        read_table(tmp_path)
    with pytest.raises(InputError, match="no file"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="not a Parquet file"):
        read_table(file("junk", "t.parquet"))
