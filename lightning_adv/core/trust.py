"""Whose code may be imported because a file names it: this package's, an announced plugin's, or what the user trusts.

A checkpoint, an export or the configuration of a run names classes by their paths, and a module of such a name may lie
beside the file: importing it would run it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_adv.core.errors import UsageError
from lightning_adv.core.plugins import LIBRARIES, announced_packages

_OURS = "lightning_adv"
_named: set[str] = set()


def trust(*packages: str) -> None:
    """Let files name classes of these packages or modules, which are imported only when a file does.

    It is what ``--trust`` and the key ``trust`` of a configuration do. In a command, the package of each class that the
    user's own configuration names is trusted too: its code runs anyway.

    Args:
        *packages: Names by which they are imported, such as ``my_package`` or ``my_package.attacks``.

    Raises:
        UsageError: One cannot be such a name, or is of Python's own library, whose functions run anything.

    Example:
        >>> trust("my_package")
        >>> is_trusted("my_package.attacks"), is_trusted("my_packages")
        (True, False)
    """
    for package in packages:
        if not isinstance(package, str) or not all(part.isidentifier() for part in package.split(".")):
            raise UsageError(f"is {package!r}, which is not the name of a package, such as my_package.", key="trust")
        if package.partition(".")[0] in sys.stdlib_module_names:
            raise UsageError(
                f"is {package!r}, which is of Python's own library: no network is, nor an attack.", key="trust"
            )
    _named.update(packages)


def trust_package_of(path: str) -> None:
    """Trust the package of a class that the user's own configuration names, unless it is a library's.

    Example:
        >>> trust_package_of("torch.optim.SGD")
        >>> is_trusted("torch.hub")
        False
    """
    package = path.partition(".")[0]
    if package not in LIBRARIES and package not in sys.stdlib_module_names:
        trust(package)


def is_trusted(module: str) -> bool:
    """Return whether a module may be imported because a file names it."""
    return is_of(module, {_OURS, *_named, *announced_packages()})


def is_of(module: str, packages: set[str]) -> bool:
    """Return whether a module is one of these packages, or lies in one.

    Example:
        >>> is_of("torch.optim.sgd", {"torch.optim"}), is_of("torch.optimal", {"torch.optim"})
        (True, False)
    """
    parts = module.split(".")
    return any(".".join(parts[:length]) in packages for length in range(1, len(parts) + 1))


def how_to_trust(module: str) -> str:
    """Return the sentence on what to do about a module that a file names and nobody trusts."""
    package = module.partition(".")[0]
    return f"If you trust it, say so: --trust {package} on the command line, or import {module} first, in Python."


@contextmanager
def trusting_for_a_command() -> Iterator[None]:
    """Forget at the end of a command whom it trusted: in a program, the next one may be about other files."""
    before = set(_named)
    try:
        yield
    finally:
        _named.intersection_update(before)
