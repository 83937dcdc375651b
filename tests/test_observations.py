"""Bad tables get one clear error that names the place; good ones pass unchanged."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse

import bayesgmm as bg
from bayesgmm.observations import numeric_table, observations


class Tensor:
    """Of another library: an array, or one that will not be one."""

    def __init__(self, values, error=None):
        self.values, self.error = values, error

    def __array__(self, dtype=None, copy=None):
        if self.error:
            raise self.error
        return np.asarray(self.values, dtype)


X = np.random.default_rng(0).normal(size=(50, 2))


def spoilt(value):
    Y = X.copy()
    Y[3, 1] = value
    return Y


BAD = {
    "inf": (spoilt(np.inf), "row 3, column 'x1' is infinite"),
    "several": (np.where(X > 1, np.inf, X), "more rows have such entries"),
    "no values": (np.c_[X, np.full(50, np.nan)], "column 'x2' has no values; leave it out"),
    "empty rows": (np.where(np.arange(50)[:, None] > 0, np.nan, X), "fewer than two rows have any value|is constant"),
    "empty": (np.empty((0, 2)), "no rows"),
    "no columns": (np.empty((5, 0)), "no columns"),
    "one row": (X[:1], "one row"),
    "one dimension": (X[:, 0], r"reshape\(-1, 1\)"),
    "three dimensions": (np.zeros((3, 3, 3)), "has 3"),
    "scalar": (3.0, "table of numbers"),
    "nothing": (None, "table of numbers"),
    "ragged": ([[1.0, 2.0], [3.0]], "differ in length: row 0 has 2 entries, row 1 has 1"),
    "dict": ({"a": [1.0, 2.0]}, r"not a value of type dict; give pandas.DataFrame\(X\)"),
    "dicts": ([{"a": 1.0}, {"a": 2.0}], r"type list of dict; give pandas.DataFrame\(X\)"),
    "generator": ((row for row in X), r"type generator; give list\(X\)"),
    "generators": ([iter(row) for row in X], r"give \[list\(row\) for row in X\]"),
    "sparse": (sparse.csr_array(X), r"type csr_array; it is sparse: give X.toarray\(\)"),
    "path": (Path("table.csv"), r"read the file first, as with pandas.read_csv\(X\)"),
    "fit": (bg.GaussianMixture([1.0], [[0.0]], [[[1.0]]]), "type GaussianMixture; give an array or a DataFrame"),
    "structured": (np.zeros(9, dtype=[("a", float)]), r"give pandas.DataFrame\(X\)"),
    "tensor": (Tensor(X, RuntimeError("use tensor.detach()")), r"type Tensor \(use tensor.detach\(\)\)"),
    "no rows": ([], "no rows"),
    "several columns": (
        pd.DataFrame({"a": X[:, 0], "kind": ["u"] * 50, "when": pd.date_range("2020", periods=50), "b": X[:, 1]}),
        r"'kind' holds text .* \(nor can 'when' be used\)",
    ),
    "constant": (np.c_[X, np.ones(50)], "'x2' is constant"),
    "duplicate": (np.c_[X, X[:, 0]], "'x0' and 'x2' are identical"),
    "complex": (X + 1j, "complex"),
    "text": (np.array([["a", "b"]] * 9), "text"),
    "numeric text": (X.astype(str), "text"),
    "dates": (np.array([["2020-01-01", "2020-01-02"]] * 9, "datetime64[D]"), "dates"),
    "text column": (pd.DataFrame({"a": X[:, 0], "kind": ["u"] * 50}), "'kind' holds text"),
    "same names": (pd.DataFrame(X, columns=["a", "a"]), "two columns are called 'a'"),
    "overflow": (X * 1e200, "rescale"),
    "lost digits": (X * 1e-9 + 1e9, "rescale|constant"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_table_is_refused_with_the_place(what):
    table, message = BAD[what]
    with pytest.raises(bg.InputError, match=message):
        observations(table)


GAPS = {  # tables with missing values, and where the first is
    "nan": (spoilt(np.nan), 3, 1),
    "Arrow": (pa.table({"a": [1.0, None, 4.0], "b": [2.0, 3.0, 1.0]}), 1, 0),
    "masked": (np.ma.masked_array(X, mask=np.arange(100).reshape(50, 2) == 5), 2, 1),
    "NA": (pd.DataFrame({"a": pd.array([1.0, None, 3.0] * 9, "Float64"), "b": np.arange(27.0)}), 1, 0),
    "None": ([[1.0, 2.0], [None, 3.0], [4.0, 5.0]], 1, 0),
}


@pytest.mark.parametrize("what", GAPS)
def test_missing_values_are_nan_and_refused_where_none_may_be(what):
    table, row, column = GAPS[what]
    checked = observations(table)
    assert np.argwhere(checked.missing)[0].tolist() == [row, column]
    with pytest.raises(bg.InputError, match=f"row {row}, column '{checked.features[column]}' is missing or NaN"):
        numeric_table(table)


def test_some_rows_keep_their_weights_and_errors():
    table = observations(X, np.arange(50.0), error_sd=np.abs(X))
    some = table.take(np.array([4, 9]))
    np.testing.assert_array_equal(some.values, X[[4, 9]])
    np.testing.assert_array_equal(some.sample_weight, [4, 9])
    np.testing.assert_array_equal(some.errors, X[[4, 9]] ** 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"error_sd": np.ones(3)}, r"shape \(3,\); \(2,\) or \(50, 2\) is needed"),
        ({"error_sd": np.where(X > 1, -1.0, 1.0)}, "error_sd of column 'x[01]', row [0-9]+ is -1"),
        ({"error_sd": [1.0, np.nan]}, "error_sd of column 'x1' is nan"),
        ({"error_sd": "small"}, "error_sd must hold numbers"),
        ({"error_covariance": np.ones(2)}, "for standard deviations use error_sd"),
        ({"error_covariance": [[1.0, 2.0], [2.0, 1.0]]}, "not a covariance"),
        ({"error_sd": np.ones(2), "error_covariance": np.eye(2)}, "not both"),
    ],
    ids=["shape", "negative", "nan", "text", "covariance of two dimensions", "indefinite", "both"],
)
def test_errors_that_cannot_be_used_are_refused_with_the_place(given, message):
    with pytest.raises(bg.InputError, match=message):
        observations(X, **given)


@pytest.mark.parametrize(
    "same",
    [
        X.tolist(),
        pd.DataFrame(X),
        np.asfortranarray(X),
        X.astype(object),
        np.ma.masked_array(X),
        pa.table({"a": X[:, 0], "b": X[:, 1]}),
        Tensor(X),
        [[Decimal(x) for x in row] for row in X.tolist()],
    ],
    ids=["lists", "DataFrame", "column-major", "objects", "unmasked", "Arrow", "tensor", "decimals"],
)
def test_every_kind_of_table_gives_the_same_numbers(same):
    np.testing.assert_array_equal(numeric_table(same)[0], X)


def test_small_types_are_exact():
    np.testing.assert_array_equal(numeric_table(X.astype(np.float32))[0], X.astype(np.float32).astype(float))
    np.testing.assert_array_equal(numeric_table(np.arange(6, dtype=np.int8).reshape(3, 2))[0], [[0, 1], [2, 3], [4, 5]])


def test_a_contiguous_table_is_not_copied_and_not_changed():
    values, _ = numeric_table(X)
    assert np.shares_memory(values, X)
    assert not values.flags.writeable
    assert X.flags.writeable


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(3), r"shape \(3,\)"),
        (-np.ones(50), "row 0"),
        (np.full(50, np.nan), "row 0"),
        (np.zeros(50), "every sample_weight is zero"),
        (["a"] * 50, "one number per row"),
        (np.eye(50)[0], "fewer than two rows"),
    ],
)
def test_bad_weights_are_refused(weight, message):
    with pytest.raises(bg.InputError, match=message):
        observations(X, weight)
