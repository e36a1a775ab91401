"""What a command says of a mistake, and whether that can be read."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

from lightning_adv.cli import main

LONGEST = 900  # the names of all configurations of the package take most of it


def told(*arguments: str) -> tuple[int, str]:
    """Run a command; return its exit status and the last thing that it says on the standard error.

    An exception other than SystemExit goes through: there is no list of tracebacks that are ours.
    """
    out = StringIO()
    with redirect_stderr(out), redirect_stdout(StringIO()):
        try:
            main([*arguments])
        except SystemExit as exit_:
            return int(exit_.code or 0), out.getvalue().strip()
    return 0, out.getvalue().strip()


def refused(*arguments: str, status: int = 1) -> str:
    """Run a command that ends with an error; return what it says of it, which is no traceback."""
    ended, said = told(*arguments)
    assert ended == status, said
    assert "Traceback" not in said, said
    return said


def check_readable(status: int, text: str) -> None:
    """Check that what was said of a mistake is one sentence or two, and where to look further."""
    assert status in (0, 1, 2), text
    if status:
        assert "error: " in text, text
        assert "Traceback" not in text, text
        assert len(text.splitlines()) <= 3, text
        assert len(text) <= LONGEST, text
