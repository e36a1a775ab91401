"""Where commands print their tables and sentences."""

from __future__ import annotations

from rich.console import Console


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is: in the names that users give, rich would find markup and emoji.

    Args:
        stderr: Whether it prints on the standard error.

    Example:
        >>> plain_console().print("[m0] :smile: [/m1]")
        [m0] :smile: [/m1]
    """
    return Console(markup=False, emoji=False, highlight=False, stderr=stderr)
