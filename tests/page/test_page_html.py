"""The page as a file: what it holds, and that nothing in a table can break it."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayesgmm as bg
from bayesgmm.observations import observations
from bayesgmm.page.facts import facts_of_analysis, facts_of_fit
from bayesgmm.page.html import page_of, write_page
from bayesgmm.summary.analysis import summarise

NASTY = ["</script><script>alert(1)</script>", '"quoted" & <b>bold</b>', "{{ 7 * 7 }}", "x\u2028y"]


class Tags(HTMLParser):
    """The elements of a page, and whether each that is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.names, self.open, self.ids = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in ("meta", "link", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def data_of(text, name="data"):
    return json.loads(re.search(f'<script id="{name}" type="application/json">(.*?)</script>', text, re.S)[1])


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", html, flags=re.S))


def test_pages_are_well_formed_and_name_every_place_once(pages):
    for path in pages.values():
        tags = Tags(path.read_text("utf-8"))
        assert tags.open == []
        assert len(set(tags.ids)) == len(tags.ids)
        assert "h1" in tags.names


def test_a_selection_says_how_the_fit_to_report_gets_intervals(tmp_path):
    X = bg.datasets.old_faithful()
    text = text_of(
        bg.report(bg.select(X, (1, 2), "tied", ("bic",), rng=0), X, tmp_path / "page.html").read_text("utf-8")
    )
    assert "draw from the posterior: bayesgmm fit with -k 2 --covariance EEE." in text
    assert "--em-only" not in text
    assert "K The number of components." in text


def test_every_link_within_a_page_has_its_target(pages):
    for path in pages.values():
        text = path.read_text("utf-8")
        ids = set(Tags(text).ids)
        linked = set(re.findall(r'href="#([^"]+)"', text))
        assert linked <= ids
        for pictures in data_of(text, "pictures"):
            assert pictures in ids


def test_the_first_sentence_counts_the_rows_that_are_clear(pages, iris_posterior):
    clear = (bg.assign(iris_posterior, rng=0).label_probability >= 0.9).sum()
    said = text_of(pages["iris"].read_text("utf-8"))
    assert f"3 components, and it is clear for {clear} of the 150 rows which one they belong to." in said


@pytest.mark.parametrize("given", ["error_sd", "error_covariance"])
def test_errors_count_in_the_page_of_a_fit_and_of_a_selection(tmp_path, given):
    X = bg.datasets.iris()
    errors = {given: np.full(X.shape, 0.5) if given == "error_sd" else np.broadcast_to(0.25 * np.eye(4), (150, 4, 4))}
    selection = bg.select(X, 3, "EEE", ("bic",), **errors, n_starts=2, n_replicates=0, rng=0)
    fit = selection.recommend().fit
    clear, without = ((fit.mixture.responsibilities(X, **known).max(axis=1) >= 0.9).sum() for known in (errors, {}))
    assert clear != without
    for source in (fit, selection):
        page = bg.report(source, X, tmp_path / "page.html", **errors).read_text("utf-8")
        assert f"clear for {clear} of the 150 rows" in text_of(page)


def test_the_verdict_comes_first_where_the_draws_are_not_to_be_trusted(faithful_posterior):
    drawn = bg.posterior(faithful_posterior)
    bad = replace(drawn, verdict=bg.Verdict(bg.Convergence.NOT_CONVERGED, "Not converged."))
    analysis = summarise(bg.datasets.old_faithful(), faithful_posterior, bad, bg.loo(drawn, rng=0), 0)
    text = page_of(facts_of_analysis(analysis, "geyser"))
    (first,) = re.findall(r"<h1>(.*?)</h1>", text)
    assert first.startswith("Not to be trusted yet: the chains did not converge.")


def test_names_of_columns_are_only_text():
    X = pd.DataFrame(np.asarray(bg.datasets.iris()), columns=NASTY)
    text = page_of(
        facts_of_fit(bg.fit_em(X, 2, n_starts=2, rng=0), X, NASTY[0], ids=[NASTY[i % 4] for i in range(150)])
    )
    tags = Tags(text)
    assert tags.names.count("script") == 6  # data, pictures, three libraries, and the page's own
    assert "b" not in tags.names
    assert "alert(1)</script>" not in text
    assert data_of(text)["features"] == NASTY
    assert "49" not in data_of(text)["features"][2]
    assert "{{ 7 * 7 }}" in text


def test_a_missing_cell_is_null(tmp_path):
    X = bg.datasets.iris()
    X.iloc[3, 2] = np.nan
    text = bg.report(bg.fit_em(X, 2, n_starts=2, rng=0), X, tmp_path / "page.html").read_text("utf-8")
    assert data_of(text)["rows"]["x2"][3] is None
    assert "NaN" not in re.search(r'<script id="data".*?</script>', text, re.S)[0]


def test_rows_that_belong_to_no_component_are_named_as_noise(tmp_path):
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 8, [[40.0, -30.0], [-30.0, 40.0]]])
    text = bg.report(bg.fit_em(X, 2, noise=True, rng=0), X, tmp_path / "page.html").read_text("utf-8")
    assert data_of(text)["rows"]["group"][-2:] == [-1, -1]
    assert "2 rows most probably belong to none" in text_of(text)
    assert "noise: rows that belong to none" in text_of(text)


def test_a_page_of_many_rows_stays_small(tmp_path):
    """The analysis is of draws that are made up around EM's estimate, so that no sampling is needed."""
    N, rng = 100_000, np.random.default_rng(0)
    X = rng.normal(size=(N, 12)) + 1.2 * rng.integers(0, 4, N)[:, None] + 1000
    fit = bg.fit_em(X, 4, "diag", n_starts=2, rng=0)
    shape = (2, 20, 4, 12)
    draws = bg.GaussianMixture(
        np.broadcast_to(fit.mixture.weights, shape[:3]),
        fit.mixture.means + 0.01 * rng.normal(size=shape),
        np.broadcast_to(fit.mixture.covariances, (*shape, 12)),
    )
    drawn = bg.Posterior(draws, observations(X), em=fit.mixture, fit=fit, covariance_model=fit.covariance_model)
    drawn = replace(drawn, verdict=bg.Verdict(bg.Convergence.CONVERGED, "Converged."), features=fit.features)
    analysis = summarise(pd.DataFrame(X), None, drawn, None, 0)
    path = write_page(facts_of_analysis(analysis, "many"), tmp_path / "many.html")
    assert path.stat().st_size < 1_500_000
    said = text_of(path.read_text("utf-8"))
    assert "5000 of the 100000 rows are drawn" in said
    assert "The 2000 least certain of the 100000 rows are listed" in said
    told = data_of(path.read_text("utf-8"))
    assert sum(told["rows"]["drawn"]) == 5000
    assert len(told["listed"]) == 2000


def test_a_page_is_whole_or_not_there(tmp_path, monkeypatch):
    from bayesgmm.page import html

    X = bg.datasets.old_faithful()
    page = bg.report(bg.fit_em(X, 2, rng=0), X, tmp_path / "page.html")
    before = page.read_text("utf-8")
    monkeypatch.setattr(html, "page_of", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bg.report(bg.fit_em(X, 3, rng=0), X, tmp_path / "page.html")
    assert page.read_text("utf-8") == before
    assert list(tmp_path.iterdir()) == [page]


def test_the_same_facts_make_the_same_page():
    X = bg.datasets.old_faithful()
    fit = bg.fit_em(X, 2, rng=0)
    assert page_of(facts_of_fit(fit, X, "a")) == page_of(facts_of_fit(fit, X, "a"))


def test_what_no_page_can_be_made_of_is_refused(faithful_posterior, tmp_path):
    X, path = bg.datasets.old_faithful(), tmp_path / "page.html"
    fit = bg.fit_em(X, 2, rng=0)
    with pytest.raises(bg.InputError, match="the page of an EM fit needs the table"):
        bg.report(fit, path=path)
    with pytest.raises(bg.InputError, match="there are 3 ids for 272 rows"):
        bg.report(fit, X, path, ids=["a", "b", "c"])
    with pytest.raises(bg.InputError, match="with its table and its EM fit"):
        bg.report(bg.as_mixture(faithful_posterior), path=path)
    with pytest.raises(bg.InputError, match="needs a posterior"):
        bg.report(X, path=path)
    assert not path.exists()


def test_an_approximation_has_a_page_too(tmp_path):
    X = bg.datasets.old_faithful()
    tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), method="laplace", rng=0)
    said = text_of(bg.report(tree, path=tmp_path / "page.html").read_text("utf-8"))
    assert "The approximation is good." in said
    assert "elpd" not in said.split("How it was made")[0].split("Criteria")[1].replace("elpd larger", "")


def test_the_libraries_are_those_that_are_pinned():
    root = Path(bg.__file__).parent.parent
    run = subprocess.run([sys.executable, root / "tools/vendor", "--check"], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
