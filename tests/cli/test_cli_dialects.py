"""How a text is written is found out, or asked for where that is a guess."""

import numpy as np
import pytest

from bayesgmm.cli.dialects import TextOptions
from bayesgmm.cli.reading import read_table
from bayesgmm.errors import InputError

COLUMNS, VALUES = ["a", "b"], [[1.5, 2.0], [3.0, -4e-3]]
PLAIN = "a,b\n1.5,2\n3,-4e-3\n"


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
