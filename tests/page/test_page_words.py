"""The page's sentences."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

import bayesgmm as bg
from bayesgmm.covariance import NAMES, CovarianceModel
from bayesgmm.page import words
from bayesgmm.page.facts import facts_of_fit, facts_of_posterior


@pytest.fixture(scope="module")
def facts():
    X = bg.datasets.iris()
    return facts_of_fit(bg.fit_em(X, 3, rng=0), X, "iris.csv")


def test_every_covariance_model_has_words_of_its_own():
    said = {words.components_in_words(CovarianceModel.named(name), 3, 4).partition(":")[0] for name in NAMES}
    assert len(said) == 14


def test_the_command_makes_the_same_page_again(facts):
    from bayesgmm.cli.arguments import parser

    def command(**run):
        return words.command(replace(facts, run=run))

    settings = {"source": "my table.csv", "covariance": "full", "draws": 100, "chains": 2, "sampler": "auto", "seed": 3}
    text = command(command="fit", arguments=settings)
    assert text == (
        "bayesgmm fit 'my table.csv' --components 3 --chains 2 --covariance full --draws 100 --sampler auto --seed 3"
    )
    import shlex

    parsed = parser()[0].parse_args(shlex.split(text)[1:])
    assert (parsed.components, parsed.draws, parsed.seed) == ("3", 100, 3)
    chosen = {"source": "a.csv", "components": "1:4", "posterior": None, "overfitted": True, "seed": 0}
    assert command(command="select", arguments=chosen) == "bayesgmm select a.csv --components 1:4 --overfitted --seed 0"
    assert command(command="demo", arguments={"source": "Old Faithful"}) == "bayesgmm demo"
    assert command() == ""


def test_a_fit_alone_says_that_it_has_no_doubt_about_itself(facts):
    said = " ".join(words.explanation(facts))
    assert "by EM's estimate" in said
    assert "nothing on this page shows how sure the estimates are" in said


def test_a_group_has_a_line_with_its_rows(facts):
    headings, lines = words.group_table(facts)
    assert headings == ["weight", *(f"mean of {name}" for name in facts.features)]
    assert sum(line.n_rows for line in lines) == 150
    assert [len(line.cells) for line in lines] == [5, 5, 5]


def test_every_page_says_what_to_quote_and_which_rows_to_be_careful_with(facts, faithful_posterior):
    alone = list(words.next_steps(facts))
    assert "estimates without intervals" in alone[0]
    doubtful = (facts.rows.probability < words.CLEAR).sum()
    assert f"{doubtful} rows in doubt" in alone[1]
    assert "bayesgmm select" in alone[2]
    drawn = facts_of_posterior(faithful_posterior, "geyser")
    low, high = np.quantile(np.asarray(bg.posterior(faithful_posterior).draws.weights)[..., 1], [0.055, 0.945])
    assert f"component 1 holds 64.3% of all rows (89% interval {low:.1%} to {high:.1%})" in next(
        words.next_steps(drawn)
    )


def test_nothing_is_to_be_quoted_from_draws_that_are_not_to_be_trusted(faithful_posterior):
    good = facts_of_posterior(faithful_posterior, "geyser")
    bad = replace(good.analysis.posterior, verdict=bg.Verdict(bg.Convergence.NOT_CONVERGED, "Not converged."))
    steps = list(words.next_steps(replace(good, analysis=replace(good.analysis, posterior=bad))))
    assert steps[0].startswith("Quote nothing from this page yet")
    assert not any("To quote" in step for step in steps)


def test_terms_are_explained_where_they_occur(facts, faithful_posterior):
    alone = dict(words.glossary(facts))
    drawn = dict(words.glossary(facts_of_posterior(faithful_posterior, "geyser")))
    assert {"component", "weight", "sd, standard deviation", "BIC, ICL, AIC", "covariance model"} <= set(alone)
    assert set(drawn) - set(alone) == {
        "correlation",
        "posterior, draws",
        "89% interval",
        "R-hat, effective draws",
        "elpd, leave-one-out",
    }


def test_the_shares_of_rows_within_ellipses_are_those_of_a_normal_distribution(facts):
    """A squared distance in two features is chi-square with two degrees of freedom."""
    inner, outer = (int(share) for share in re.findall(r"(\d+)%", words.points_in_words(facts)))
    assert [inner, outer] == [round(100 * chi2.cdf(radius**2, 2)) for radius in (1, 2)]


def test_errors_of_the_values_count_in_what_a_fit_says_of_rows():
    X = bg.datasets.iris()
    E = np.full(X.shape, 0.3)
    fit = bg.fit_em(X, 3, error_sd=E, n_starts=2, rng=0)
    told = facts_of_fit(fit, X, "iris", error_sd=E).rows.probability
    np.testing.assert_allclose(told, fit.mixture.responsibilities(X, error_sd=E).max(axis=1))
