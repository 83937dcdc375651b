"""Tables in parts on the command line: fitted, taken up again, labelled; and what cannot be had of them."""

import json
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from command_line import refusal, run
from distributed import LocalCluster

import bayesgmm as bg
from bayesgmm import passes
from bayesgmm.bayes import many_rows
from bayesgmm.cli import files, in_parts

FEW = "--draws", 200, "--chains", 2


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Rows of two clusters in three files."""
    path = tmp_path_factory.mktemp("rows")
    X, _ = bg.fit_em(bg.datasets.old_faithful(), 2, rng=0).mixture.sample(3_000, rng=0)
    for i, part in enumerate(np.array_split(X, 3)):
        pd.DataFrame(part, columns=["eruptions", "waiting"]).to_parquet(path / f"{i}.parquet")
    return path


@pytest.fixture(scope="module")
def result(parts, tmp_path_factory):
    """Where a fit was written, and what was printed."""
    out = tmp_path_factory.mktemp("results") / "fit"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_parts, "_SHOWN", 500)
        status, printed, said = run("fit", parts / "*.parquet", "-k", 2, "--em-only", "--out", out)
    assert (status, said) == (0, "")
    return out, printed


@pytest.fixture(scope="module")
def with_posterior(parts, tmp_path_factory):
    """Where a fit with its posterior was written, and what was printed."""
    out = tmp_path_factory.mktemp("results") / "posterior"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many_rows, "SAMPLE_ROWS", 500)
        status, printed, said = run("fit", parts / "*.parquet", "-k", 2, *FEW, "--out", out)
    assert (status, said) == (0, "")
    return out, printed


def test_a_fit_is_that_of_all_rows_and_shows_some(parts, result):
    out, printed = result
    fit = bg.fit_em(str(parts / "*.parquet"), 2, rng=0)
    written = files.written_fit(out)
    assert written.log_likelihood == fit.log_likelihood
    np.testing.assert_array_equal(written.mixture.means, fit.mixture.means)
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["n_observations"], summary["n_parts"], summary["n_shown"]) == (3_000, 3, 500)
    assert len(pd.read_csv(out / "responsibilities.csv")) == 500
    assert "3000 rows, 2 columns (eruptions, waiting)" in " ".join(printed.split())
    assert "from all 3000 rows. Pictures, page and responsibilities.csv show 500" in " ".join(printed.split())
    assert "a random sample of 500 of its 3000 rows" in (out / "report.html").read_text("utf-8")
    assert not (out / "unfinished").exists()


def test_rows_may_lack_values_where_there_is_no_posterior(parts, tmp_path):
    whole = pd.read_parquet(parts)
    whole = whole.mask(np.random.default_rng(0).random(whole.shape) < 0.1)
    for i, part in enumerate(np.array_split(np.arange(len(whole)), 2)):
        whole.iloc[part].to_parquet(tmp_path / f"{i}.parquet")
    out, here = tmp_path / "out", bg.fit_em(whole, 2, rng=0)
    command = "fit", tmp_path / "*.parquet", "-k", 2, "--out", out
    assert f"{here.missing}. The posterior of a table in parts needs complete rows" in refusal(*command)
    refused = f"{here.missing}; fill them in, leave these rows out, or leave out --fail-on-missing"
    assert refused in refusal(*command, "--fail-on-missing")
    assert refused in refusal("select", *command[1:4], "--fail-on-missing", "--out", tmp_path / "select")
    status, printed, _ = run(*command, "--em-only")
    assert status == 0
    assert str(here.missing) in " ".join(printed.split())
    assert files.written_fit(out).log_likelihood == pytest.approx(here.log_likelihood, abs=2e-3)
    assert len(pd.read_csv(out / "responsibilities.csv")) == len(whole)
    status, printed, _ = run("assign", out, tmp_path / "*.parquet", "--out", tmp_path / "labels")
    assert status == 0
    found = pd.read_parquet(tmp_path / "labels")["label"]
    np.testing.assert_array_equal(found, files.written_fit(out).mixture.predict(whole))


def test_the_posterior_is_of_all_rows_and_what_is_said_of_rows_of_some(parts, with_posterior):
    out, printed = with_posterior
    text = " ".join(printed.split())
    assert "Laplace's approximation is good" in text
    assert "all 3000 rows; what is said of single rows, and drawn, is of " in text
    assert "Leave-one-out needs every row in memory, and is left out." in text
    drawn = bg.posterior(xr.load_datatree(out / "posterior.nc"))
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["n_observations"], summary["n_parts"], summary["elpd_loo"]) == (3_000, 3, None)
    assert summary["n_shown"] == len(drawn.rows) == len(pd.read_csv(out / "responsibilities.csv")) < 1_000
    assert summary["not_drawn"] == {}
    assert f"a random sample of {len(drawn.rows)} of its 3000 rows" in (out / "report.html").read_text("utf-8")
    found = pd.read_csv(out / "components.csv").set_index(["parameter", "component"])
    X = pd.read_parquet(parts)
    fit = bg.fit_em(X, 2, rng=0)
    sd = fit.standard_errors(X)
    for k in range(2):
        of_means = found.loc["means", k]
        np.testing.assert_allclose(of_means["em"], fit.mixture.means[k], rtol=1e-4)
        np.testing.assert_allclose(of_means["sd"], sd.means[k], rtol=0.3)
    assert (found["lower"] < found["upper"]).all()
    assert not (out / "unfinished").exists()


def test_an_approximation_that_is_refused_is_said_and_everything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("bayesgmm.bayes.sample.promising", lambda weighted, laplace: False)
    X, _ = bg.fit_em(bg.datasets.old_faithful(), 1, rng=0).mixture.sample(1_000, rng=0)
    pd.DataFrame(X, columns=["eruptions", "waiting"]).to_parquet(tmp_path / "one.parquet")
    pattern = tmp_path / "*.parquet"
    status, printed, _ = run("fit", pattern, "-k", 3, *FEW, "--out", tmp_path / "out")
    assert status == 0
    assert "is not to be trusted" in " ".join(printed.split())
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["not_drawn"] == {}
    assert "Not to be trusted yet" in (tmp_path / "out" / "report.html").read_text("utf-8")


@pytest.mark.parametrize("name", ["result", "with_posterior"])
def test_the_report_is_the_same_again(name, request):
    out, printed = request.getfixturevalue(name)
    page = (out / "report.html").read_text("utf-8")
    status, again, _ = run("report", out)
    assert status == 0
    assert (out / "report.html").read_text("utf-8") == page
    assert "rows: a random sample" not in page  # it is said once
    assert again == printed[: printed.index("Written to")]


def test_draws_are_kept_for_a_fit_that_is_stopped_after_them(parts, with_posterior, tmp_path, monkeypatch):
    stop = Mock(side_effect=KeyboardInterrupt)
    command = "fit", parts / "*.parquet", "-k", 2, *FEW, "--out", tmp_path / "out"
    monkeypatch.setattr(many_rows, "SAMPLE_ROWS", 500)
    with monkeypatch.context() as patch:
        patch.setattr(in_parts, "summarise", stop)
        assert run(*command)[0] == 130
    monkeypatch.setattr(many_rows, "modes_of", stop)
    assert run(*command)[0] == 0
    one, other = (pd.read_csv(directory / "components.csv") for directory in (tmp_path / "out", with_posterior[0]))
    pd.testing.assert_frame_equal(one, other)


def test_rows_are_read_for_what_is_shown_only_once(parts, tmp_path, monkeypatch):
    surveys = Mock(side_effect=passes.survey)
    monkeypatch.setattr("bayesgmm.checkpoints.survey", surveys)
    assert run("fit", parts, "-k", 2, "--em-only", "--out", tmp_path / "fit")[0] == 0
    assert run("select", parts, "-k", 2, "--out", tmp_path / "select")[0] == 0
    assert surveys.call_count == 2


def test_parts_of_priors_from_a_file_are_those_of_the_posterior(parts, tmp_path):
    (tmp_path / "priors.json").write_text('{"concentration": [400, 400]}')
    command = "fit", parts, "-k", 2, *FEW, "--priors", tmp_path / "priors.json", "--out", tmp_path / "out"
    assert run(*command)[0] == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["priors"].startswith("weights ~ Dirichlet(400, 400)")
    assert summary["arguments"]["given_priors"] == {"concentration": [400, 400]}
    X = pd.read_parquet(parts)
    drawn = bg.posterior(xr.load_datatree(tmp_path / "out" / "posterior.nc"))
    np.testing.assert_allclose(drawn.priors.means.location, X.mean(), rtol=1e-9)
    n = np.array(drawn.fit.mixture.weights) * len(X)
    np.testing.assert_allclose(drawn.draws.weights.mean(axis=(0, 1)), (n + 400) / (len(X) + 800), atol=0.01)


def test_a_fit_that_was_stopped_goes_on(parts, tmp_path, monkeypatch):
    stages = []

    def stop(table, *given, **options):
        def progress(*step):
            if step[0] == "pass 2":
                raise KeyboardInterrupt

        return bg.fit_em(table, *given, **options | {"progress": progress})

    command = "fit", parts, "-k", 2, "--out", tmp_path / "out", "--em-only"
    with monkeypatch.context() as patch:
        patch.setattr(in_parts, "fit_em", stop)
        status, _, said = run(*command)
    assert status == 130
    assert "the same command goes on" in said
    assert "n_components 2 has done, and in this one it is 3" in refusal(*command[:2], "-k", 3, *command[4:])
    monkeypatch.setattr(
        in_parts,
        "fit_em",
        lambda *given, **options: bg.fit_em(*given, **options | {"progress": lambda *step: stages.append(step[0])}),
    )
    assert run(*command)[0] == 0
    assert "pass 2" in stages
    assert not {"rows looked at", "EM climbs", "pass 1"} & set(stages)


def test_rows_are_drawn_and_labelled_by_a_posterior_of_parts(parts, with_posterior, tmp_path):
    out, _ = with_posterior
    assert run("assign", out, parts, "--out", tmp_path / "labels")[0] == 0
    found, X = pd.read_parquet(tmp_path / "labels"), pd.read_parquet(parts)
    draws = bg.posterior(xr.load_datatree(out / "posterior.nc")).draws
    np.testing.assert_allclose(
        found["probability"], draws.reshape(-1).responsibilities(X).mean(axis=0).max(axis=1), atol=0.02
    )
    assert (found["lower"] < found["upper"]).any()
    status, printed, _ = run("sample", out, "-n", 5)
    assert (status, len(printed.splitlines())) == (0, 6)


def test_rows_are_labelled_by_a_fit_and_by_a_posterior(parts, result, finished, tmp_path):
    X = pd.read_parquet(parts)
    status, printed, _ = run("assign", result[0], parts, "--out", tmp_path / "by_fit")
    assert status == 0
    assert printed.startswith("3000 rows by label")
    mixture = files.written_fit(result[0]).mixture
    np.testing.assert_array_equal(pd.read_parquet(tmp_path / "by_fit")["label"], mixture.predict(X))
    tables = [parts / f"{i}.parquet" for i in range(3)]
    assert run("assign", finished[0], *tables, "--out", tmp_path / "by_draws")[0] == 0
    found = pd.read_parquet(tmp_path / "by_draws")
    assert (found["lower"] <= found["upper"]).all()
    assert (found["label"] == mixture.predict(X)).mean() > 0.98


def test_sizes_are_compared_and_a_comparison_that_was_stopped_goes_on(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(in_parts, "_SHOWN", 500)
    command = "select", parts, "-k", "1:3", "--starts", 4, "--out"
    status, printed, said = run(*command, tmp_path / "whole")
    assert (status, said) == (0, "")
    assert "3000 rows, 2 columns (eruptions, waiting)" in " ".join(printed.split())
    assert "a random sample of 500 of its 3000 rows" in (tmp_path / "whole" / "report.html").read_text("utf-8")
    page = (tmp_path / "whole" / "report.html").read_text("utf-8")
    assert run("report", tmp_path / "whole")[0] == 0
    assert (tmp_path / "whole" / "report.html").read_text("utf-8") == page
    stages = []

    def stopped(*given, **options):
        def progress(*step):
            if step[0] == "pass 3":
                raise KeyboardInterrupt

        return bg.select(*given, **options | {"progress": progress})

    def told(*given, **options):
        return bg.select(*given, **options | {"progress": lambda *step: stages.append(step[0])})

    monkeypatch.setattr(in_parts, "select", stopped)
    assert run(*command, tmp_path / "out")[0] == 130
    monkeypatch.setattr(in_parts, "select", told)
    assert run(*command, tmp_path / "out")[0] == 0
    assert "pass 3" in stages
    assert not {"rows looked at", "pass 1", "pass 2"} & set(stages)
    pd.testing.assert_frame_equal(*(pd.read_csv(tmp_path / name / "selection.csv") for name in ("whole", "out")))


def test_the_workers_of_a_cluster_read_files(parts, with_posterior, tmp_path, monkeypatch):
    with LocalCluster(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0") as local:
        address = local.scheduler_address
        monkeypatch.setattr(many_rows, "SAMPLE_ROWS", 500)
        assert run("fit", parts, "-k", 2, *FEW, "--cluster", address, "--out", tmp_path / "out")[0] == 0
    one, other = (pd.read_csv(directory / "components.csv") for directory in (tmp_path / "out", with_posterior[0]))
    pd.testing.assert_frame_equal(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "{}", "-k", "1:3"], "with one number of components; bayesgmm select -k 1:3 compares several by EM"),
        (["fit", "{}", "-k", "2", "--id", "waiting"], "--id is for a table that fits in memory"),
        (["fit", "{}", "-k", "2", "--noise"], "--noise is for a table that fits in memory"),
        (["fit", "{}", "-k", "2", "--sampler", "pymc"], "--sampler is for a table that fits in memory"),
        (["fit", "{}/*.npy", "-k", "2"], "no file is called"),
        (["fit", "{}", "-k", "2", "--columns", "depth"], "has no column 'depth'"),
        (["fit", "a.csv", "b.csv", "-k", "2"], r"a.csv is no table that can be read in parts"),
        (["select", "{}", "--criteria", "cv"], "'cv' fits a table in parts once without every fold"),
        (["assign", "{result}", "{}"], "give --out a directory"),
    ],
    ids=["range", "id", "noise", "sampler", "pattern", "column", "text", "select", "assign"],
)
def test_what_cannot_be_had_of_a_table_in_parts_is_said(parts, result, tmp_path, arguments, message):
    filled = [argument.format(parts, result=result[0]) for argument in arguments]
    out = ["--out", tmp_path / "out"] if filled[0] == "fit" else []
    assert message in run(*filled, *out)[2].splitlines()[-1]
