"""A number is what people mean by it, in the one notation that is asked for."""

import math

import numpy as np
import pytest

from bayesgmm.cli.numerals import NOTATIONS, Notation, is_missing

POINT, COMMA = Notation(), Notation(",")


@pytest.mark.parametrize("notation", NOTATIONS)
def test_every_number_written_in_a_notation_is_read_in_it(notation):
    for value in (0.0, 1234567.25, -1234.5, 12.0, 0.001, -999.0):
        text = f"{value:,.3f}".replace(",", "T").replace(".", notation.decimal).replace("T", notation.thousands)
        assert notation.number(text) == (value, "")


def test_other_ways_to_write_the_same():
    for text in ("1e3", "1E+03", "+1000", "1000.", " 1000 ", "1000.0"):
        assert POINT.number(text).value == 1000
    assert POINT.number("−3").value == POINT.number("-3").value == -3
    assert Notation(",", " ").number("1\u202f234,5") == Notation(",", " ").number("1\u00a0234,5") == (1234.5, "")
    assert POINT.number("-inf").value == -math.inf


def test_units_are_told():
    assert POINT.number("12 %") == POINT.number("12%") == (12, "%")
    assert POINT.number("$3.5") == (3.5, "$")
    assert POINT.number("-$3") == POINT.number("$-3") == (-3, "$")
    assert COMMA.number("3,5 €") == (3.5, "€")


@pytest.mark.parametrize(
    "text", ["", "1,5", "1.5.2", "S001", "12 kg", "$3%", "--3", "-$-3", "1e", "2024-01-01", "0x1", "1_0"]
)
def test_what_is_no_number_is_none(text):
    assert POINT.number(text) is None


@pytest.mark.parametrize("text", ["0,123", "1,23", "12,3456", "1234,567"])
def test_groups_that_are_not_of_three_digits_are_no_thousands(text):
    assert Notation(".", ",").number(text) is None


def test_gaps_are_known_in_any_case():
    assert all(is_missing(cell) for cell in ("", " ", "NA", "NaN", "Null", "?", "#N/A"))
    assert not is_missing("0")
    assert is_missing("Absent", ["absent"])
    assert not np.any([is_missing(cell) for cell in ("x", "absent", "-1")])
