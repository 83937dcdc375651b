"""A table is numbers with known gaps, or is refused in a sentence that says where and what to do."""

import gzip

import numpy as np
import pytest
from command_line import zipped

from bayesgmm.cli.dialects import TextOptions
from bayesgmm.cli.reading import read_parts, read_table, refuse_missing
from bayesgmm.errors import InputError

PLAIN = "a,b\n1.5,2\n3,-4e-3\n"


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
        (gzip.compress(PLAIN.encode() * 99, mtime=0)[:-20], "cannot be unpacked"),
        (zipped("a,b", "one.csv", "two.csv"), "holds 2 files"),
        (b"PAR1junk", "not a whole Parquet file"),
        (b"ARROW1junk", "not a whole Feather file"),
    ],
)
def test_an_unusable_file_is_refused_with_the_place(file, text, said):
    with pytest.raises(InputError, match=said):
        read_table(file(text))


def test_an_unknown_column_is_answered_with_the_known_ones(file):
    with pytest.raises(InputError, match="no column 'z'; it has a, b"):
        read_table(file("a,b\n1,2\n"), ["a", "z"])
    with pytest.raises(InputError, match=r"no column 'wating'; did you mean 'waiting'\?"):
        read_table(file("waiting,b\n1,2\n"), ["wating"])


def test_errors_are_in_columns_named_after_those_of_the_values(file):
    path = file("a,e_b,b,c,e_x\n1,0.1,2,x,9\n3,,,y,9\n5,0.3,6,z,9\n")
    for columns in (["b", "a"], ["a", "b"]):
        table = read_table(path, columns, error_prefix="e_")
        assert list(table.features.columns) == list(table.errors.columns) == columns
        np.testing.assert_array_equal(table.errors["a"], 0.0)
        np.testing.assert_array_equal(table.errors["b"], [0.1, 0.0, 0.3])  # that of a missing value does not count
        parts = list(read_parts(path, columns, 2, error_prefix="e_"))
        np.testing.assert_array_equal(np.concatenate([part.errors for part in parts]), table.errors)
    assert read_table(path, ["a"]).errors is None
    table = read_table(file("b,e_b\n1,0.1\n2,0.2\n"), error_prefix="e_")
    assert list(table.features.columns) == ["b"]


@pytest.mark.parametrize(("prefix", "given"), [("sd_", "sd_"), ("Err ", "'Err '"), ("e", "e")])
def test_columns_named_like_errors_of_others_are_noted(file, prefix, given):
    table = read_table(file(f"mass,{prefix}mass,radius,{prefix}radius\n1,0.1,2,0.3\n2,0.2,2.5,0.1\n"))
    assert table.features.shape == (2, 4)
    (note,) = table.notes
    assert f"'{prefix}mass' and '{prefix}radius'" in note
    assert note.endswith(f"give --error-prefix {given}")


@pytest.mark.parametrize("others", ["sd_mass,radius", "mass,max_mass", "mass,massive"])
def test_other_columns_are_not_taken_for_errors(file, others):
    assert read_table(file(f"{others}\n1,0.1\n2,0.2\n")).notes == ()


def test_errors_that_cannot_be_are_refused(file):
    for content, said in (
        ("b,e_b\n1,0.1\n2,\n", "line 3 of t.csv, column 'e_b': the error of a value is missing"),
        ("b,e_b\n1,0.1\n2,-2\n", "line 3 of t.csv, column 'e_b': the error -2 is negative"),
        ("b,c\n1,0.1\n2,2\n", "t.csv has no column whose name is 'e_' with that of another after it"),
    ):
        with pytest.raises(InputError, match=said):
            read_table(file(content), error_prefix="e_")
