"""Estimates of EM alone: what is written and printed of them."""

import json

import numpy as np
import pandas as pd
import pytest
from command_line import run

import bayesgmm as bg


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_what_is_written_and_printed_is_the_fit(folder, tmp_path, covariance):
    out = tmp_path / "out"
    command = ("fit", folder / "geyser.csv", "-k", 2, "--em-only", "--covariance", covariance, "--out", out)
    status, printed, err = run(*command)
    assert (status, err) == (0, "")
    names = {"fit.npz", "responsibilities.csv", "components.csv", "clusters.png", "em_path.png", "summary.json"}
    names.add("report.html")
    assert {path.name for path in out.iterdir()} == names
    X = bg.datasets.old_faithful()
    fit = bg.fit_em(X, 2, covariance, rng=0)
    rows = pd.read_csv(out / "responsibilities.csv")
    np.testing.assert_allclose(rows[["p_0", "p_1"]], fit.mixture.responsibilities(X), rtol=1e-5, atol=1e-300)
    assert (rows["label"] == fit.mixture.predict(X)).all()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["bic"] == fit.bic
    assert f"BIC {fit.bic:.2f}" in printed
    assert "EM without posterior" in " ".join(printed.split())
    assert ("correlation" in printed) == (covariance == "full")


def test_parameters_are_those_that_the_posterior_has(folder, finished, tmp_path):
    command = ("fit", folder / "geyser.csv", "-k", 2, "--em-only", "--out", tmp_path)
    assert run(*command, "--quiet") == (0, "", "")
    of_posterior, of_em = (pd.read_csv(d / "components.csv") for d in (finished[0], tmp_path))
    pd.testing.assert_frame_equal(of_em, of_posterior[of_em.columns])


def test_one_component_holds_every_row(folder, tmp_path):
    status, printed, _ = run("fit", folder / "geyser.csv", "-k", 1, "--em-only", "--out", tmp_path)
    assert status == 0
    assert "least certain" not in printed


def test_doubts_are_in_the_report_and_no_warnings(folder, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text((folder / "geyser.csv").read_text().replace("3.333", "-500", 1))
    status, printed, err = run("fit", table, "-k", 2, "--em-only", "--out", tmp_path / "out")
    assert (status, err) == (0, "")
    assert "times as wide as any other in 'eruptions'" in " ".join(printed.split())
