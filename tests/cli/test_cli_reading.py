"""A file is read as people mean it, or refused in a sentence that says where and what to do."""

import bz2
import gzip
import io
import lzma
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest

from bayesgmm.cli.dialects import TextOptions
from bayesgmm.cli.reading import read_parts, read_table, refuse_missing
from bayesgmm.errors import InputError

COLUMNS, VALUES = ["a", "b"], [[1.5, 2.0], [3.0, -4e-3]]
PLAIN = "a,b\n1.5,2\n3,-4e-3\n"


@pytest.fixture
def file(tmp_path):
    def write(content, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def zipped(content, *names):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return held.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "a;b\n1.5;2\n3;-4e-3\n",
        "a;b\n1,5;2\n3;-0,004\n",
        "a\tb\n1.5\t2\n3\t-4e-3\n",
        "a\tb\n1,5\t2\n3\t-0,004\n",
        "a|b\n1.5|2\n3|-4e-3\n",
        " a    b\n 1.5  2\n 3   -4e-3\n",
        '"a","b"\r\n"1.5",2\r\n3,-.004\r\n',
        '"a","b"\n"1,5","2"\n"3","-0,004"\n',
        "a,b\r1.5,2\r3,-4e-3\r",
        "\ufeffa,b\n1.5,2\n3,-4e-3",
        PLAIN.encode("utf-16"),
        "\n a , b \n\n1.5 , 2\n  \n3, −4e-3\n\n",
        "a,b\n1.5,2\n3,-4e-3\n,\n",
        "a,b,\n1.5,2,\n3,-4e-3,\n",
        "# made by a logger\n\n# 2024\na,b\n1.5,2\n3,-4e-3\n",
        "# a b\n1.5 2\n3 -4e-3\n",
        'a,b\n$1.5,2\n$3,"-4e-3"\n',
        "a,b\n1.5 %,2\n3%,-4e-3\n",
    ],
    ids=[
        *("comma", "semicolon", "decimal comma", "tab", "tab and decimal comma", "bar", "blanks", "quotes and CRLF"),
        *("quoted decimal comma", "CR", "BOM", "UTF-16", "blank lines", "empty row", "empty column", "comments"),
        *("savetxt", "currency", "per cent"),
    ],
)
def test_every_dialect_gives_the_same_table(file, text):
    table = read_table(file(text)).features
    assert list(table.columns) == COLUMNS
    np.testing.assert_array_equal(table, VALUES)


def test_decimal_commas_of_a_single_column_part_nothing(file):
    np.testing.assert_array_equal(read_table(file("a\n1,5\n3\n")).features, [[1.5], [3]])
    np.testing.assert_array_equal(read_table(file("waiting time\n1.5\n3\n")).features, [[1.5], [3]])


def test_separators_within_quotes_part_nothing(file):
    text = '"x, in mm; ""about""","y|z"\n1.5,2\n3,-4e-3\n'
    table = read_table(file(text)).features
    assert list(table.columns) == ['x, in mm; "about"', "y|z"]
    np.testing.assert_array_equal(table, VALUES)


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


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('a,b\n"1,234",2.5\n"12,345",3\n', [[1234, 2.5], [12345, 3]]),
        ("a;b\n1.234,5;2\n12.345;3,5\n", [[1234.5, 2], [12345, 3.5]]),
        ("a\tb\n1 234,5\t2\n12 345\t3,5\n", [[1234.5, 2], [12345, 3.5]]),
        ("a;b\n1'234.5;2\n12'345;3.5\n", [[1234.5, 2], [12345, 3.5]]),
    ],
)
def test_signs_between_thousands_are_read_where_they_can_be_nothing_else(file, text, values):
    np.testing.assert_array_equal(read_table(file(text)).features, values)


def test_what_a_user_says_of_a_table_comes_before_what_is_found_out(file):
    ambiguous = file('a;b\n"1,037";1\n"2,074";2\n')
    with pytest.raises(InputError, match=r"'1,037' in t.csv may be 1.037 or 1037; give --decimal , .*--thousands ,"):
        read_table(ambiguous)
    as_decimal = read_table(ambiguous, options=TextOptions(decimal=","))
    as_thousands = read_table(ambiguous, options=TextOptions(thousands=","))
    np.testing.assert_array_equal(as_decimal.features["a"] * 1000, as_thousands.features["a"])
    assert as_thousands.format["thousands"] == ","
    years = file("2019,2020\n1,2\n3,4\n")
    assert list(read_table(years, options=TextOptions(header=1)).features.columns) == ["2019", "2020"]
    assert len(read_table(years, options=TextOptions(header=0)).features) == 3
    units = read_table(file("a,b\n(mm),\n1,2\n"), options=TextOptions(header=2)).features
    assert list(units.columns) == ["a (mm)", "b"]
    odd = read_table(file("a:b\n1:2\n"), options=TextOptions(separator=":")).features
    np.testing.assert_array_equal(odd, [[1, 2]])


@pytest.mark.parametrize("text", ["1.5,2\n3,-4e-3\n", "1,5;2\n3;-0,004\n"])
def test_a_first_line_of_numbers_is_data_and_that_is_said(file, text):
    table = read_table(file(text))
    assert list(table.features.columns) == ["x0", "x1"]
    np.testing.assert_array_equal(table.features, VALUES)
    assert len(table.notes) == 1
    assert "is taken for a row; if it names the columns, give --header 1" in table.notes[0]


def test_whole_numbers_above_fractions_may_be_names_or_data(file):
    with pytest.raises(InputError, match=r"\(2019, 2020\) may name the columns or be a row; give --header 1 or"):
        read_table(file("2019,2020\n0.5,1.5\n0.25,1\n"))


def test_a_fraction_in_the_first_line_makes_it_data(file):
    table = read_table(file("5.1,setosa\n4.9,setosa\n"), ["x0"])
    np.testing.assert_array_equal(table.features, [[5.1], [4.9]])


def test_whole_numbers_may_be_column_names(file):
    assert list(read_table(file("id,2019\nx,1\ny,2\n"), ["2019"]).features.columns) == ["2019"]


def test_columns_come_in_the_order_asked_for_and_the_others_stay_as_they_stand(file):
    table = read_table(file('a,"b, c",class,code\n1,2,x,007\n3,4,y,012\n'), ["b, c", "a"], "code")
    assert list(table.features.columns) == ["b, c", "a"]
    assert list(table.own.columns) == ["a", "b, c", "class", "code"]
    assert list(table.own["code"]) == ["007", "012"]


@pytest.mark.parametrize("gap", ["", "NA", "nan", "?", "null", "None", "-", ".", "N/A", " "])
def test_gaps_are_missing_values_whose_place_is_known(file, gap):
    table = read_table(file(f"a,b\n\n1,2\n3,{gap}\n4,5\n"))
    np.testing.assert_array_equal(table.features, [[1, 2], [3, np.nan], [4, 5]])
    with pytest.raises(InputError, match=r"line 4 of t.csv, column 'b': the value is missing; fill it in or leave"):
        refuse_missing(table)


def test_what_stands_for_a_missing_value_can_be_said(file):
    path = file("a,b\n1,absent\n3,-999\n-999.0,5\n")
    table = read_table(path, options=TextOptions(missing=("Absent", "-999")))
    np.testing.assert_array_equal(table.features, [[1, np.nan], [3, np.nan], [np.nan, 5]])
    with pytest.raises(InputError, match=r"column 'b'.*\(and 2 more in the table\)"):
        refuse_missing(table)


def test_a_number_far_from_all_others_that_often_means_missing_is_noted(file):
    table = read_table(file("a,b\n1,9\n2,8\n-999,7\n3,9\n"))
    assert len(table.notes) == 1
    assert "column 'a' is -999 in 1 row and between 1 and 3 in all others" in table.notes[0]
    assert "--missing=-999" in table.notes[0]
    assert not read_table(file("a,b\n97,9\n98,8\n99,7\n96,9\n")).notes


def test_row_numbers_are_no_measurements(file):
    rows = "".join(f"{100 + i},{i * i % 7}.5,{i * i % 5}\n" for i in range(12))
    with pytest.raises(InputError, match=r"'nr' numbers the rows \(100, 101, ...\).*--id nr.*--columns a,b$"):
        read_table(file("nr,a,b\n" + rows))
    assert list(read_table(file("nr,a,b\n" + rows), ids="nr").features.columns) == ["a", "b"]
    assert len(read_table(file("nr,a,b\n" + rows), ["nr", "a"]).features.columns) == 2
    nameless = read_table(file(",a,b\n" + rows))
    assert list(nameless.features.columns) == list(nameless.own.columns) == ["a", "b"]
    assert "has no name and numbers the rows" in nameless.notes[0]
    shuffled = "".join(f"{(7 * i) % 13},{i * i % 7}.5\n" for i in range(13))
    with pytest.raises(InputError, match="column 'patient_id' numbers the rows"):
        read_table(file("patient_id,a\n" + shuffled))


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_files_with_types_are_read_like_text_whatever_their_name(tmp_path, kind):
    path = tmp_path / "table"
    table = pd.DataFrame(VALUES, columns=COLUMNS).assign(b=pd.array([None, -4e-3], "Float64"))
    getattr(table, f"to_{kind}")(path)
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


def test_parts_of_a_table_agree_on_their_units(file):
    with pytest.raises(InputError, match=r"column 'a' of t\.csv has numbers with and without %"):
        list(read_parts(file("a,b\n" + "1%,2\n" * 5 + "1,2\n" * 5), ["a"], 5))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("# only\n# words\n", "empty"),
        ("a,b\n", "no rows"),
        ('a,"b\nc"\n1,2\n3,x\n5,6\n', r"line 4 of t.csv, column 'b\\nc': 'x' is not a number; correct it or leave"),
        ("# note\na,b\n1,2\n3,x\n5,6\n", "line 4 of t.csv, column 'b': 'x' is not a number"),
        ("1,2\ninf,4\n", "line 2 of t.csv, column 'x0': 'inf' is not finite"),
        ("a,b\n(mm),(mm)\n1,2\n3,4\n5,6\n", r"line 2 of t.csv, column 'a': '\(mm\)' is not a number.*--header 2"),
        ("a,b\n1,2\n3\n", "line 3 of t.csv has 1 cell, but the table has 2 columns, taken to be parted by commas"),
        ("a,b\n1,2\n3,4,5\n", "line 3 of t.csv has 3 cells"),
        ("a,b\nr1,1,2\nr2,3,4\n", "line 2 of t.csv has 3 cells, but the table has 2 columns"),
        ('"",a,b\n1,5,6\n2,7,9\n', "column 1 of t.csv has no name.*--columns a,b"),
        ("a,a\n1,2\n", "two columns of t.csv are called 'a'; rename one$"),
        ("g,g\na,b\n1,2\n", "two columns of t.csv are called 'g'; rename one, or give --header 2"),
        ("a,b,class\n1,2,x\n3,4,x\n", "'class' holds text, such as 'x'; choose numeric columns with --columns a,b$"),
        ("a,b,key\n1,2,x\n3,4,y\n", "'key' holds text, .*--columns a,b, or keep it beside the results with --id key$"),
        ("a,b,c\n1,p,x\n3,q,y\n", "columns 'b', 'c' hold text, such as 'p'; .* --columns a$"),
        ('key,"b, c",d e\nx,1,2\n', r"""--columns '"b, c",d e'"""),
        ("a,b\nTrue,1\nFalse,2\n", "'a' holds text, such as 'True'"),
        ("x y\np q\nr s\n", "hold text.*none of its columns is numeric"),
        ("a;b\n1.000,5;0.5\n1.001,5;0.25\n", "'a' holds '1.000,5', a number by --decimal , --thousands ."),
        ("a,b\n1%,2\n$3,4\n", r"column 'a' of t.csv has numbers with \$ and %"),
        ('[{"a": 1}]', "is JSON"),
        (b"a,b\n1,\x81\n", "no text in UTF-8 or Windows-1252"),
        (b"a,b\n1,\0\n", "not a text file"),
        (b"PK\x03\x04\x00\xfe", "cannot be unpacked"),
        (gzip.compress(PLAIN.encode() * 99)[:-20], "cannot be unpacked"),
        (zipped("a,b", "one.csv", "two.csv"), "holds 2 files"),
        (b"PAR1junk", "not a whole Parquet file"),
        (b"ARROW1junk", "not a whole Feather file"),
    ],
)
def test_an_unusable_file_is_refused_with_the_place(file, text, said):
    with pytest.raises(InputError, match=said):
        read_table(file(text))


def test_a_text_that_is_not_utf8_is_read_and_that_is_said(file):
    table = read_table(file("Länge,b\n1.5,2\n3,-4e-3\n".encode("latin-1")))
    assert list(table.features.columns) == ["Länge", "b"]
    assert "Windows-1252" in table.notes[0]


def test_an_unknown_column_is_answered_with_the_known_ones(file):
    with pytest.raises(InputError, match="no column 'z'; it has a, b"):
        read_table(file("a,b\n1,2\n"), ["a", "z"])
    with pytest.raises(InputError, match=r"no column 'wating'; did you mean 'waiting'\?"):
        read_table(file("waiting,b\n1,2\n"), ["wating"])


def test_a_directory_and_a_missing_file_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="is a directory"):
        read_table(tmp_path)
    with pytest.raises(InputError, match="no file"):
        read_table(tmp_path / "absent.csv")
