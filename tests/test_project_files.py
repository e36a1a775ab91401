"""The files around the package agree with it: citation, changelog, lowest versions, issue templates."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from lightning_adv import __version__

ROOT = Path(__file__).parents[1]


def test_citation_has_what_the_format_requires_and_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_issue_templates_have_what_github_requires():
    forms = [yaml.safe_load(file.read_text()) for file in (ROOT / ".github/ISSUE_TEMPLATE").glob("[bf]*.yml")]
    assert len(forms) == 2
    for form in forms:
        assert {"name", "description", "body"} <= set(form)
        assert all({"type", "attributes"} <= set(field) for field in form["body"])


def test_lowest_versions_are_those_of_pyproject():
    pytest.importorskip("nox")
    spec = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    noxfile = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(noxfile)
    lowest = noxfile.lowest()
    torch = re.search(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert f"torch=={torch}" in lowest
    assert any(name.startswith("jsonargparse[signatures]==") for name in lowest)


def test_no_file_of_the_documentation_names_a_machine():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.json")]
    assert not [page for page in pages if re.search(r"/(?:home|root|work|tmp)/", page.read_text())]
