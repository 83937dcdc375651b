"""A finished result is enough to print its report again, to assign new rows, and to draw some."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from command_line import refusal, run

from bayesgmm.cli import finished as module
from bayesgmm.summary import analysis


@pytest.fixture(scope="module")
def by_em(folder):
    """A result without posterior, and what was printed."""
    out = folder / "by_em"
    status, printed, err = run("fit", folder / "geyser.csv", "-k", 2, "--em-only", "--out", out)
    assert (status, err) == (0, "")
    return out, printed


def untimed(text):
    """A page without its seconds, and without line breaks, which depend on them."""
    return re.sub(r"[0-9.]+ s\b", "... s", " ".join(text.split()))


@pytest.mark.parametrize("result", ["finished", "compared", "selected", "by_em"])
def test_a_report_is_what_was_printed(result, request):
    out, printed = request.getfixturevalue(result)
    status, again, err = run("report", out)
    assert (status, err) == (0, "")
    # A result that was made again has taken another time.
    assert untimed(again) == untimed(printed[: printed.index("Written to")])
    status, again, _ = run("report", out, "--json")
    assert (status, json.loads(again)) == (0, json.loads((out / "summary.json").read_text()))


@pytest.fixture(scope="module")
def drawn(folder):
    """A selection with the posterior of a contender, of rows that have names and errors."""
    X = pd.read_csv(folder / "geyser.csv")
    X.assign(sd_eruptions=0.1, sd_waiting=2.0, key=[f"eruption {i}" for i in range(len(X))]).to_csv(
        folder / "drawn.csv", index=False
    )
    out = folder / "drawn"
    options = ("--id", "key", "--error-prefix", "sd_", "--criteria", "bic", "--posterior", "contenders")
    status, _, err = run("select", folder / "drawn.csv", "-k", 2, *options, "--replicates", 0, "--out", out)
    assert (status, err) == (0, "")
    return out, ""


def without_repairs(page):
    """A page without what it says of leave-one-out, whose repairs draw other numbers where many fits are compared."""
    return re.sub(r"Leave-one-out: [^<]*|<dd>[^<]*</dd><dt>elpd by leave-one-out", "", page)


@pytest.mark.parametrize("result", ["finished", "compared", "selected", "by_em", "drawn"])
def test_the_page_is_written_again_with_the_report(result, request, tmp_path):
    out = tmp_path / "moved"
    shutil.copytree(request.getfixturevalue(result)[0], out)
    before = (out / "report.html").read_text("utf-8")
    (out / "report.html").unlink()
    assert run("report", out)[0] == 0
    assert without_repairs((out / "report.html").read_text("utf-8")) == without_repairs(before)


def test_results_of_an_older_version_are_told_from_broken_ones(selected, by_em, tmp_path):
    for name, (out, _) in {"selected": selected, "by_em": by_em}.items():
        shutil.copytree(out, tmp_path / name)
    summary = json.loads((tmp_path / "selected" / "summary.json").read_text())
    best_first = {
        by: [[fit["covariance"], fit["n_components"]] for fit in fits] for by, fits in summary["rankings"].items()
    }
    (tmp_path / "selected" / "summary.json").write_text(json.dumps(summary | {"rankings": best_first}))
    with np.load(by_em[0] / "fit.npz") as arrays:
        fit = {name: values for name, values in arrays.items() if name != "table"}
    np.savez(tmp_path / "by_em" / "fit.npz", **fit)
    for name in ("selected", "by_em"):
        page = (tmp_path / name / "report.html").read_bytes()
        assert "was written by an older version of bayesgmm" in refusal("report", tmp_path / name)
        assert (tmp_path / name / "report.html").read_bytes() == page
    whole = (by_em[0] / "fit.npz").read_bytes()
    for content in (b"", whole[:-100], b"[1, 2]"):
        (tmp_path / "by_em" / "fit.npz").write_bytes(content)
        assert "fit.npz is not the file of a fit" in refusal("report", tmp_path / "by_em")


def test_the_report_of_one_of_several_has_its_own_numbers(compared):
    status, printed, _ = run("report", compared[0] / "k2")
    assert status == 0
    assert "2 components, covariance tied (EEE)" in printed


@pytest.mark.parametrize("result", ["finished", "by_em"])
def test_the_rows_that_were_fitted_are_assigned_as_they_were(result, folder, request, tmp_path, monkeypatch):
    """In parts, and in another order of the columns."""
    out, _ = request.getfixturevalue(result)
    monkeypatch.setattr(module, "_ROWS", 100)
    pd.read_csv(folder / "geyser.csv")[["waiting", "eruptions"]].to_csv(tmp_path / "new.csv", sep=";", index=False)
    assert run("assign", out, tmp_path / "new.csv", "--out", tmp_path / "assigned.csv") == (0, "", "")
    fitted, again = pd.read_csv(out / "responsibilities.csv"), pd.read_csv(tmp_path / "assigned.csv")
    assert set(fitted.columns) - set(again.columns) <= {"partition"}
    pd.testing.assert_frame_equal(again, fitted[again.columns])


def test_rows_are_assigned_to_clusters_where_components_are_not_kept_apart(folder, finished, tmp_path):
    """As said in the summary; the clusters are those of the partition, found again."""
    out = tmp_path / "clustered"
    out.mkdir()
    summary = json.loads((finished[0] / "summary.json").read_text())
    (out / "summary.json").write_text(json.dumps(summary | {"ambiguous": True}))
    (out / "posterior.nc").write_bytes((finished[0] / "posterior.nc").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "stray_rate", lambda *_: 1.0)
        status, printed, _ = run("assign", out, folder / "geyser.csv")
    assert status == 0
    (tmp_path / "assigned.csv").write_text(printed)
    assert (
        pd.read_csv(tmp_path / "assigned.csv")["cluster"] == pd.read_csv(finished[0] / "responsibilities.csv")["label"]
    ).all()


def test_new_rows_keep_their_own_columns(finished, tmp_path):
    (tmp_path / "new.csv").write_text("key,waiting,eruptions\n007,80,4.3\n008,55,2.0\n")
    status, printed, err = run("assign", finished[0], tmp_path / "new.csv", "--id", "key")
    assert (status, err) == (0, "")
    lines = [line.split(",") for line in printed.splitlines()]
    assert lines[0][:5] == ["row", "key", "waiting", "eruptions", "label"]
    assert [line[:5] for line in lines[1:]] == [["0", "007", "80", "4.3", "1"], ["1", "008", "55", "2.0", "0"]]


def test_rows_that_cannot_be_assigned_are_refused(finished, compared, selected, folder, tmp_path):
    (tmp_path / "new.csv").write_text("wait,eruptions\n80,4.3\n")
    assert "new.csv has no column 'waiting'; did you mean 'wait'?" in refusal(
        "assign", finished[0], tmp_path / "new.csv"
    )
    (tmp_path / "new.csv").write_text("waiting,eruptions\n80,\n")
    assert "line 2 of new.csv, column 'eruptions': the value is missing" in refusal(
        "assign", finished[0], tmp_path / "new.csv", "--fail-on-missing", "--out", tmp_path / "assigned.csv"
    )
    assert not (tmp_path / "assigned.csv").exists()
    (tmp_path / "new.csv").write_text("waiting,eruptions\n")
    assert "has no rows" in refusal("assign", finished[0], tmp_path / "new.csv", "--out", tmp_path / "assigned.csv")
    assert "holds no finished result" in refusal("assign", tmp_path, folder / "geyser.csv")
    assert f"give one of {compared[0] / 'k1'}, ..." in refusal("assign", compared[0], folder / "geyser.csv")
    assert "give a result of bayesgmm fit" in refusal("sample", selected[0], "-n", 3)


@pytest.mark.statistical
@pytest.mark.parametrize("result", ["finished", "by_em"])
def test_drawn_rows_have_the_mixture_s_mean(result, request, tmp_path, monkeypatch):
    """The mean of 20 000 rows is within six standard errors, for each of two columns: chance 4e-9."""
    out, _ = request.getfixturevalue(result)
    monkeypatch.setattr(module, "_ROWS", 7000)
    assert run("sample", out, "-n", 20_000, "--out", tmp_path / "drawn.csv") == (0, "", "")
    drawn = pd.read_csv(tmp_path / "drawn.csv")
    assert list(drawn.columns) == ["eruptions", "waiting", "component"]
    components = pd.read_csv(out / "components.csv")
    value = components["mean" if "mean" in components else "em"]
    weights = value[components["parameter"] == "weights"].to_numpy()
    means = value[components["parameter"] == "means"].to_numpy().reshape(2, 2)
    X = drawn[["eruptions", "waiting"]]
    # Means of products of draws differ from products of their means by covariances of weights and means, which are
    # below a hundredth of a component's posterior sd.
    slack = 6 * X.std() / np.sqrt(len(X)) + 0.01 * X.std()
    np.testing.assert_array_less(abs(X.mean() - weights @ means), slack)


def test_drawn_rows_depend_on_the_seed_alone(finished):
    first = run("sample", finished[0], "-n", 5, "--seed", 3)
    assert first == run("sample", finished[0], "-n", 5, "--seed", 3)
    assert first != run("sample", finished[0], "-n", 5, "--seed", 4)
    assert first[1].count("\n") == 6
