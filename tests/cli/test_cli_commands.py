"""Whole runs: what stops them, what they leave when they are stopped, and that they go on from there."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from command_line import FEW, FILES, OF_CLUSTERS, SELECT, refusal, run

import bayesgmm as bg
from bayesgmm.checkpoints import Checkpoints
from bayesgmm.cli import analysis, files, progress


def test_a_bad_table_is_named(folder, tmp_path):
    out = ["-k", "2", "--out", tmp_path / "out"]
    assert "absent.csv" in refusal("fit", folder / "absent.csv", *out)
    assert "directory" in refusal("fit", folder, *out)
    (tmp_path / "gap.csv").write_text("a,b\n1,2\n3,\n5,6\n")
    assert "line 3 of gap.csv, column 'b'" in refusal("fit", tmp_path / "gap.csv", *out)
    (tmp_path / "flat.csv").write_text("a,b\n1,2\n3,2\n5,2\n")
    assert "'b' is constant" in refusal("fit", tmp_path / "flat.csv", *out)
    said = refusal("fit", folder / "iris.csv", *out)
    assert "column 'species' holds text" in said
    assert "--columns Sepal.Length,Sepal.Width,Petal.Length,Petal.Width" in said
    assert not (tmp_path / "out").exists()


def test_the_demo_runs(tmp_path):
    status, printed, err = run("demo", "--out", tmp_path / "demo")
    assert (status, err) == (0, "")
    assert {path.name for path in (tmp_path / "demo").iterdir()} == FILES | OF_CLUSTERS
    assert "Converged" in printed
    assert "BIC 2322.19" in printed


def test_a_finished_result_is_refused_before_any_work(finished, folder, monkeypatch):
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    monkeypatch.setattr(analysis, "fit_em", lambda *_, **__: pytest.fail("it fitted"))
    assert "--force" in refusal("fit", folder / "geyser.csv", "-k", 2, "--out", out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_force_overwrites(finished, folder):
    out, _ = finished
    before = (out / "summary.json").stat().st_mtime_ns
    assert run("fit", folder / "geyser.csv", "-k", 2, "--out", out, *FEW, "--force")[0] == 0
    assert (out / "summary.json").stat().st_mtime_ns > before


def test_several_numbers_are_compared_and_each_is_kept(compared):
    out, printed = compared
    pictures = {"criteria.png", "predictions.png", "averaged.png"}
    assert {path.name for path in out.iterdir()} == {"k1", "k2", "k3", "selection.csv", "summary.json"} | pictures
    for k in (1, 2, 3):
        assert {path.name for path in (out / f"k{k}").iterdir()} == (FILES | OF_CLUSTERS if k > 1 else FILES)
    rows = pd.read_csv(out / "selection.csv").set_index("n_components")
    assert rows["bic"].idxmin() == 3
    assert rows.loc[3, "bic"] == pytest.approx(2314.30, abs=0.01)
    assert rows["elpd_loo"].notna().all()
    assert rows["weight"].sum() == pytest.approx(1)
    assert re.search(r"BIC \(.*chooses K=3", " ".join(printed.split()))
    assert "LOO (" in printed
    one = json.loads((out / "k2" / "summary.json").read_text())
    assert one["elpd_loo"] == pytest.approx(rows.loc[2, "elpd_loo"])
    assert max(map(len, printed.splitlines())) <= 100


def test_one_component_and_one_feature_need_no_special_care(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, printed, _ = run("fit", folder / "geyser.csv", "-k", 1, "--columns", "waiting", *FEW)
    assert status == 0
    assert "one component every row belongs to it" in printed
    assert {path.name for path in (tmp_path / "bayesgmm-geyser-k1").iterdir()} == FILES


def test_an_interrupted_fit_leaves_nothing(folder, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(analysis, "fit_em", interrupt)
    status, out, err = run("fit", folder / "geyser.csv", "-k", 2, "--out", tmp_path / "out")
    assert (status, out, err.count("\n")) == (130, "", 1)
    assert not (tmp_path / "out").exists()


def test_a_range_that_was_killed_between_its_parts_goes_on(folder, tmp_path, monkeypatch):
    """The directories that it has filled are no finished results of their own."""
    out, summary = tmp_path / "out", files._write_summary

    def killed(directory, content):
        summary(directory, content)
        raise KeyboardInterrupt

    command = ("fit", folder / "geyser.csv", "-k", "1:2", "--covariance", "tied", "--out", out, *FEW)
    monkeypatch.setattr(files, "_write_summary", killed)
    assert run(*command)[0] == 130
    assert (out / "k1" / "summary.json").exists()
    assert not (out / "summary.json").exists()
    monkeypatch.setattr(files, "_write_summary", summary)
    status, _, err = run(*command)
    assert (status, err) == (0, "")
    for directory in (out, out / "k1", out / "k2"):
        with pytest.raises(bg.InputError, match="finished result"):
            files.refuse_to_overwrite(directory)


def test_an_interrupt_while_sampling_is_one(folder, tmp_path, monkeypatch):
    """The sampler's first word of its progress interrupts it, with two hundred thousand draws to go."""
    drawn = []

    @contextlib.contextmanager
    def interrupting():
        def tell(_stage, done, total):
            if total > 10_000 and not drawn:
                drawn.append(done)
                os.kill(os.getpid(), signal.SIGINT)

        yield tell

    monkeypatch.setattr(progress, "progress_shown", interrupting)
    status, out, err = run("fit", folder / "geyser.csv", "-k", 2, "--out", tmp_path / "out", "--draws", 50_000)
    assert (status, out, len(drawn)) == (130, "", 1), err
    # What was drawn by then, if anything, is there to go on from; nothing else is.
    assert {path.name for path in tmp_path.glob("out/*")} <= {"posterior.part.nc"}


def test_the_draws_of_an_interrupted_run_are_taken_up(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    command = ("fit", folder / "geyser.csv", "-k", 2, "--out", out, *FEW)
    real = analysis.sample_posterior

    def interrupted(*arguments, **options):
        tree = real(*arguments, **(options | {"draws": 40}))
        tree.attrs["partial"] = "interrupted with 40 of 60 draws in 2 of 2 chains"
        tree.to_netcdf(options["out"], engine="h5netcdf")
        return tree

    monkeypatch.setattr(analysis, "sample_posterior", interrupted)
    status, _, err = run(*command)
    assert status == 130
    assert "posterior.part.nc, and the same command goes on" in err
    kept = xr.load_datatree(out / "posterior.part.nc", engine="h5netcdf")
    monkeypatch.setattr(analysis, "sample_posterior", real)
    assert run(*command)[0] == 0
    whole = xr.load_datatree(out / "posterior.nc", engine="h5netcdf")
    assert not (out / "posterior.part.nc").exists()
    np.testing.assert_allclose(whole["posterior"]["means"][:, :40], kept["posterior"]["means"])


def test_a_selection_is_the_one_that_select_makes(selected):
    arguments = {"n_starts": 4, "n_folds": 4, "n_replicates": 20, "rng": 0}
    chosen = bg.select(bg.datasets.old_faithful(), range(1, 5), ("tied", "VVE"), **arguments)
    pd.testing.assert_frame_equal(pd.read_csv(selected[0] / "selection.csv"), chosen.table)
    summary = json.loads((selected[0] / "summary.json").read_text())
    assert summary["conclusions"] == chosen.text.splitlines()
    assert (summary["covariance"], summary["n_components"]) == ("EEE", 3)
    assert " ".join(chosen.text.split()) in " ".join(selected[1].split())
    assert "EEE,3" in selected[1]


def test_an_interrupted_selection_is_taken_up(folder, selected, monkeypatch):
    """Whatever it was doing: the fits, a fold, or replicates."""
    out, made = folder / "interrupted", []
    arrays = Checkpoints.arrays

    def count(self, part, make):
        def counted():
            if len(made) in (3, 9, 14) and made[-1] is not None:
                made.append(None)
                raise KeyboardInterrupt
            made.append(part)
            return make()

        return arrays(self, part, counted)

    monkeypatch.setattr(Checkpoints, "arrays", count)
    for n_files in (3, 8, 12):
        status, printed, err = run("select", folder / "geyser.csv", *SELECT, "--out", out)
        assert (status, printed) == (130, "")
        assert "interrupted" in err
        assert len(list((out / "unfinished").iterdir())) == n_files
    assert run("select", folder / "geyser.csv", *SELECT, "--out", out)[0] == 0
    done = [part for part in made if part is not None]
    assert len(done) == len(set(done)) > 12  # each once
    pd.testing.assert_frame_equal(pd.read_csv(out / "selection.csv"), pd.read_csv(selected[0] / "selection.csv"))
    assert not (out / "unfinished").exists()


def test_a_finished_selection_is_not_overwritten(folder, selected):
    assert "--force" in refusal("select", folder / "geyser.csv", "--out", selected[0])


def test_the_package_runs_as_the_command():
    done = subprocess.run([sys.executable, "-m", "bayesgmm", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"bayesgmm {bg.__version__}\n"
    done = subprocess.run([sys.executable, "-m", "bayesgmm"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
