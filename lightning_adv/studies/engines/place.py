"""The working directory and the module path of the command, in a worker that was started elsewhere."""

from __future__ import annotations

import os
import pickle
import sys

from lightning_adv.studies.engines.base import sendable


class InPlace:
    """The work of a study as it is in the process that makes this object, for workers of a cluster.

    Relative paths of a configuration and a user's own modules are found as the command finds them. The work is
    unpickled once its module can be found.

    Args:
        pickled: What is called with a cell's folder.

    Example:
        >>> InPlace(pickle.dumps(print))("runs/study/cells/fit-eps=0.1-0a1b2c3d4e")
        runs/study/cells/fit-eps=0.1-0a1b2c3d4e
    """

    def __init__(self, pickled: bytes) -> None:
        self._pickled = pickled
        self._directory = os.getcwd()
        self._path = [os.path.abspath(folder) for folder in sys.path]

    def __call__(self, folder: str) -> BaseException | None:
        """Run the work on a cell, and return what it has raised: not every exception can be raised over there."""
        os.chdir(self._directory)
        sys.path[:] = self._path
        try:
            pickle.loads(self._pickled)(folder)
        except Exception as error:
            return sendable(error)
        return None
