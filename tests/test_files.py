"""Laws of files that are whole or not there."""

import os
import platform
import signal
import subprocess
import sys

import pytest

from bayesgmm.files import beside

HERE = platform.node().replace(".", "-")
KILLED = """
import os, signal, sys
from pathlib import Path
from bayesgmm.files import beside
path, moment = Path(sys.argv[1]), sys.argv[2]
def end(): os.kill(os.getpid(), signal.SIGKILL)
with beside(path) as temporary:
    if moment == "before": end()
    temporary.write_bytes(b"half")
    if moment == "half": end()
    temporary.write_bytes(b"whole")
    if moment == "whole": end()
end()
"""


def killed(path, moment):
    run = subprocess.run([sys.executable, "-c", KILLED, str(path), moment], check=False)
    assert run.returncode == -signal.SIGKILL


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
@pytest.mark.parametrize("moment", ["before", "half", "whole", "renamed"])
def test_a_killed_writer_leaves_what_was_there_or_the_whole(tmp_path, moment):
    path, other = tmp_path / "a.nc", tmp_path / f".a.nc.{HERE}.x.part"
    path.write_bytes(b"old")
    killed(path, moment)
    assert path.read_bytes() == (b"whole" if moment == "renamed" else b"old")
    left = [p for p in tmp_path.iterdir() if p != path]
    assert len(left) == (moment in ("half", "whole"))
    other.write_bytes(b"")
    theirs = {tmp_path / f".b.nc.{HERE}.x.part", tmp_path / ".a.nc.elsewhere.1.part"}  # of another file, or machine
    for one in theirs:
        one.write_bytes(b"")
    with beside(path) as temporary:
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert set(tmp_path.iterdir()) == {path, *theirs}


def test_what_a_running_process_writes_is_left_alone(tmp_path):
    path = tmp_path / "a.nc"
    theirs = tmp_path / f".a.nc.{HERE}.{os.getppid()}.part"
    theirs.write_bytes(b"half")
    with beside(path) as temporary:
        temporary.write_bytes(b"new")
    assert set(tmp_path.iterdir()) == {path, theirs}


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "made" / "a.nc"

    def interrupted():
        with beside(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(path.parent.iterdir()) == []
