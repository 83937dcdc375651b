"""What is found out: where the draws do not keep the components apart, clusters take their place."""

import json

import numpy as np
import pandas as pd
import pytest
from command_line import FEW, FILES, OF_CLUSTERS, run

from bayesgmm.bayes import many_rows
from bayesgmm.cli import analysis
from bayesgmm.summary import analysis as summary


def shuffled(tree):
    """The posterior with the components of every other draw the other way round, as if nobody had relabelled."""
    new = tree.copy(deep=True)
    for name in ("weights", "means", "covariances"):
        values = new["posterior"][name].values
        values[:, ::2] = values[:, ::2, ::-1]
    return new


def test_where_components_are_not_kept_apart_everything_goes_by_clusters(finished, folder, tmp_path, monkeypatch):
    """And what is said of the clusters is what is said of the components where these are kept apart."""
    real, out = analysis.sample_posterior, tmp_path / "out"
    monkeypatch.setattr(analysis, "sample_posterior", lambda *a, **k: shuffled(real(*a, **k)))
    command = ("fit", folder / "geyser.csv", "-k", 2, "--out", out, *FEW)
    status, printed, err = run(*command)
    assert (status, err) == (0, "")
    first = printed.index("The draws do not keep the 2 components apart: in 50% of them")
    assert first < printed.index("The clusters: posterior mean and 89% interval")
    said = " ".join(printed.split())
    assert "try fewer components (-k 1) or the same covariance for all (--covariance tied)" in said
    assert "EM beside" not in said
    assert said.index("A row is in the cluster that the partition puts it in") < said.index("The least certain rows")
    assert "component 0" not in said
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
    monkeypatch.setattr(analysis, "sample_posterior", real)
    assert run(*command, "--force")[0] == 0
    assert {path.name for path in out.iterdir()} == FILES | OF_CLUSTERS
    assert json.loads((out / "summary.json").read_text())["ambiguous"] is False


def test_many_rows_are_partitioned_from_some(folder, tmp_path, monkeypatch):
    real, out = analysis.sample_posterior, tmp_path / "out"
    monkeypatch.setattr(analysis, "sample_posterior", lambda *a, **k: shuffled(real(*a, **k)))
    monkeypatch.setattr(summary, "PARTITION_ROWS", 100)
    status, printed, _ = run("fit", folder / "geyser.csv", "-k", 2, "--out", out, *FEW)
    assert status == 0
    assert "The partition has 2 clusters: it was found from 100 rows drawn at random" in " ".join(printed.split())
    assert {path.name for path in out.iterdir()} == (FILES | OF_CLUSTERS | {"clusters.csv"}) - {
        "similarity.png",
        "credible_ball.png",
    }


def test_numbers_whose_components_are_not_kept_apart_are_named_first(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "stray_rate", lambda _, labels: float(labels.max()))  # from two components on
    few = [*FEW, "--covariance", "tied", "--columns", "waiting"]
    status, printed, _ = run("fit", folder / "geyser.csv", "-k", "1:2", "--out", tmp_path / "out", *few)
    assert status == 0
    said = " ".join(printed.split())
    assert "do not keep the components of K = 2 apart" in said
    assert "files in k2/ go by the clusters" in said
    assert said.index("do not keep") < said.index("Which mixture?")
    assert (tmp_path / "out" / "k2" / "clusters.csv").exists()
    assert not (tmp_path / "out" / "k1" / "clusters.csv").exists()


def test_a_table_of_many_rows_gets_a_checked_approximation_with_leave_one_out(tmp_path, monkeypatch):
    monkeypatch.setattr(many_rows, "MANY", 1000)
    rng, out = np.random.default_rng(5), tmp_path / "out"
    X = np.concatenate([rng.normal(mean, 1.0, (700, 1)) for mean in (0.0, 8.0)])
    pd.DataFrame(X, columns=["x"]).to_csv(tmp_path / "rows.csv", index=False)
    status, printed, err = run("fit", tmp_path / "rows.csv", "-k", 2, "--out", out)
    assert (status, err) == (0, "")
    assert "Laplace's approximation is good" in " ".join(printed.split())
    told = json.loads((out / "summary.json").read_text())
    assert told["divergences"] == 0
    assert told["elpd_loo"] == pytest.approx(told["log_likelihood"] - 5, abs=3)  # five parameters
    page = (out / "report.html").read_text("utf-8")
    assert run("report", out)[0] == 0
    assert (out / "report.html").read_text("utf-8") == page
