"""Plugins: what other installed packages announce, read from their metadata without importing any of them.

A package announces its parts in the group ``lightning_adv.plugins`` of its entry points, each by its kind and its name,
and its folder of configurations::

    [project.entry-points."lightning_adv.plugins"]
    "attack.SignStep" = "my_package.attacks:SignStep"
    "network.my_net" = "my_package.networks:MyNet"
    configs = "my_package.configs"

The kinds are those of :data:`KINDS`. The folder is laid out as this package's own: ``evaluation/strict.yaml`` in it is
``--config evaluation/strict``.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning_adv.core.errors import UsageError
from lightning_adv.core.importing import find_module

GROUP = "lightning_adv.plugins"

_CLASSES = ("regime", "attack", "callback", "data", "objective", "loss", "section")

KINDS = (*_CLASSES, "network", "analysis")
"""What a package may announce: classes, by their own names, networks and analyses."""

_CONFIGS = "configs"

LIBRARIES = frozenset({"jsonargparse", "lightning", "lightning_fabric", "matplotlib", "numpy", "pytorch_lightning"}) | {
    *("sklearn", "timm", "torch", "torchmetrics", "torchvision", "wandb", "yaml"),
}
"""Packages that a configuration names parts of without anybody vouching for all that is in them: torch.hub.load."""


@dataclass(frozen=True, order=True)
class Plugin:
    """An installed package that announces something.

    Attributes:
        name: Its name, as it is installed by.
        version: Its version.
    """

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, order=True)
class Part:
    """A part that a plugin announces.

    Attributes:
        plugin: The plugin.
        kind: One of :data:`KINDS`.
        name: Its short name.
        path: The dotted path to import it by.
    """

    plugin: Plugin
    kind: str
    name: str
    path: str

    def load(self) -> Any:
        """Import the part.

        Raises:
            UsageError: It cannot be imported. The cause is what its module raises.
        """
        try:
            module, names = find_module(self.path)
        except UsageError as error:  # whatever its module raises: it is for its author, and for no other plugin
            raise UsageError(f"{error} The plugin {self.plugin} announces it.") from error
        if len(names) != 1 or not hasattr(module, names[0]):
            raise UsageError(
                f"{self.path!r} cannot be imported: it is not there. The plugin {self.plugin} announces it."
            )
        return getattr(module, names[0])


@dataclass(frozen=True)
class _Announced:
    """What all plugins announce."""

    parts: tuple[Part, ...]
    folders: tuple[tuple[Plugin, Path], ...]
    packages: dict[str, Plugin]


def parts(kinds: Iterable[str] = KINDS, name: str | None = None) -> list[Part]:
    """Return the parts that plugins announce, of some kinds or of all, by one name or by any.

    Nothing is imported.

    Example:
        >>> parts(["attack"], "AnAttackOfNobody")
        []
    """
    return [part for part in _announced().parts if part.kind in set(kinds) and name in (None, part.name)]


def find_part(kind: str, name: str) -> Part | None:
    """Return the part of a kind that a name means; None if no plugin announces one.

    Raises:
        UsageError: Several plugins do.

    Example:
        >>> find_part("network", "a_network_of_nobody") is None
        True
    """
    found = parts([kind], name)
    if len(found) > 1:
        raise UsageError(several(f"{kind} {name!r}", {part.path: part.plugin for part in found}))
    return found[0] if found else None


def several(what: str, paths: dict[str, Plugin | None]) -> str:
    """Return the error of a name that means several things: what to write instead.

    Args:
        what: What was named.
        paths: What each may be named by, and the plugin that it is of; None for this package's own.

    Example:
        >>> several("class 'PGD'", {"lightning_adv.attacks.PGD": None, "other.PGD": Plugin("other", "1.0")})
        "there are several of class 'PGD': write lightning_adv.attacks.PGD or other.PGD (of other 1.0)."
    """
    told = [path if plugin is None else f"{path} (of {plugin})" for path, plugin in paths.items()]
    return f"there are several of {what}: write {' or '.join(told)}."


def config_folders() -> tuple[tuple[Plugin, Path], ...]:
    """Return the folders of configurations that plugins announce."""
    return _announced().folders


def announced_packages() -> frozenset[str]:
    """Return the import names of the packages that plugins announce parts of, such as ``{"my_package"}``.

    Of a namespace that several distributions share it is the package in it, such as ``"my_company.attacks"``.
    """
    return frozenset(_announced().packages)


def plugins_in(modules: Iterable[str]) -> dict[str, str]:
    """Return the names and versions of the plugins that some modules are of.

    Args:
        modules: Dotted names of modules.

    Example:
        >>> plugins_in(["torch.nn", "lightning_adv.attacks"])
        {}
    """
    of = _announced().packages.items()
    found = {plugin for module in modules for package, plugin in of if f"{module}.".startswith(f"{package}.")}
    return {plugin.name: plugin.version for plugin in sorted(found)}


def _announced() -> _Announced:
    # What is announced is trusted. The working directory may be somebody's run folder, and nobody has installed it.
    here = os.path.realpath(".")
    return _read(tuple(folder for folder in sys.path if os.path.realpath(folder or ".") != here))


@functools.lru_cache(maxsize=1)
def _read(path: tuple[str, ...]) -> _Announced:
    """Read the entry points of what is installed on a path; what is announced wrongly is told, and left out."""
    found: list[Part] = []
    folders: list[tuple[Plugin, Path]] = []
    packages: dict[str, Plugin] = {}
    for plugin, entry in _entries(path):
        try:
            _check_path(entry)
            if entry.name == _CONFIGS:
                folders.append((plugin, _folder(entry)))
            else:
                found.append(_part(plugin, entry))
        except UsageError as error:
            logging.getLogger(__name__).warning(
                "The plugin %s announces %r = %r, which is left out: %s", plugin, entry.name, entry.value, error
            )
        else:
            packages[_package(entry.module)] = plugin
    return _Announced(tuple(sorted(found)), tuple(sorted(folders)), packages)


def _entries(path: tuple[str, ...]) -> Iterator[tuple[Plugin, EntryPoint]]:
    """Yield what each distribution announces; of several that have one name, Python imports the first."""
    seen: dict[str, Distribution] = {}
    for distribution in distributions(path=list(path)):
        name, entries = _read_entries(distribution)
        if entries and seen.setdefault(name, distribution) is distribution:
            yield from ((Plugin(name, _field(distribution, "Version") or "?"), entry) for entry in entries)


def _read_entries(distribution: Distribution) -> tuple[str, list[EntryPoint]]:
    """Return a distribution's name and what it announces; nothing where its metadata are damaged, which is told."""
    try:
        entries = [entry for entry in distribution.entry_points if entry.group == GROUP]
        name = _field(distribution, "Name") if entries else ""
    except (TypeError, ValueError) as error:  # a line without =, bytes that are no text
        _leave_out(distribution, f"cannot be read ({error})")
        return "", []
    if name is None:
        _leave_out(distribution, "have no name")
        return "", []
    return name, entries


def _field(distribution: Distribution, name: str) -> str | None:
    """Return a field of the metadata; None where there is none.

    The backport importlib_metadata raises there. Once a library has imported it, it is asked in the place of Python's.
    """
    try:
        found: str | None = distribution.metadata[name]
    except (KeyError, FileNotFoundError):
        return None
    return found


def _leave_out(distribution: Distribution, why: str) -> None:
    where = getattr(distribution, "_path", distribution.locate_file(""))
    logging.getLogger(__name__).warning("What is installed as %s is left out: its metadata %s.", where, why)


def _check_path(entry: EntryPoint) -> None:
    """Check that an entry names an object of a package, or a folder of one.

    Raises:
        UsageError: It does not, or the package is one that no plugin has.
    """
    module, colon, name = entry.value.partition(":")
    named = [*module.split("."), *([name] if colon else [])]
    if bool(colon) == (entry.name == _CONFIGS) or not all(each.isidentifier() for each in named):
        form = "my_package.configs" if entry.name == _CONFIGS else "my_package.attacks:SignStep"
        raise UsageError(f"it must have the form {form}.")
    # what is announced is trusted
    if named[0] in sys.stdlib_module_names or named[0] in LIBRARIES or named[0] == "lightning_adv":
        raise UsageError(f"{named[0]} is not a package of the plugin's.")


def _part(plugin: Plugin, entry: EntryPoint) -> Part:
    kind, _, name = entry.name.partition(".")
    if kind not in KINDS or not name:
        raise UsageError(f"its name must be {_CONFIGS!r}, or a kind and a name: {_examples()}.")
    if kind in _CLASSES and name != entry.attr:
        raise UsageError("a class is announced by its own name.")
    return Part(plugin, kind, name, f"{entry.module}.{entry.attr}")


def _examples() -> str:
    return ", ".join(f"{kind}.{'MyClass' if kind in _CLASSES else 'my_name'}" for kind in KINDS)


def _folder(entry: EntryPoint) -> Path:
    for folder in _folders(entry.module):
        if folder.is_dir():
            return folder
    raise UsageError("there is no such folder in the package.")


def _folders(module: str) -> Iterator[Path]:
    """Yield where the folder of a package may lie. Python itself would import the packages on the way to it."""
    first, *others = module.split(".")
    spec = find_spec(first)
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        yield Path(location, *others)


def _package(module: str) -> str:
    """Return the first package on the way to a module that is not a namespace."""
    names = module.split(".")
    for length in range(1, len(names)):
        folders = list(_folders(".".join(names[:length])))
        if not folders or any((folder / "__init__.py").is_file() for folder in folders):
            return ".".join(names[:length])
    return module
