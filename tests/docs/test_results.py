"""The numbers of the pages of results are those of the files of raw results beside them."""

import importlib.util
import json
import re

import pytest

from tests.docs.pages import ROOT

DOCS = ROOT / "docs"
spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)

RESULTS = sorted((DOCS / "results").glob("*.json"))
PAGES = [
    DOCS / "speed.md",
    DOCS / "finetune_your_folder.md",
    DOCS / "robustbench.md",
    *sorted((DOCS / "results").glob("*.md")),
]
NOT_RESULTS = re.compile(
    "|".join(
        [
            r"<!-- table:.*?<!-- end of table -->", r"^```.*?^```", r"`[^`\n]*`", r"\]\([^)]*\)", r"^#.*?$",
            r"\b(?:figure|table|section|[Cc]hapter)s? \d[\d.]*[a-z]?(?:(?:,| and| to) (?:\d[\d.]*[a-z]?|[a-z])\b)*",
            r"\b(?:19|20)\d\d\b",  # years
            r"\b(?:torch|lightning|timm|version) \d+(?:\.\d+)*",
            r"\b(?:CIFAR|AVX|PGD|ResNet|M?-?DI|bf|fp|L|m|conv|Layer |layer)-?\d+\b", r"DI²",  # names
            r"\d+×\d+(?:×\d+)?", r"4 × 4", r"√2", r"/255",
        ]
    ),
    re.DOTALL | re.MULTILINE,
)  # fmt: skip
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def numbers_in(value):
    if isinstance(value, bool | str) or value is None:
        return set()
    if isinstance(value, int | float):
        return {float(value)}
    return set().union(*map(numbers_in, value.values() if isinstance(value, dict) else value), set())


def test_generated_parts_are_up_to_date():
    old = [str(file) for file, make in generate.generated().items() if file.read_text(encoding="utf-8") != make()]
    assert not old, "run: python docs/generate.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_number_of_the_text_is_in_a_file_that_the_page_names(page):
    text = page.read_text()
    files = [(page.parent / name).resolve() for name in re.findall(r"\]\(([\w/]+\.json)\)", text)]
    assert files
    known = set().union(*(numbers_in(json.loads(file.read_text())) for file in files))
    told = [found.rstrip(",") for found in NUMBER.findall(NOT_RESULTS.sub(" ", text))]
    assert told
    assert not [number for number in told if float(number.replace(",", "")) not in known]


def test_the_results_of_the_readme_are_in_the_files_too():
    text = (ROOT / "README.md").read_text().partition("## Results")[2].partition("## ")[0]
    known = set().union(*(numbers_in(json.loads(file.read_text())) for file in RESULTS))
    told = NUMBER.findall(NOT_RESULTS.sub(" ", text))
    assert len(told) > 10
    assert not [number for number in told if float(number) not in known]


def test_what_counts_as_a_number():
    text = NOT_RESULTS.sub(
        " ", "PGD-20 (tables 3.1 and 6) at 8/255 leaves 71.9 % of 1,000 CIFAR-10 images, 1e-7 of them"
    )
    assert NUMBER.findall(text) == ["8", "71.9", "1,000", "1e-7"]


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.name)
def test_raw_results_say_where_they_come_from_and_stand_on_a_page(file):
    content = json.loads(file.read_text())
    assert content["commands"]
    assert content["recorded"]["how"]
    assert content["recorded"]["versions"]
    assert any(f"{file.name})" in page.read_text() for page in PAGES)


def test_every_attack_is_in_the_table():
    listed = {line[0].strip("`") for line in generate.attack_table()[1:]}
    assert {"PGD", "AutoAttack", "StAdv", "RandomNoise"} <= listed
    text = (DOCS / "attacks.md").read_text()
    assert all(f"`{name}`" in text.partition("## Their defaults")[0] for name in listed)
