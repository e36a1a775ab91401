"""What the fuzzes of this room share."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_adv.commands.fit.command import AdversarialCLI

_kept: dict[str | None, dict[str, Any]] = {}
_BUILT = ("parser", "_subcommand_parsers", "_subcommand_method_arguments")


@pytest.fixture
def without_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands end when all is parsed and built, and keep the parser, which takes longer to build than to use."""
    set_up = AdversarialCLI.setup_parser

    def setup_parser(self: AdversarialCLI, *args: Any, **kwargs: Any) -> None:
        if self._asked in _kept:
            vars(self).update(_kept[self._asked])
            for parser in self._subcommand_parsers.values():
                parser._given = ()
            return
        set_up(self, *args, **kwargs)
        _kept[self._asked] = {name: vars(self)[name] for name in _BUILT}

    monkeypatch.setattr(AdversarialCLI, "setup_parser", setup_parser)
    monkeypatch.setattr(AdversarialCLI, "_run_subcommand", lambda *_: None)
