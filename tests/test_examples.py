"""Every example runs without a warning, every notebook without an error, and what a notebook shows is fit to read."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def name(path):
    return path.stem


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory, where the package under test can still be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    return tmp_path


def test_there_are_examples_and_notebooks():
    assert EXAMPLES
    assert NOTEBOOKS


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_an_example_runs_without_warnings_and_leaves_no_files(path, elsewhere):
    run = subprocess.run([sys.executable, "-W", "error", path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert run.stdout
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_runs_without_errors(path, elsewhere, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": elsewhere}}).execute()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_stores_outputs_fit_to_read(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert not any(place in str(outputs) for place in ("/home/", "/Users/", "/root/", "/tmp/", "site-packages"))
    assert path.stat().st_size < 500_000
