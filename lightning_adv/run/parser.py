"""The argument parser, with errors that one can read."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from lightning_adv.run.messages import explain


class Parser(LightningArgumentParser):
    """Lightning's parser; an error is a sentence that names the key, not a hundred lines of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error and exit with status 2."""
        if not self.exit_on_error:
            # Parsers of parts are asked whether something fits: a "no" goes back to the one who asked.
            super().error(message, ex)
        program = self.prog.replace(" [options]", "")
        sys.stderr.write(f"{program}: error: {explain(message, self._keys())}\n")
        sys.stderr.write(f"See {program} --help; --print_config writes out all the keys of a configuration.\n")
        raise SystemExit(2)

    def _keys(self) -> set[str]:
        """The keys of this parser and of its subcommands' parsers."""
        keys: set[str] = set()
        for action in self._actions:
            parsers: Any = action.choices if isinstance(action.choices, dict) else {}
            keys |= {action.dest} | {key for parser in parsers.values() for key in parser._keys()}
        return keys
