"""``--trust my_package``: whose classes the files that a command reads may name."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser
from collections.abc import Iterable, Sequence

from lightning_adv.core.trust import trust

HELP = "a package whose classes the files that are read may name; several with a comma between, or again"


def add_trust(parser: ArgumentParser) -> None:
    """Add the key ``trust`` to a parser of configurations: one that is saved has it only where it was given."""
    parser.add_argument("--trust", type=list[str] | str, default=SUPPRESS, help=HELP)  # type: ignore[arg-type]  # jsonargparse's


def trust_given(given: str | Iterable[str] | None) -> None:
    """Trust what was given for the key ``trust``.

    Args:
        given: A name, several with commas between, or a list of such; None for nothing.

    Raises:
        UsageError: It is not the name of a package.
    """
    names = [] if given is None else [given] if isinstance(given, str) else given
    trust(*(name.strip() for each in names for name in str(each).split(",")))


def gather_trust(arguments: Sequence[str]) -> list[str]:
    """Put all that a command line trusts into one option at its end: jsonargparse keeps the last of several.

    Example:
        >>> gather_trust(["fit", "--trust", "a,b", "--config", "c.yaml", "--trust=d"])
        ['fit', '--config', 'c.yaml', '--trust=[a,b,d]']
    """
    others: list[str] = []
    trusted: list[str] = []
    waiting = list(arguments)
    while waiting:
        name, equals, value = waiting.pop(0).partition("=")
        if name == "--trust":
            value = value if equals or not waiting else waiting.pop(0)
            trusted.append(value.strip("[]"))
        else:
            others.append(f"{name}{equals}{value}")
    return [*others, *([f"--trust=[{','.join(trusted)}]"] if trusted else [])]
