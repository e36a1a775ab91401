"""The versions of what the numbers of a command depend on."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

from lightning_adv._version import __version__


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of this package, of Python and of torch, and those of further packages, by name.

    Args:
        packages: Names of installed distributions, such as ``"timm"``.
    """
    told = {"lightning-adv": __version__, "python": platform.python_version()}
    told["torch"] = str(torch.__version__)  # with the build: +cpu, +cu130
    return told | {name: version(name) for name in packages}
