"""Write the parts of the pages that come from data: tables of results, properties of the attacks, the README's picture.

``python docs/generate.py`` writes them all; ``python docs/generate.py --check`` says which are out of date, and a test
does the same. A page has a table between two comments, so that it is read on GitHub as on the site::

    <!-- table: results/regimes.json side_by_side -->
    ...
    <!-- end of table -->
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_adv import attacks

DOCS = Path(__file__).parent
PICTURE = DOCS / "images" / "regimes.svg"
NO_BREAK = "\N{NO-BREAK SPACE}"  # a number and its interval stay in one line
TABLE = re.compile(r"(<!-- table: (\S+)(?: (\w+))? -->\n).*?(<!-- end of table -->)", re.DOTALL)


def read(name: str) -> dict[str, Any]:
    """Return a file of raw results by its path from docs."""
    content: dict[str, Any] = json.loads((DOCS / name).read_text(encoding="utf-8"))
    return content


# Tables of results ------------------------------------------------------------------------------------------------


def result_table(table: dict[str, Any]) -> list[list[str]]:
    """Return a table of raw results as the texts of its cells, the header first.

    Where ``noise_row`` names the row that repeats the reference, a ratio that is no further from 1 than any of that
    row's is marked with ≈.
    """
    columns = table["columns"]
    noise = [_largest_deviation(cell) for cell in table["rows"][table["noise_row"]]] if "noise_row" in table else None
    lines = [[column["name"] for column in columns]]
    for row in table["rows"]:
        texts = [_cell(cell, column.get("decimals", 0)) for cell, column in zip(row, columns, strict=True)]
        if noise is not None:
            within = [_within(cell, deviation) for cell, deviation in zip(row, noise, strict=True)]
            texts = [f"≈{NO_BREAK}{text}" if level else text for text, level in zip(texts, within, strict=True)]
        lines.append(texts)
    return [list(line) for line in zip(*lines, strict=True)] if table.get("transpose") else lines


def _cell(value: Any, decimals: int) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):  # a value, the lowest and the highest (or the ends of an interval)
        middle, low, high = (f"{number:,.{decimals}f}" for number in value)
        return f"{middle} ({low} to {high})".replace(" ", NO_BREAK)
    if isinstance(value, dict):
        return f"{value['mean']:,.{decimals}f} ± {value['sd']:,.{decimals}f}".replace(" ", NO_BREAK)
    return f"{value:,.{decimals}f}"


def _largest_deviation(cell: Any) -> float | None:
    return max(abs(number - 1) for number in cell) if isinstance(cell, list) else None


def _within(cell: Any, noise: float | None) -> bool:
    return isinstance(cell, list) and noise is not None and abs(cell[0] - 1) <= noise


# Properties of the attacks ----------------------------------------------------------------------------------------


def attack_table() -> list[list[str]]:
    """Return each attack with its defaults and what other parts ask of it, from the classes themselves."""
    lines = [["attack", "norm", "eps", "steps", "step size", "start", "loss", "label", "stages", "sees"]]
    for name in sorted(attacks.__all__, key=str.lower):
        kind = getattr(attacks, name)
        if not inspect.isclass(kind) or not issubclass(kind, attacks.Attack) or inspect.isabstract(kind):
            continue
        attack = kind()
        own = (
            key if attack.says(key) else "" for key in ("norm", "eps", "steps", "step_size", "start", "loss", "label")
        )
        shown = [_plain(getattr(attack, key, None)) for key in own]
        sees = "outputs" if attack.black_box else "gradients"
        lines.append([f"`{name}`", *shown, str(len(attack.stages())), sees])
    return lines


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        grey = round(255 * value, 6)
        return f"{grey:g}/255" if value < 1 else f"{value:g}"
    return type(value).__name__ if isinstance(value, attacks.Ball) else str(value)


# The picture ------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 420, 70, 20, 20, 60
LOWEST_CLEAN, HIGHEST_CLEAN = 96.0, 100.0
STYLE = """
  .ground { fill: #ffffff } .text { fill: #24292f } .quiet { fill: #57606a } .line { stroke: #d0d7de }
  .axis { stroke: #57606a } .point { fill: #0969da } .range { stroke: #0969da }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } .text { fill: #e6edf3 } .quiet { fill: #9198a1 } .line { stroke: #30363d }
    .axis { stroke: #9198a1 } .point { fill: #58a6ff } .range { stroke: #58a6ff }
  }
"""
LABELS: dict[str, tuple[str, str, float, float]] = {
    # the row of the table: what the picture calls it, and where the text stands beside its point
    "standard": ("standard", "start", 10, 4),
    "Madry": ("Madry", "start", 10, -6),
    "TRADES": ("TRADES", "start", 10, 4),
    "fast adversarial training": ("fast (one step)", "start", 10, 14),
    "SAT, SiLU": ("SAT", "end", -10, 4),
    "AdvProp, main BatchNorms": ("AdvProp, main", "start", 10, 12),
    "AdvProp, auxiliary BatchNorms": ("AdvProp, auxiliary", "end", -10, 4),
    "mixture BatchNorm, auxiliary": ("mixture BatchNorm", "start", 10, 1),
    "standard, early blocks retrained adversarially": ("early blocks", "end", -10, 4),
    "standard, late blocks retrained adversarially": ("late blocks", "end", -10, 4),
}


def picture() -> str:
    """Return clean against robust accuracy of the regimes on digits as an SVG that suits light and dark pages."""
    results = read("results/regimes.json")
    rows = {row[0]: row for row in results["tables"]["side_by_side"]["rows"]}
    parts = [f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>', *_axes(results["settings"]["digits"]["eps"])]
    for name, (label, anchor, right, down) in LABELS.items():
        (clean, *_), (robust, low, high) = rows[name][1:3]
        x, y = _x(clean), _y(robust)
        parts += [
            f'<line class="range" x1="{x:.1f}" x2="{x:.1f}" y1="{_y(low):.1f}" y2="{_y(high):.1f}" stroke-width="2"/>',
            f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="5"/>',
            f'<text class="text" x="{x + right:.1f}" y="{y + down:.1f}" text-anchor="{anchor}">{label}</text>',
        ]
    title = "Clean against robust accuracy of the training regimes on digits"
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}" '
        f'font-family="system-ui, sans-serif" font-size="14">\n<title>{title}</title>\n<style>{STYLE}</style>\n'
        f"{body}\n</svg>\n"
    )


def _x(clean: float) -> float:
    return LEFT + (clean - LOWEST_CLEAN) / (HIGHEST_CLEAN - LOWEST_CLEAN) * (WIDTH - LEFT - RIGHT)


def _y(robust: float) -> float:
    return HEIGHT - BOTTOM - robust / 100 * (HEIGHT - BOTTOM - TOP)


def _axes(eps: float) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for robust in range(0, 101, 20):
        y = _y(robust)
        parts.append(f'<line class="line" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="quiet" x="{LEFT - 8}" y="{y + 5:.1f}" text-anchor="end">{robust}</text>')
    for clean in range(round(LOWEST_CLEAN), round(HIGHEST_CLEAN) + 1):
        parts.append(f'<text class="quiet" x="{_x(clean):.1f}" y="{bottom + 20}" text-anchor="middle">{clean}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    middle, height = (LEFT + right) / 2, (TOP + bottom) / 2
    parts.append(
        f'<text class="text" x="{middle:.0f}" y="{HEIGHT - 14}" text-anchor="middle">clean accuracy (%)</text>'
    )
    parts.append(
        f'<text class="text" transform="translate(20 {height:.0f}) rotate(-90)" text-anchor="middle">'
        f"robust accuracy (%), PGD-20, Linf {eps}</text>"
    )
    return parts


# All of it --------------------------------------------------------------------------------------------------------


def fill(text: str, file: Path) -> str:
    """Return a page's text with its tables as they are now."""

    def table(found: re.Match[str]) -> str:
        name, part = found[2], found[3]
        lines = attack_table() if name == "attacks" else result_table(read(name)["tables"][part])
        return f"{found[1]}{_markdown(lines)}\n{found[4]}"

    filled = TABLE.sub(table, text)
    if filled.count("<!-- table:") != len(TABLE.findall(text)):
        raise ValueError(f"{file}: a table has no end.")
    return filled


def _markdown(lines: list[list[str]]) -> str:
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([rows[0], "|" + "---|" * len(lines[0]), *rows[1:]])


def generated() -> dict[Path, Callable[[], str]]:
    """Return what makes the text of each file that has generated parts."""
    pages = [page for page in sorted(DOCS.rglob("*.md")) if "<!-- table:" in page.read_text(encoding="utf-8")]
    made: dict[Path, Callable[[], str]] = {
        page: lambda page=page: fill(page.read_text(encoding="utf-8"), page)  # type: ignore[misc]
        for page in pages
    }
    return {**made, PICTURE: picture}


def main() -> None:
    """Write or check the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is out of date")
    check = parser.parse_args().check
    old = []
    for file, make in generated().items():
        text = make()
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            old.append(str(file.relative_to(DOCS)))
            if not check:
                file.write_text(text, encoding="utf-8")
    print("\n".join(old) or "Everything is up to date.")
    if check and old:
        sys.exit(1)


if __name__ == "__main__":
    main()
