"""The command lines that need no Lightning."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from lightning_adv.core.suggestions import bounded


class PlainParser(argparse.ArgumentParser):
    """A parser whose errors are one line, as those of the other commands are."""

    def error(self, message: str) -> NoReturn:
        """Print the error.

        Raises:
            SystemExit: With status 2.
        """
        sys.stderr.write(f"{self.prog}: error: {bounded(message)}\nSee {self.prog} --help.\n")
        raise SystemExit(2)
