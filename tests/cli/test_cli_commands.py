"""Whole runs: what stops them, what they leave when they are stopped, and that they go on from there."""

import contextlib
import gzip
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
    (tmp_path / "gap.csv").write_text("a,b\n1,2\n3,\n5,6\n4,3\n")
    assert "line 3 of gap.csv, column 'b'" in refusal("fit", tmp_path / "gap.csv", "--fail-on-missing", *out)
    (tmp_path / "flat.csv").write_text("a,b\n1,2\n3,2\n5,2\n4,2\n")
    assert "'b' is constant" in refusal("fit", tmp_path / "flat.csv", *out)
    said = refusal("fit", folder / "iris.csv", *out)
    assert "column 'species' holds text, such as 'setosa'" in said
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
    pictures = {"report.html", "criteria.png", "predictions.png", "averaged.png"}
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
    out, summary = tmp_path / "out", files.write_summary

    def killed(directory, content):
        summary(directory, content)
        raise KeyboardInterrupt

    command = ("fit", folder / "geyser.csv", "-k", "1:2", "--covariance", "tied", "--out", out, *FEW)
    monkeypatch.setattr(files, "write_summary", killed)
    assert run(*command)[0] == 130
    assert (out / "k1" / "summary.json").exists()
    assert not (out / "summary.json").exists()
    monkeypatch.setattr(files, "write_summary", summary)
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
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        status, out, err = run("fit", folder / "geyser.csv", "-k", 2, "--out", tmp_path / "out", "--draws", 50_000)
    finally:
        signal.signal(signal.SIGINT, before)
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
    done = subprocess.run([sys.executable, "-m", "bayesgmm"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: bayesgmm ")


def test_a_packed_table_on_standard_input_gives_one_json_value(folder, tmp_path):
    """As in ``gzip -c table.csv | bayesgmm fit - -k 2 --json | python -m json.tool``."""
    command = [sys.executable, "-m", "bayesgmm", "fit", "-", "-k", "2", "--json", "--out", tmp_path / "out", *FEW]
    packed = gzip.compress((folder / "geyser.csv").read_bytes())
    done = subprocess.run(command, input=packed, capture_output=True, check=True)
    summary = json.loads(done.stdout)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["arguments"]["source"] == "standard input"
    assert b"The components" in done.stderr


def test_quiet_prints_nothing_but_notes(folder, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text((folder / "geyser.csv").read_text().replace("3.333", "-999", 1))
    status, out, err = run("fit", table, "-k", 2, "--em-only", "--quiet", "--out", tmp_path / "out")
    assert (status, out) == (0, "")
    assert re.fullmatch(r"bayesgmm: note: column 'eruptions' is -999 in 1 row .*--missing=-999\n", err)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["table"]["notes"] == [err[16:-1]]


def test_the_table_s_own_columns_stand_beside_the_results(tmp_path):
    table = bg.datasets.old_faithful().round(2).astype({"eruptions": object})
    table.insert(0, "id", [f"{i:04d}" for i in range(len(table))])
    table["label"], table["seen by"] = "x", ["Ann, Bob"] * len(table)
    table.to_csv(tmp_path / "t.csv", index=False)
    out = tmp_path / "out"
    command = ("fit", tmp_path / "t.csv", "-k", 2, "--em-only", "--out", out)
    said = refusal(*command, "--id", "id")
    assert "columns 'label', 'seen by' hold text, such as 'x'; choose numeric columns with" in said
    assert run(*command, "--id", "id", "--columns", "waiting,eruptions")[0] == 0
    rows = pd.read_csv(out / "responsibilities.csv", dtype=str)
    own = ["id", "eruptions", "waiting", "table_label", "seen by"]
    assert list(rows.columns[:7]) == ["row", *own, "label"]
    assert (rows[own].to_numpy() == table.astype(str).to_numpy()).all()
    assert rows["p_0"].str.len().max() <= 11  # six digits and an exponent
    given = json.loads((out / "summary.json").read_text())["arguments"]
    names = ("id", "columns", "em_only", "components", "table")
    assert [given[name] for name in names] == ["id", "waiting,eruptions", True, "2", str(tmp_path / "t.csv")]


def test_priors_from_a_file_are_those_of_the_posterior(folder, tmp_path):
    (tmp_path / "priors.json").write_text('{"concentration": [400, 400]}')
    out = tmp_path / "out"
    command = ("fit", folder / "geyser.csv", "-k", 2, "--priors", tmp_path / "priors.json", "--out", out, *FEW)
    assert run(*command, "--quiet")[0] == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["priors"].startswith("weights ~ Dirichlet(400, 400)")
    assert summary["arguments"]["given_priors"] == {"concentration": [400, 400]}
    weights = pd.read_csv(out / "components.csv").query("parameter == 'weights'")["mean"]
    assert abs(weights[0] - 0.5) < 0.07  # 0.36 without


def test_a_reader_that_leaves_is_no_error():
    """As head does, which closes the pipe after its first lines."""
    command = [sys.executable, "-m", "bayesgmm", "completion", "bash"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
