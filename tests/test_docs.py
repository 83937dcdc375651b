"""Links of the pages point to files that are there, and the site has a page for every public name."""

import re
from pathlib import Path

import pytest

import bayesgmm
import bayesgmm.sklearn

ROOT = Path(__file__).parents[1]
SITE = [page for page in (ROOT / "docs").rglob("*.md") if "generated" not in page.parts]
PAGES = [*ROOT.glob("*.md"), *SITE, ROOT / "benchmarks" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_are_good(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8"))
    # The site has a copy of the notebooks there.
    files = [page.parent / re.sub(r"^\.\./generated/", "../../", target) for target in targets if "://" not in target]
    missing = [str(file) for file in files if not file.exists()]
    assert not missing, missing


@pytest.mark.parametrize("module", [bayesgmm, bayesgmm.plots, bayesgmm.datasets, bayesgmm.sklearn])
def test_the_site_has_each_public_name_once(module):
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    (part,) = [part for part in text.split(".. currentmodule:: ")[1:] if part.startswith(f"{module.__name__}\n")]
    listed = re.findall(r"^   (\w+)$", part, re.MULTILINE)
    assert sorted(listed) == sorted(set(module.__all__) - {"datasets", "plots"})
