"""Arguments: what they mean, and how bad ones are refused."""

import subprocess
import sys

import pytest
from command_line import refusal


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
        (["-k", "2", "--sampler", "stan"], "stan"),
        (["-k", "2", "--nonsense"], "--nonsense"),
        (["-k", "300"], "300"),
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
        (["--folds", "1"], "--folds must be at least 2"),
        (["-k", "0:3"], "counts components from 1"),
        (["--columns", "depth"], "depth"),
    ],
)
def test_a_selection_that_cannot_be_made_is_refused(folder, arguments, said):
    assert said in refusal("select", folder / "geyser.csv", *arguments, "--out", folder / "refused")
    assert not (folder / "refused").exists()


def test_no_command_is_answered_with_the_way_to_help():
    assert "--help" in refusal()
    assert "--help" in refusal("guess")


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
