"""Help texts: docstrings, as a terminal shows them."""

from __future__ import annotations

import re
from argparse import Action

from jsonargparse import DefaultHelpFormatter

_ROLE = re.compile(r":\w+(?::\w+)*:`([^`<]*?)(?:\s*<[^`]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<([^`>]+)>`__?")


def plain_text(docstring: str) -> str:
    """Return a docstring without the marks of reStructuredText.

    Example:
        >>> plain_text("What :class:`~torch.optim.SGD` takes, ``lr`` first; see `there <https://pytorch.org>`_.")
        'What SGD takes, lr first; see there (https://pytorch.org).'
    """
    text = _ROLE.sub(lambda role: _last_name(role[1]), docstring)
    return _LINK.sub(r"\1 (\2)", text).replace("`", "")


def _last_name(target: str) -> str:
    """Return what is shown of a role's target: all of it, or its last name where ``~`` asks for that."""
    return target.removeprefix("~").rpartition(".")[2] if target.startswith("~") else target


class HelpFormatter(DefaultHelpFormatter):
    """jsonargparse's formatter, which breaks the lines of plain text: docstrings are ours, Lightning's and others'."""

    def start_section(self, heading: str | None) -> None:
        """Begin a group of arguments; its heading is the first line of a class's docstring."""
        super().start_section(None if heading is None else plain_text(heading))

    def _format_text(self, text: str) -> str:
        return super()._format_text(plain_text(text))

    def _expand_help(self, action: Action) -> str:
        return plain_text(super()._expand_help(action))
