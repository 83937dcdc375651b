"""Arguments: what they mean, and how bad ones are refused."""

import subprocess
import sys

import pytest
from command_line import refusal, run

import bayesgmm as bg
from bayesgmm.cli import analysis


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
        (["-k", "2", "--sampler", "nutpi"], "'nutpi' is none of auto, nutpie, pymc, gibbs; did you mean 'nutpie'?"),
        (["-k", "2", "--whatever"], "unknown argument '--whatever' (see bayesgmm fit --help)"),
        (["-k", "2", "--sede=3"], "unknown argument '--sede'; did you mean '--seed'?"),
        (["-k", "2", "--colums", "waiting"], "unknown argument '--colums'; did you mean '--columns'?"),
        (["-k", "2", "--covariance", "digg"], "did you mean 'diag'?"),
        (["-k", "2", "--columns", "wating"], "did you mean 'waiting'?"),
        (["-k", "2", "--separator", "::"], "'::' is neither one sign nor one of tab"),
        (["-k", "2", "--header", "x"], "--header"),
        (["-k", "300"], "-k 300 needs more than 300 different rows, and the table has 256"),
        (["-k", "2", "--covariance", "EVE", "--sampler", "gibbs"], "--sampler gibbs has no --covariance EVE, only EII"),
        (["-k", "1:3", "--em-only"], "--em-only takes one number of components"),
    ],
)
def test_a_bad_argument_is_named(folder, tmp_path, arguments, said):
    assert said in refusal("fit", folder / "geyser.csv", *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--covariance", "round"], "unknown covariance 'round'"),
        (["--covariance", "full,,tied"], "--covariance takes different names"),
        (["--criteria", "bic,waic"], "unknown criterion 'waic'"),
        (["--criteria", "bic,lo"], "did you mean 'loo'?"),
        (["--folds", "1"], "argument --folds: must be a whole number of at least 2, not '1'"),
        (["--folds", "300"], "--folds 300 is more than the 272 rows"),
        (["-k", "0:3"], "counts components from 1"),
        (["--columns", "depth"], "depth"),
    ],
)
def test_a_selection_that_cannot_be_made_is_refused(folder, arguments, said):
    assert said in refusal("select", folder / "geyser.csv", *arguments, "--out", folder / "refused")
    assert not (folder / "refused").exists()


def test_dependent_columns_are_refused_with_those_to_choose(tmp_path):
    X = bg.datasets.old_faithful()
    X.assign(sum=X.sum(axis=1)).to_csv(tmp_path / "t.csv", index=False)
    said = refusal("fit", tmp_path / "t.csv", "-k", 2, "--out", tmp_path / "out")
    assert "column 'sum' is in all 272 rows the same linear combination" in said
    assert said.endswith("leave it out: --columns eruptions,waiting\n")


def test_a_fit_that_collapses_is_answered_with_options(folder, tmp_path, monkeypatch):
    def collapse(*_, **__):
        raise bg.DegenerateFitError("use priors (Priors.weakly_informative)")

    monkeypatch.setattr(analysis, "fit_em", collapse)
    said = refusal("fit", folder / "geyser.csv", "-k", 2, "--out", tmp_path / "out")
    assert "give fewer components with -k, or a simpler --covariance" in said
    assert "Priors" not in said


def test_no_command_is_answered_with_help():
    status, out, err = run()
    assert (status, err) == (0, "")
    assert "usage: bayesgmm" in out
    assert "examples:" in out


def test_an_unknown_command_is_answered_with_the_nearest():
    assert "did you mean 'select'? (see bayesgmm --help)" in refusal("slect")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[1]", "must be an object with some of concentration, means, covariances"),
        ('{"weights": 1}', "must be an object with some of concentration, means, covariances"),
        ('{"means": {"kind": "Normal"}}', "cannot be understood; see bg.Priors.to_json"),
        ('{"concentration": [1, 2, 3]}', "K = 3 components"),
        ('{"concentration": -1}', "every concentration must be positive"),
    ],
)
def test_priors_that_cannot_be_used_are_refused(folder, tmp_path, content, said):
    (tmp_path / "priors.json").write_text(content)
    arguments = ("-k", 2, "--priors", tmp_path / "priors.json", "--out", tmp_path / "out")
    assert said in refusal("fit", folder / "geyser.csv", *arguments)


def test_priors_for_a_range_must_be_whole_and_for_any_number(folder, tmp_path):
    arguments = ("-k", "1:2", "--priors", tmp_path / "priors.json", "--out", tmp_path / "out")
    (tmp_path / "priors.json").write_text('{"concentration": 2}')
    assert "with a range of components all parts must be given" in refusal("fit", folder / "geyser.csv", *arguments)
    whole = bg.Priors.weakly_informative(bg.datasets.old_faithful(), 2)
    (tmp_path / "priors.json").write_text(whole.to_json())
    assert "must be a single number" in refusal("fit", folder / "geyser.csv", *arguments)


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_commands_and_options(shell):
    status, out, err = run("completion", shell)
    assert (status, err) == (0, "")
    for word in ("bayesgmm", "assign", "covariance", "nutpie"):
        assert word in out


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
