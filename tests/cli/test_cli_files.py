"""What is written: which files, what is in them, and that each is whole or not there."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from command_line import FEW, FILES, OF_CLUSTERS, refusal, run
from matplotlib.figure import Figure

import bayesgmm as bg
from bayesgmm import page, plots
from bayesgmm.bayes import tree
from bayesgmm.cli import files
from bayesgmm.summary.analysis import summarise


def test_a_finished_run_leaves_its_files_and_nothing_else(finished):
    out, printed = finished
    assert {path.name for path in out.iterdir()} == FILES | OF_CLUSTERS
    for name in FILES | OF_CLUSTERS:
        assert name in printed
    for path in out.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_a_selection_leaves_its_files_and_nothing_else(selected):
    out, printed = selected
    names = {"report.html", "selection.csv", "criteria.png", "fit.npz", "summary.json"}
    assert {path.name for path in out.iterdir()} == names
    assert "Written to" in printed
    assert "criteria.png" in printed
    assert (out / "criteria.png").read_bytes().startswith(b"\x89PNG")


def test_the_draws_open_with_xarray_as_they_were(finished):
    with xr.open_datatree(finished[0] / "posterior.nc", engine="h5netcdf") as tree:
        assert set(tree.children) >= {"posterior", "sample_stats", "log_likelihood", "observed_data", "em"}
        assert tree["posterior"]["means"].shape == (2, 50, 2, 2)
        assert list(tree["posterior"]["feature"].values) == ["eruptions", "waiting"]
        assert "converged" in tree.attrs["convergence"].lower()


def test_responsibilities_are_probabilities_within_their_intervals(finished):
    table = pd.read_csv(finished[0] / "responsibilities.csv")
    p, lower, upper = (table[[f"{name}_0", f"{name}_1"]].to_numpy() for name in ("p", "lower", "upper"))
    assert list(table["row"]) == list(range(272))
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-5)
    assert ((lower >= 0) & (lower <= upper) & (upper <= 1)).all()
    assert (table["label"] == p.argmax(axis=1)).all()
    assert (table["mutual_information"] <= table["entropy"] * (1 + 1e-5) + 1e-12).all()


def test_the_summary_agrees_with_em_and_is_plain_json(finished):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    summary = json.loads((finished[0] / "summary.json").read_text(), parse_constant=refuse)
    fit = bg.fit_em(bg.datasets.old_faithful(), 2, rng=0)
    assert summary["bic"] == pytest.approx(fit.bic)
    assert summary["log_likelihood"] == pytest.approx(fit.log_likelihood)
    assert (summary["n_observations"], summary["n_features"], summary["n_components"]) == (272, 2, 2)
    assert summary["arguments"]["draws"] == 50
    assert {"python", "numpy", "pymc", "arviz"} <= set(summary["versions"])


def test_components_are_the_comparison(finished):
    table = pd.read_csv(finished[0] / "components.csv")
    fit = bg.fit_em(bg.datasets.old_faithful(), 2, rng=0)
    means = table[table["parameter"] == "means"]
    np.testing.assert_allclose(means["em"], fit.mixture.means.ravel())
    assert ((table["lower"] <= table["mean"]) & (table["mean"] <= table["upper"])).all()


def test_out_must_be_a_directory_and_not_the_tables_own(folder, tmp_path):
    assert "is a file" in refusal("fit", folder / "geyser.csv", "-k", 2, "--out", folder / "geyser.csv")
    table = tmp_path / "components.csv"
    table.write_text("1,2\n3,5\n6,6\n")
    assert "would be overwritten" in refusal("fit", table, "-k", 1, "--out", tmp_path)


def test_the_demo_overwrites_its_own_result_only(finished, tmp_path):
    (tmp_path / "summary.json").write_text('{"command": "demo"}')
    files.refuse_to_overwrite(tmp_path, own_command="demo")
    assert "finished result" in refusal("demo", "--out", finished[0])


def test_an_interrupted_write_leaves_whole_files_and_no_sign_of_an_end(folder, tmp_path, monkeypatch):
    def interrupt(_figure, path, **_):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupt)
    assert run("fit", folder / "geyser.csv", "-k", 2, "--out", tmp_path / "out", *FEW)[0] == 130
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "posterior.nc",
        "responsibilities.csv",
        "components.csv",
    }


def test_a_picture_that_fails_is_named_and_costs_nothing_else(folder, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no\nink")

    monkeypatch.setattr(plots, "posterior", fail)
    monkeypatch.setattr(plots, "similarity", lambda *_: Figure(figsize=(1e6, 1)))  # too large to be saved
    status, printed, err = run("fit", folder / "geyser.csv", "-k", 2, "--out", tmp_path / "out", *FEW)
    assert (status, err) == (0, "")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == (FILES | OF_CLUSTERS) - {"posterior.png", "similarity.png"}
    said = " ".join(printed.split())
    assert "posterior.png could not be drawn (ValueError: no ink); everything else is complete." in said
    assert "similarity.png could not be drawn (ValueError: Image size" in said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(summary["not_drawn"]) == {"posterior.png", "similarity.png"}


def test_a_page_that_fails_is_named_and_costs_nothing_else(folder, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no\npaper")

    monkeypatch.setattr(page, "write_page", fail)
    status, printed, err = run("fit", folder / "geyser.csv", "-k", 2, "--out", tmp_path / "out", *FEW)
    assert (status, err) == (0, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == (FILES | OF_CLUSTERS) - {"report.html"}
    assert "report.html could not be drawn (ValueError: no paper)" in " ".join(printed.split())


def test_the_page_calls_rows_as_the_table_does(tmp_path):
    table = bg.datasets.old_faithful().assign(name=[f"eruption {i}" for i in range(272)])
    table.to_csv(tmp_path / "named.csv", index=False)
    for options in (FEW, ["--em-only"]):
        out = tmp_path / options[0].strip("-")
        assert run("fit", tmp_path / "named.csv", "-k", 2, "--id", "name", "--out", out, *options)[0] == 0
        assert '"eruption 271"' in (out / "report.html").read_text("utf-8")


def untold(done, total):
    """Progress that nobody asked for."""


def test_draws_that_an_interrupted_run_left_do_not_take_the_place_of_new_ones(faithful_posterior, tmp_path):
    """As where the new ones are by PyMC's sampler, which takes nothing up."""
    X, draws = bg.datasets.old_faithful(), faithful_posterior
    (tmp_path / files.PART).write_bytes(b"other draws")
    analysis = summarise(X, draws, bg.posterior(draws), bg.loo(draws, rng=0), 0, tell=untold)
    files.write_analysis(analysis, X, tmp_path, {}, untold)
    assert not (tmp_path / files.PART).exists()
    with xr.open_datatree(tmp_path / files.DRAWS, engine="h5netcdf") as written:
        np.testing.assert_array_equal(written["posterior"]["means"], draws["posterior"]["means"])


def test_the_draws_of_a_range_are_written_once(folder, tmp_path, monkeypatch):
    """By the sampler, as they come; afterwards the file is only given its place."""
    monkeypatch.setattr(tree, "write_tree", lambda *_: pytest.fail("it wrote them again"))
    out = tmp_path / "out"
    few = [*FEW, "--columns", "waiting", "--quiet"]
    assert run("fit", folder / "geyser.csv", "-k", "1:2", "--out", out, *few) == (0, "", "")
    for k in (1, 2):
        with xr.open_datatree(out / f"k{k}" / "posterior.nc", engine="h5netcdf") as written:
            assert written["posterior"]["means"].shape == (2, 50, k, 1)


def test_a_posterior_over_a_fit_by_em_leaves_nothing_of_that(folder, tmp_path):
    out = tmp_path / "out"
    assert run("fit", folder / "geyser.csv", "-k", 3, "--em-only", "--out", out)[0] == 0
    assert run("fit", folder / "geyser.csv", "-k", 2, "--out", out, *FEW, "--force")[0] == 0
    status, printed, _ = run("assign", out, folder / "geyser.csv")
    assert status == 0
    assigned, written = pd.read_csv(io.StringIO(printed)), pd.read_csv(out / "responsibilities.csv")
    assert "p_2" not in assigned
    np.testing.assert_allclose(assigned[["p_0", "p_1"]], written[["p_0", "p_1"]], rtol=1e-5, atol=1e-9)
