"""Runs over tables with missing values and errors: they say what the functions say, and what was missing."""

import json

import numpy as np
import pandas as pd
import pytest
from command_line import FEW, refusal, run

import bayesgmm as bg


@pytest.fixture(scope="module")
def incomplete(tmp_path_factory):
    """A table with missing values and errors of one column: its file, values, and errors."""
    rng, X = np.random.default_rng(0), bg.datasets.old_faithful()
    X = X.mask(rng.random(X.shape) < 0.1).dropna(how="all").reset_index(drop=True)
    sd = pd.DataFrame({"eruptions": 0.0, "waiting": rng.uniform(0.5, 3, len(X))})
    path = tmp_path_factory.mktemp("incomplete") / "t.csv"
    X.assign(sd_waiting=sd["waiting"]).to_csv(path, index=False)
    return path, X, sd


@pytest.fixture(scope="module", params=[["--em-only"], FEW], ids=["by EM", "posterior"])
def result(request, incomplete):
    """A fit of it: its directory and what was printed."""
    path, *_ = incomplete
    out = path.parent / request.param[0]
    status, printed, err = run("fit", path, "-k", 2, "--error-prefix", "sd_", "--out", out, *request.param)
    assert (status, err) == (0, "")
    return out, printed


def test_the_fit_is_that_of_the_values_with_their_errors(incomplete, result):
    _, X, sd = incomplete
    fit = bg.fit_em(X, 2, error_sd=sd, rng=0)
    summary = json.loads((result[0] / "summary.json").read_text())
    assert summary["log_likelihood"] == fit.log_likelihood
    assert summary["missing"] == X.isna().mean().to_dict()
    said = " ".join(result[1].split())
    assert str(fit.missing) in said
    assert "they mislead" in said


def test_unknown_values_are_in_a_file_with_intervals(incomplete, result):
    _, X, sd = incomplete
    written = pd.read_csv(result[0] / "imputed.csv")
    unknown = X.isna() | (sd > 0)
    assert list(zip(written["row"], written["column"], strict=True)) == [
        (i, X.columns[j]) for i, j in np.argwhere(unknown)
    ]
    assert (written["missing"] == X.isna().to_numpy()[unknown]).all()
    if (result[0] / "fit.npz").exists():
        expected = bg.impute(bg.fit_em(X, 2, error_sd=sd, rng=0), X, error_sd=sd).to_dataframe()
        pd.testing.assert_frame_equal(written, expected, rtol=1e-5)


@pytest.mark.parametrize("way", [["--em-only"], FEW], ids=["by EM", "posterior"])
def test_imputed_values_have_the_names_of_their_rows(tmp_path, way):
    X = bg.datasets.old_faithful()[:60]
    X.loc[[7, 20], "waiting"] = np.nan
    X.assign(day=[f"d{i}" for i in range(60)]).to_csv(tmp_path / "t.csv", index=False)
    assert run("fit", tmp_path / "t.csv", "-k", 1, "--id", "day", "--out", tmp_path / "out", "--quiet", *way)[0] == 0
    written = pd.read_csv(tmp_path / "out" / "imputed.csv")
    assert written[["row", "id", "column"]].to_numpy().tolist() == [[7, "d7", "waiting"], [20, "d20", "waiting"]]


def test_the_rows_are_assigned_again_as_they_were(incomplete, result, tmp_path):
    again = tmp_path / "again.csv"
    assert run("assign", result[0], incomplete[0], "--error-prefix", "sd_", "--out", again) == (0, "", "")
    fitted, again = pd.read_csv(result[0] / "responsibilities.csv"), pd.read_csv(again)
    pd.testing.assert_frame_equal(again, fitted[again.columns], rtol=1e-4, atol=1e-9)


def test_missing_values_are_refused_where_that_is_wanted(incomplete, tmp_path):
    out = ("--fail-on-missing", "--out", tmp_path)
    assert "the value is missing (and" in refusal("fit", incomplete[0], "-k", 2, *out)
    assert "the value is missing (and" in refusal("select", incomplete[0], *out)


def test_a_result_without_missing_values_keeps_no_file_of_them(incomplete, folder, tmp_path):
    command = ("-k", 2, "--em-only", "--force", "--out", tmp_path)
    assert run("fit", incomplete[0], "--columns", "eruptions,waiting", *command)[0] == 0
    assert (tmp_path / "imputed.csv").exists()
    status, printed, _ = run("fit", folder / "geyser.csv", *command)
    assert status == 0
    assert "mislead" not in printed
    assert not (tmp_path / "imputed.csv").exists()


def test_a_selection_says_what_was_missing(incomplete, tmp_path):
    command = ("select", incomplete[0], "--columns", "eruptions,waiting", "-k", "1:2", "--replicates", 0)
    status, _, err = run(*command, "--criteria", "bic", "--out", tmp_path)
    assert status == 0
    assert err.startswith("bayesgmm: note: ")
    assert "rows lack a value: eruptions" in err
    assert json.loads((tmp_path / "summary.json").read_text())["missing"].keys() == {"eruptions", "waiting"}
