"""Names as text of a figure: layers, domains, networks and attacks are named by their users."""

from __future__ import annotations

from lightning_adv.core.reading import shorten

_LONGEST = 80


def label(name: str) -> str:
    r"""Return a name so that Matplotlib writes it as it is.

    It takes what is between two dollars for mathematics, which ends a figure where it is none, leaves names that begin
    with ``_`` out of legends, and cannot write control characters.

    Example:
        >>> label("_orig_mod.layer1"), label("a$b$c")
        (' _orig_mod.layer1', 'a\\$b\\$c')
    """
    text = shorten(name, _LONGEST).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
