"""What is printed: it fits the page, whatever the table."""

import arviz as az
import numpy as np
import pandas as pd
import xarray as xr
from command_line import FEW, run

import bayesgmm as bg


def test_the_three_tables_are_printed_plainly_in_a_hundred_columns(finished):
    _, printed = finished
    for title in ("The components", "EM beside the posterior", "The least certain rows"):
        assert title in printed
    assert max(map(len, printed.splitlines())) <= 100
    assert not any(ord(c) < 32 for c in printed if c != "\n")


def test_the_level_of_all_intervals_is_arviz_s(folder, tmp_path):
    with az.rc_context({"stats.ci_prob": 0.5}):
        status, printed, _ = run("fit", folder / "geyser.csv", "-k", 2, "--out", tmp_path, *FEW)
    assert status == 0
    assert "mean and 50% interval" in printed
    assert "with 50% intervals" in printed
    assert "89%" not in printed
    rows = pd.read_csv(tmp_path / "responsibilities.csv")
    with xr.open_datatree(tmp_path / "posterior.nc", engine="h5netcdf") as tree:
        expected = bg.assign(tree, ci_prob=0.5, rng=0)
    np.testing.assert_allclose(rows["lower_1"], expected.lower[:, 1], rtol=1e-5)


def test_many_features_and_components_stay_within_the_page(tmp_path):
    rng = np.random.default_rng(0)
    X = 9.0 * np.repeat(np.eye(8), 12, axis=0) + rng.normal(size=(96, 8))
    pd.DataFrame(X, columns=[f"measurement number {j} [mm]" for j in range(8)]).to_csv(tmp_path / "t.csv", index=False)
    status, printed, _ = run(
        "fit", tmp_path / "t.csv", "-k", 8, "--covariance", "spherical", "--out", tmp_path / "out", *FEW
    )
    assert status == 0
    assert max(map(len, printed.splitlines())) <= 100
    said = " ".join(printed.split())
    assert "in components.csv: 2 other features" in said
    assert "other parameters are in components.csv" in said
    assert "component 7" in said


def test_names_of_columns_are_only_names(tmp_path):
    names = ["in_$ (out_$)", "[red]x[/red]", "two\nlines\x1b[31m", "$\\frac{$", "\u5927\u304d\u3055"]
    X = np.random.default_rng(0).normal(size=(60, 5)) + 9 * np.repeat([[0], [1]], 30, axis=0)
    pd.DataFrame(X, columns=names).to_csv(tmp_path / "t.csv", index=False)
    status, printed, err = run(
        "fit", tmp_path / "t.csv", "-k", 2, "--covariance", "diag", "--out", tmp_path / "out", *FEW
    )
    assert (status, err) == (0, "")
    assert "could not be drawn" not in printed
    assert not any(ord(c) < 32 for c in printed if c != "\n")
    for name in ("in_$ (out_$)", "[red]x[/red]", "two lines [31m", "$\\frac{$", "\u5927\u304d\u3055"):
        assert f"mean {name}" in printed
    assert set(pd.read_csv(tmp_path / "out" / "components.csv")["feature"].dropna()) == set(names)
    with xr.open_datatree(tmp_path / "out" / "posterior.nc", engine="h5netcdf") as tree:
        assert list(tree["posterior"]["feature"].values) == names
