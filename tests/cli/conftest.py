"""Tables in files, and finished runs over them that most tests look at."""

import pytest
from command_line import FEW, SELECT, run

import bayesgmm as bg
from bayesgmm.cli import progress


@pytest.fixture(autouse=True, scope="session")
def no_stage_is_slow():
    """Whether a stage lasts a second is a matter of the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "NOTICEABLE", 3600.0)
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    bg.datasets.old_faithful().to_csv(folder / "geyser.csv", index=False)
    bg.datasets.iris().assign(species=bg.datasets.known_classes("iris")).to_csv(folder / "iris.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def finished(folder):
    """One run on Old Faithful: its directory and what it printed."""
    out = folder / "nested" / "result"
    status, printed, err = run("fit", folder / "geyser.csv", "-k", 2, "--out", out, *FEW)
    assert (status, err) == (0, "")
    return out, printed


@pytest.fixture(scope="session")
def compared(folder):
    """One run over several numbers of components."""
    out = folder / "several"
    status, printed, err = run("fit", folder / "geyser.csv", "-k", "1:3", "--covariance", "tied", "--out", out, *FEW)
    assert (status, err) == (0, "")
    return out, printed


@pytest.fixture(scope="session")
def selected(folder):
    """One selection on Old Faithful: its directory and what it printed."""
    out = folder / "selected"
    status, printed, err = run("select", folder / "geyser.csv", *SELECT, "--out", out)
    assert (status, err) == (0, "")
    return out, printed


@pytest.fixture
def file(tmp_path):
    def write(content, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
