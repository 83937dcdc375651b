"""What the package index is told, and what an installed package has."""

import email
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bayesgmm

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    """As setup.py writes it for wheel and sdist."""
    folder = tmp_path_factory.mktemp("metadata")
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", folder]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return email.message_from_bytes(next(folder.glob("*/PKG-INFO")).read_bytes())


def test_the_page_on_the_index_is_the_readme_with_links_that_work_there(metadata):
    page = metadata.get_payload()
    targets = re.findall(r"\]\(([^)\s]+)\)", page)
    assert f"https://github.com/bayesgmm/bayesgmm/blob/v{bayesgmm.__version__}/CONTRIBUTING.md" in targets
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    assert (
        re.sub(r"\]\([^)]*\)", "", page).strip()
        == re.sub(r"\]\([^)]*\)", "", (ROOT / "README.md").read_text("utf-8")).strip()
    )


def test_the_index_is_told_version_places_and_extras(metadata):
    assert metadata["Version"] == bayesgmm.__version__
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert {entry.partition(",")[0] for entry in metadata.get_all("Project-URL")} >= {"Source", "Issues", "Changelog"}
    assert set(metadata.get_all("Provides-Extra")) >= {"parquet", "excel", "test"}
