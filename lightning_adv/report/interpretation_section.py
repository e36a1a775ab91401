"""An interpretation on the page: of each section the pictures, and the numbers of all networks side by side."""

from __future__ import annotations

import base64
from html import escape

from lightning_adv.report.interpretations import Interpretation, Number, SectionRead
from lightning_adv.report.summary import problem_lists


def interpretation_section(index: int, name: str, found: Interpretation) -> str:
    """Return an interpretation as HTML, which needs no script.

    Args:
        index: Its place among the interpretations of the page.
        name: What it is called on the page.
        found: What was read of it.
    """
    parts = "".join(
        f"<h3>{escape(_in_words(section))}</h3>{_pictures(section, each)}{_table(section, each)}"
        for section, each in found.sections.items()
    )
    return f"""<section id="interpretation-{index}"><h2>{escape(name)}</h2>
<p class="lead">{escape(_lead(found))}</p>{problem_lists([name], [found], {})}
{parts}</section>"""


def _lead(found: Interpretation) -> str:
    """Say what was looked at.

    Example:
        >>> from pathlib import Path
        >>> _lead(Interpretation(Path(), {"images": 1000, "networks": {"a": {}, "b": {}}, "attacks": {"pgd20": {}}}))
        'a, b on 1,000 images, under pgd20. Intervals are of 95 %.'
    """
    networks, attacks = (", ".join(found.description.get(key) or {}) for key in ("networks", "attacks"))
    images = found.description.get("images")
    count = "" if images is None else f" on {images:,} images"
    return f"{networks}{count}{f', under {attacks}' if attacks else ''}. Intervals are of 95 %."


def _pictures(section: str, found: SectionRead) -> str:
    cards = "".join(
        f'<figure class="card wide"><figcaption><b>{escape(_in_words(name))}</b></figcaption>'
        f'<img alt="{escape(f"{section} {name}")}" '
        f'src="data:image/png;base64,{base64.b64encode(content).decode("ascii")}"></figure>'
        for name, content in found.pictures.items()
    )
    return f'<div class="grid pictures">{cards}</div>' if cards else ""


def _table(section: str, found: SectionRead) -> str:
    """Return the numbers: a column for each network, since networks are what is compared."""
    if not found.numbers:
        return ""
    networks = list(dict.fromkeys(network for row in found.numbers.values() for network in row))
    head = "".join(f'<th scope="col" class="number">{escape(network)}</th>' for network in networks)
    rows = "".join(
        f"<tr><td>{escape(images)}</td><td>{escape(layer)}</td><td>{escape(_in_words(statistic))}</td>"
        f"{''.join(_cell(row.get(network)) for network in networks)}</tr>"
        for (images, layer, statistic), row in found.numbers.items()
    )
    title = f"Table of {_in_words(section)}"
    return f"""<details><summary>{sum(map(len, found.numbers.values())):,} numbers</summary>
<div class="scrolling tall" tabindex="0" role="region" aria-label="{escape(title)}"><table><thead><tr>
<th scope="col">Images</th><th scope="col">Layer</th><th scope="col">Statistic</th>{head}</tr></thead>
<tbody>{rows}</tbody></table></div></details>"""


def _cell(number: Number | None) -> str:
    if number is None:
        return '<td class="number"></td>'
    interval = f" <small>{escape(number.low)} to {escape(number.high)}</small>" if number.low and number.high else ""
    return f'<td class="number">{escape(number.value)}{interval}</td>'


def _in_words(name: str) -> str:
    return name.replace("_", " ").capitalize()
