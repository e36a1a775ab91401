"""The pages of the documentation, and what is in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {str(page.relative_to(ROOT)): page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]}


def blocks(language: str, page: Path) -> list[str]:
    """Return a page's code of a language, but for what a comment says is not run."""
    text = re.sub(r"<!-- not run: .*? -->\n```.*?```", "", page.read_text(), flags=re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(name: str) -> list[str]:
    """Return the arguments of each ``lightning-adv name`` in the pages, once each."""
    lines = [line for page in PAGES.values() for block in blocks("bash", page) for line in block.splitlines()]
    return sorted({found[1] for line in lines if (found := re.match(rf"lightning-adv ({name} .*)", line))})
