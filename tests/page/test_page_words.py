"""The page's sentences."""

import pytest

import bayesgmm as bg
from bayesgmm.covariance import NAMES, CovarianceModel
from bayesgmm.page import words
from bayesgmm.page.facts import facts_of_fit


@pytest.fixture(scope="module")
def facts():
    X = bg.datasets.iris()
    return facts_of_fit(bg.fit_em(X, 3, rng=0), X, "iris.csv")


def test_every_covariance_model_has_words_of_its_own():
    said = {words.components_in_words(CovarianceModel.named(name), 3, 4).partition(":")[0] for name in NAMES}
    assert len(said) == 14


def test_the_command_makes_the_same_page_again(facts):
    from dataclasses import replace

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
