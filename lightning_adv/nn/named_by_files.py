"""Networks that a file names by their import path: which of them are imported, and called, because a file says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lightning_adv.core.recipe import NotImportedError, check_class_paths, check_trusted
from lightning_adv.core.trust import is_trusted
from lightning_adv.nn.libraries import find_network
from lightning_adv.nn.own_networks import OWN, import_network, is_path


def check_named(config: Any) -> None:
    """Check that every class and every network that plain data of a file name may be imported because the file says so.

    Raises:
        NotImportedError: One is of a module that was not imported, and is not trusted; or a function of one that was
            imported, and is not trusted.

    Example:
        >>> check_named({"backbone": {"name": "beside.Network"}})
        Traceback (most recent call last):
        lightning_adv.core.recipe.NotImportedError: backbone.name 'beside.Network' is not of this package, ...
    """
    check_class_paths(config)
    for name in own_networks_in(config):
        library, path = find_network(name)
        if library == "python":
            check_trusted(path, what=f"backbone.name {path!r}")
            module = path.rpartition(".")[0]
            # os.system and torch.hub.load are imported in every process, and options would be their arguments
            if not is_trusted(module) and not isinstance(import_network(path), type):
                package = module.partition(".")[0]
                raise NotImportedError(
                    f"backbone.name {path!r} is a function of a package that is not trusted: none is called because a "
                    f"file names it. If you trust it, say so: --trust {package} on the command line, or "
                    f"lightning_adv.core.trust.trust({package!r}) in Python."
                )


def own_networks_in(config: Any) -> Iterator[str]:
    """Yield the names in plain data that a :class:`~lightning_adv.nn.backbones.Backbone` may take for import paths.

    Example:
        >>> list(own_networks_in({"backbone": {"name": "my_package.MyNet"}, "data": [{"name": "digits"}]}))
        ['my_package.MyNet']
    """
    if isinstance(config, Mapping):
        name = config.get("name")
        if isinstance(name, str) and is_path(name.removeprefix(f"{OWN}/")):
            yield name
        for value in config.values():
            yield from own_networks_in(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from own_networks_in(value)
