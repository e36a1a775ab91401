"""The files of an interpretation: a table and pictures for each section."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lightning_adv.core.figures import to_png
from lightning_adv.core.files import write_whole
from lightning_adv.interpretation.finding import to_csv
from lightning_adv.interpretation.interpreting import SectionResult

FIGURES = "figures"
"""The folder of the pictures, within that of an interpretation."""


def write_sections(results: Mapping[str, SectionResult], folder: str | Path) -> dict[str, dict[str, object]]:
    """Write what :func:`~lightning_adv.interpretation.interpret` returned, each file whole or not at all.

    Args:
        results: What each section gave, by its name.
        folder: Where to write ``SECTION.csv`` and ``figures/SECTION_NAME.png``.

    Returns:
        By section its ``table`` and its ``figures`` by name, as paths within the folder.

    Example:
        >>> import tempfile
        >>> from lightning_adv.interpretation import Finding
        >>> found = {"edges": SectionResult([Finding("madry", "clean", "", "sharpness", 0.5)], {})}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_sections(found, folder)
        {'edges': {'table': 'edges.csv', 'figures': {}}}
    """
    folder = Path(folder)
    written: dict[str, dict[str, object]] = {}
    for section, result in results.items():
        write_whole(folder / f"{section}.csv", to_csv(result.findings))
        figures = {name: f"{FIGURES}/{section}_{name}.png" for name in result.figures}
        for name, path in figures.items():
            write_whole(folder / path, to_png(result.figures[name], dpi=150))
        written[section] = {"table": f"{section}.csv", "figures": figures}
    return written
