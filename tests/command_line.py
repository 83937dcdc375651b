"""Runs of the command line within the tests."""

import contextlib
import io
import zipfile

from bayesgmm.cli import main

FEW = ["--draws", "50", "--chains", "2"]
SELECT = ["--components", "1:4", "--covariance", "tied,VVE", "--starts", "4", "--folds", "4", "--replicates", "20"]
FILES = {
    "report.html",
    "posterior.nc",
    "responsibilities.csv",
    "components.csv",
    "clusters.png",
    "em_path.png",
    "posterior.png",
    "summary.json",
}
OF_CLUSTERS = {"uncertainty.png", "least_certain.png", "similarity.png", "credible_ball.png"}


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
    assert err.startswith("bayesgmm: ")
    assert err.count("\n") == 1
    return err


def zipped(content, *names):
    """An archive that holds the content under each of the names."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return held.getvalue()
