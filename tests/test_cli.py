"""The command line: what it writes and says, what it refuses, and what it leaves when it is stopped."""

import contextlib
import io
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
from matplotlib.figure import Figure

import bayesgmm as bg
from bayesgmm import cli, outputs, plots, report
from bayesgmm.checkpoints import Checkpoints
from bayesgmm.cli import main

FEW = ["--draws", "50", "--chains", "2"]
FILES = {
    "posterior.nc",
    "responsibilities.csv",
    "components.csv",
    "clusters.png",
    "em_path.png",
    "posterior.png",
    "summary.json",
}
OF_CLUSTERS = {"uncertainty.png", "least_certain.png", "similarity.png", "credible_ball.png"}


@pytest.fixture(autouse=True, scope="module")
def no_stage_is_slow():
    """Whether a stage lasts a second is a matter of the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_NOTICEABLE", 3600.0)
        yield


def run(*arguments):
    """Exit status, standard output and standard error."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main([str(a) for a in arguments])
    return status, out.getvalue(), err.getvalue()


def refusal(*arguments):
    """The one sentence with which bad input is answered."""
    status, out, err = run(*arguments)
    assert status == 2
    assert out == ""
    assert err.startswith("bayesgmm: ") and err.count("\n") == 1
    return err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    bg.datasets.old_faithful().to_csv(folder / "geyser.csv", index=False)
    bg.datasets.iris().assign(species=bg.datasets.known_classes("iris")).to_csv(folder / "iris.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def finished(folder):
    """One run on Old Faithful: its directory and what it printed."""
    out = folder / "nested" / "result"
    status, printed, err = run("fit", folder / "geyser.csv", "-k", 2, "--out", out, *FEW)
    assert (status, err) == (0, "")
    return out, printed


@pytest.fixture(scope="module")
def compared(folder):
    """One run over several numbers of components."""
    out = folder / "several"
    status, printed, err = run("fit", folder / "geyser.csv", "-k", "1:3", "--covariance", "tied", "--out", out, *FEW)
    assert (status, err) == (0, "")
    return out, printed


def test_a_finished_run_leaves_its_files_and_nothing_else(finished):
    out, printed = finished
    assert {path.name for path in out.iterdir()} == FILES | OF_CLUSTERS
    for name in FILES | OF_CLUSTERS:
        assert name in printed
    for path in out.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


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
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert ((lower >= 0) & (lower <= upper) & (upper <= 1)).all()
    assert (table["label"] == p.argmax(axis=1)).all()
    assert (table["mutual_information"] <= table["entropy"] + 1e-12).all()


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


def test_the_three_tables_are_printed_plainly_in_a_hundred_columns(finished):
    _, printed = finished
    for title in ("The components", "EM beside the posterior", "The least certain rows"):
        assert title in printed
    assert max(map(len, printed.splitlines())) <= 100
    assert not any(ord(c) < 32 for c in printed if c != "\n")


def shuffled(tree):
    """The posterior with the components of every other draw the other way round, as if nobody had relabelled."""
    new = tree.copy(deep=True)
    for name in ("weights", "means", "covariances"):
        values = new["posterior"][name].values
        values[:, ::2] = values[:, ::2, ::-1]
    return new


def test_where_components_are_not_kept_apart_everything_goes_by_clusters(finished, folder, tmp_path, monkeypatch):
    """And what is said of the clusters is what is said of the components where these are kept apart."""
    real, out = report.sample_posterior, tmp_path / "out"
    monkeypatch.setattr(report, "sample_posterior", lambda *a, **k: shuffled(real(*a, **k)))
    command = ("fit", folder / "geyser.csv", "-k", 2, "--out", out, *FEW)
    status, printed, err = run(*command)
    assert (status, err) == (0, "")
    first = printed.index("The draws do not keep the 2 components apart: in 50% of them")
    assert first < printed.index("The clusters: posterior mean and 89% interval")
    said = " ".join(printed.split())
    assert "try fewer components (-k 1) or the same covariance for all (--covariance tied)" in said
    assert "EM beside" not in said and "component 0" not in said
    assert "Of the clusters R-hat is at most" in said
    assert {path.name for path in out.iterdir()} == FILES | OF_CLUSTERS | {"clusters.csv"}
    clear, rows = (pd.read_csv(d / "responsibilities.csv") for d in (finished[0], out))
    assert (rows["cluster"] == clear["label"]).all()
    for c in (0, 1):
        np.testing.assert_allclose(rows[f"cluster_p_{c}"], clear[f"p_{c}"], atol=0.02)
    clear, clusters = (pd.read_csv(d / name) for d, name in ((finished[0], "components.csv"), (out, "clusters.csv")))
    change = (clusters["mean"] - clear["mean"]).abs() / clear["sd"]
    assert change[clear["parameter"] != "covariances"].max() < 0.5  # rows in doubt widen covariances a little
    assert list(pd.read_csv(out / "components.csv")["em"]) == pytest.approx(list(clear["em"]))
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["ambiguous"], summary["stray_rate"]) == (True, 0.5)
    monkeypatch.setattr(report, "sample_posterior", real)
    assert run(*command, "--force")[0] == 0
    assert {path.name for path in out.iterdir()} == FILES | OF_CLUSTERS
    assert json.loads((out / "summary.json").read_text())["ambiguous"] is False


def test_many_rows_are_partitioned_from_some(folder, tmp_path, monkeypatch):
    real, out = report.sample_posterior, tmp_path / "out"
    monkeypatch.setattr(report, "sample_posterior", lambda *a, **k: shuffled(real(*a, **k)))
    monkeypatch.setattr(report, "_PARTITION_ROWS", 100)
    status, printed, _ = run("fit", folder / "geyser.csv", "-k", 2, "--out", out, *FEW)
    assert status == 0
    assert "The partition has 2 clusters: it was found from 100 rows drawn at random" in " ".join(printed.split())
    assert {path.name for path in out.iterdir()} == (FILES | OF_CLUSTERS | {"clusters.csv"}) - {
        "similarity.png",
        "credible_ball.png",
    }


def test_a_finished_result_is_refused_before_any_work(finished, folder, monkeypatch):
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    monkeypatch.setattr(report, "fit_em", lambda *_, **__: pytest.fail("it fitted"))
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
    assert rows["elpd_loo"].notna().all() and rows["weight"].sum() == pytest.approx(1)
    assert re.search(r"BIC \(.*chooses K=3", " ".join(printed.split())) and "LOO (" in printed
    one = json.loads((out / "k2" / "summary.json").read_text())
    assert one["elpd_loo"] == pytest.approx(rows.loc[2, "elpd_loo"])
    assert max(map(len, printed.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-k", "0"], "-k"),
        (["-k", "abc"], "'abc'"),
        (["-k", "3:1"], "'3:1'"),
        (["-k", "2.5"], "'2.5'"),
        ([], "-k"),
        (["-k", "2", "--covariance", "ful"], "'ful'"),
        (["-k", "2", "--columns", "eruptions,depth"], "'depth'"),
        (["-k", "2", "--columns", "waiting,waiting"], "--columns"),
        (["-k", "2", "--draws", "1"], "--draws"),
        (["-k", "2", "--chains", "0"], "--chains"),
        (["-k", "2", "--seed", "-1"], "--seed"),
        (["-k", "2", "--sampler", "gibbs"], "gibbs"),
        (["-k", "2", "--nonsense"], "--nonsense"),
        (["-k", "300"], "300"),
    ],
)
def test_a_bad_argument_is_named(folder, tmp_path, arguments, said):
    assert said in refusal("fit", folder / "geyser.csv", *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


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


def test_out_must_be_a_directory_and_not_the_tables_own(folder, tmp_path):
    assert "is a file" in refusal("fit", folder / "geyser.csv", "-k", 2, "--out", folder / "geyser.csv")
    table = tmp_path / "components.csv"
    table.write_text("1,2\n3,5\n6,6\n")
    assert "would be overwritten" in refusal("fit", table, "-k", 1, "--out", tmp_path)


def test_no_command_is_answered_with_the_way_to_help():
    assert "--help" in refusal()
    assert "--help" in refusal("guess")


def test_one_component_and_one_feature_need_no_special_care(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, printed, _ = run("fit", folder / "geyser.csv", "-k", 1, "--columns", "waiting", *FEW)
    assert status == 0
    assert "one component every row belongs to it" in printed
    assert {path.name for path in (tmp_path / "bayesgmm-geyser-k1").iterdir()} == FILES


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


def test_numbers_whose_components_are_not_kept_apart_are_named_first(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "stray_rate", lambda _, labels: float(labels.max()))  # from two components on
    few = [*FEW, "--covariance", "tied", "--columns", "waiting"]
    status, printed, _ = run("fit", folder / "geyser.csv", "-k", "1:2", "--out", tmp_path / "out", *few)
    assert status == 0
    said = " ".join(printed.split())
    assert "do not keep the components of K = 2 apart" in said and "files in k2/ go by the clusters" in said
    assert said.index("do not keep") < said.index("Which mixture?")
    assert (tmp_path / "out" / "k2" / "clusters.csv").exists()
    assert not (tmp_path / "out" / "k1" / "clusters.csv").exists()


def test_an_interrupted_fit_leaves_nothing(folder, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "fit_em", interrupt)
    status, out, err = run("fit", folder / "geyser.csv", "-k", 2, "--out", tmp_path / "out")
    assert (status, out, err.count("\n")) == (130, "", 1)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_write_leaves_whole_files_and_no_sign_of_an_end(folder, tmp_path, monkeypatch):
    def interrupt(self, path, **_):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupt)
    assert run("fit", folder / "geyser.csv", "-k", 2, "--out", tmp_path / "out", *FEW)[0] == 130
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "posterior.nc",
        "responsibilities.csv",
        "components.csv",
    }


def test_a_range_that_was_killed_between_its_parts_goes_on(folder, tmp_path, monkeypatch):
    """The directories that it has filled are no finished results of their own."""
    out, summary = tmp_path / "out", outputs._write_summary

    def killed(directory, content):
        summary(directory, content)
        raise KeyboardInterrupt

    command = ("fit", folder / "geyser.csv", "-k", "1:2", "--covariance", "tied", "--out", out, *FEW)
    monkeypatch.setattr(outputs, "_write_summary", killed)
    assert run(*command)[0] == 130
    assert (out / "k1" / "summary.json").exists() and not (out / "summary.json").exists()
    monkeypatch.setattr(outputs, "_write_summary", summary)
    status, _, err = run(*command)
    assert (status, err) == (0, "")
    for directory in (out, out / "k1", out / "k2"):
        with pytest.raises(bg.InputError, match="finished result"):
            outputs.refuse_to_overwrite(directory)


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


def test_an_interrupt_while_sampling_is_one(folder, tmp_path, monkeypatch):
    """The sampler's first word of its progress interrupts it, with two hundred thousand draws to go."""
    drawn = []

    @contextlib.contextmanager
    def interrupting():
        def tell(done, total):
            if total > 10_000 and not drawn:
                drawn.append(done)
                os.kill(os.getpid(), signal.SIGINT)

        yield lambda name: tell

    monkeypatch.setattr("bayesgmm.cli._progress", interrupting)
    status, out, err = run("fit", folder / "geyser.csv", "-k", 2, "--out", tmp_path / "out", "--draws", 50_000)
    assert (status, out, len(drawn)) == (130, "", 1), err
    # What was drawn by then, if anything, is there to go on from; nothing else is.
    assert {path.name for path in tmp_path.glob("out/*")} <= {"posterior.part.nc"}


def test_the_draws_of_an_interrupted_run_are_taken_up(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    command = ("fit", folder / "geyser.csv", "-k", 2, "--out", out, *FEW)
    real = report.sample_posterior

    def interrupted(*arguments, **options):
        tree = real(*arguments, **(options | {"draws": 40}))
        tree.attrs["partial"] = "interrupted with 40 of 60 draws in 2 of 2 chains"
        tree.to_netcdf(options["out"], engine="h5netcdf")
        return tree

    monkeypatch.setattr(report, "sample_posterior", interrupted)
    status, _, err = run(*command)
    assert status == 130 and "posterior.part.nc, and the same command goes on" in err
    kept = xr.load_datatree(out / "posterior.part.nc", engine="h5netcdf")
    monkeypatch.setattr(report, "sample_posterior", real)
    assert run(*command)[0] == 0
    whole = xr.load_datatree(out / "posterior.nc", engine="h5netcdf")
    assert not (out / "posterior.part.nc").exists()
    np.testing.assert_allclose(whole["posterior"]["means"][:, :40], kept["posterior"]["means"])


def test_the_demo_overwrites_its_own_result_only(finished, tmp_path):
    (tmp_path / "summary.json").write_text('{"command": "demo"}')
    outputs.refuse_to_overwrite(tmp_path, own_command="demo")
    assert "finished result" in refusal("demo", "--out", finished[0])


def test_the_demo_runs(tmp_path):
    status, printed, err = run("demo", "--out", tmp_path / "demo")
    assert (status, err) == (0, "")
    assert {path.name for path in (tmp_path / "demo").iterdir()} == FILES | OF_CLUSTERS
    assert "Converged" in printed and "BIC 2322.19" in printed


def test_help_comes_before_anything_heavy_is_loaded():
    program = (
        "import sys\n"
        "from bayesgmm.cli import main\n"
        "try: main(['fit', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'numpy', 'pandas', 'rich', 'pymc', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "responsibilities.csv" in done.stdout


SELECT = ["--components", "1:4", "--covariance", "tied,VVE", "--starts", "4", "--folds", "4", "--replicates", "20"]


@pytest.fixture(scope="module")
def selected(folder):
    """One selection on Old Faithful: its directory and what it printed."""
    out = folder / "selected"
    status, printed, err = run("select", folder / "geyser.csv", *SELECT, "--out", out)
    assert (status, err) == (0, "")
    return out, printed


def test_a_selection_leaves_its_files_and_nothing_else(selected):
    out, printed = selected
    assert {path.name for path in out.iterdir()} == {"selection.csv", "criteria.png", "summary.json"}
    assert "Written to" in printed and "criteria.png" in printed
    assert (out / "criteria.png").read_bytes().startswith(b"\x89PNG")


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
        assert (status, printed) == (130, "") and "interrupted" in err
        assert len(list((out / "unfinished").iterdir())) == n_files
    assert run("select", folder / "geyser.csv", *SELECT, "--out", out)[0] == 0
    done = [part for part in made if part is not None]
    assert len(done) == len(set(done)) > 12  # each once
    pd.testing.assert_frame_equal(pd.read_csv(out / "selection.csv"), pd.read_csv(selected[0] / "selection.csv"))
    assert not (out / "unfinished").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--covariance", "round"], "unknown covariance 'round'"),
        (["--covariance", "full,,tied"], "--covariance takes different names"),
        (["--criteria", "bic,waic"], "unknown criterion 'waic'"),
        (["--folds", "1"], "--folds must be at least 2"),
        (["-k", "0:3"], "counts components from 1"),
        (["--columns", "depth"], "depth"),
    ],
)
def test_a_selection_that_cannot_be_made_is_refused(folder, arguments, said):
    assert said in refusal("select", folder / "geyser.csv", *arguments, "--out", folder / "refused")
    assert not (folder / "refused").exists()


def test_a_finished_selection_is_not_overwritten(folder, selected):
    assert "--force" in refusal("select", folder / "geyser.csv", "--out", selected[0])


def test_what_takes_its_time_is_named_where_there_is_no_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "_NOTICEABLE", 0.0)
    status, _, err = run("fit", bg.datasets.__path__[0] + "/old_faithful.csv", "-k", 2, "--out", tmp_path, *FEW)
    assert status == 0 and "posterior draws ...\n" in err and "summaries ...\n" in err
