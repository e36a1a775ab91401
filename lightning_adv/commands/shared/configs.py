"""Configurations by name: ``--config digits/madry --config analyses`` works in any folder.

Those of plugins lie in folders that are laid out as this package's own is.
"""

from __future__ import annotations

import codecs
import locale
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_adv.core.errors import UsageError
from lightning_adv.core.plugins import Plugin, config_folders, several
from lightning_adv.core.reading import read_yaml
from lightning_adv.core.suggestions import did_you_mean

_FOLDER = Path(__file__).parents[2] / "configs"


_PRESETS = ("evaluation/", "transfer/", "interpret/")


def config_names() -> list[str]:
    """Return the names of the runs that come with the package, such as ``digits/madry``; each runs as it stands."""
    return [name for name in _names("*/*.yaml") if not name.startswith(_PRESETS)]


def preset_names(command: str | None = None) -> list[str]:
    """Return the names of what ``evaluate``, ``transfer`` and ``interpret`` take, such as ``evaluation/standard``.

    Args:
        command: ``"evaluation"``, ``"transfer"`` or ``"interpret"``; None takes all of them.
    """
    return [name for prefix in _PRESETS if command in (None, prefix[:-1]) for name in _names(f"{prefix}*.yaml")]


def study_names() -> list[str]:
    """Return the names of the studies that come with the package, such as ``studies/digits/blockwise``."""
    return _names("studies/*/*.yaml")


def addition_names() -> list[str]:
    """Return the names of the configurations that are added to a run, such as ``analyses``; they are in no folder."""
    return _names("*.yaml")


def plugin_configs() -> list[tuple[Plugin, str, Path]]:
    """Return the configurations of plugins: of which it is, its name, such as ``evaluation/strict``, and its file."""
    folders = config_folders()
    return [
        (plugin, name, folder / f"{name}.yaml") for plugin, folder in folders for name in _names("**/*.yaml", folder)
    ]


def _names(pattern: str, folder: Path = _FOLDER) -> list[str]:
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob(pattern))


def own_config(name: str) -> str:
    """Return the path of a configuration of this package."""
    return str(_FOLDER / f"{name}.yaml")


def find_config(name: str) -> str:
    """Return the path of a configuration.

    Args:
        name: A file, or one of :func:`config_names`, :func:`addition_names`, :func:`preset_names`,
            :func:`study_names` and those of :func:`plugin_configs`, with or without ``configs/`` before and ``.yaml``
            after it.

    Raises:
        UsageError: There is neither a file nor a configuration of that name, or several plugins have one.
    """
    if _is(Path.is_file, name):
        return name
    known = config_names() + addition_names() + preset_names() + study_names()
    plain = name.removeprefix("configs/").removesuffix(".yaml")
    paths: dict[str, Plugin | None] = {own_config(plain): None} if plain in known else {}
    paths |= {str(path): plugin for plugin, announced, path in plugin_configs() if announced == plain}
    if len(paths) > 1:
        raise UsageError(several(f"configuration {plain!r}", paths), key="--config")
    if paths:
        return next(iter(paths))
    announced = [name for _, name, _ in plugin_configs()]
    if _is(Path.is_dir, name):
        hint = f" Did you mean {str(Path(name) / 'config.yaml')!r}?" if (Path(name) / "config.yaml").is_file() else ""
        raise UsageError(f"--config: {name!r} is a folder, and a configuration is a file.{hint}")
    # Either alone fills ten lines of a terminal.
    told = [each for each in known if each.startswith("studies/") == plain.startswith("studies/")]
    raise UsageError(
        f"--config: there is no file {name!r}, and no configuration of that name."
        f"{did_you_mean(plain, [*known, *announced])} The package has {_listed(told)}."
        + (f" Plugins have {_listed(announced)}." if announced else "")
    )


def _listed(names: Sequence[str]) -> str:
    """Write names down, those of a folder together: ``cifar10/(awp, madry), analyses``."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(name.rpartition("/")[0], []).append(name.rpartition("/")[2])
    told = []
    for folder, each in folders.items():
        inside = ", ".join(each)
        told.append(f"{folder}/({inside})" if folder and len(each) > 1 else f"{folder}/{inside}" if folder else inside)
    return ", ".join(told)


def _is(kind: Callable[[Path], bool], name: str) -> bool:
    try:
        return kind(Path(name))
    except (OSError, ValueError):  # too long for a name, or a NUL in it
        return False


def complete_flags(arguments: Sequence[str], *flags: str) -> list[str]:
    """Let ``--flag`` alone stand for ``--flag true``, which configurations need a value for.

    Args:
        arguments: A command line.
        flags: The flags, such as ``--overwrite``.

    Example:
        >>> complete_flags(["--overwrite", "--seed", "1", "--exhaustive", "false"], "--overwrite", "--exhaustive")
        ['--overwrite', 'true', '--seed', '1', '--exhaustive', 'false']
    """
    complete: list[str] = []
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        complete += [argument, "true"] if argument in flags and following.startswith("-") else [argument]
    return complete


def resolve_configs(arguments: Sequence[str]) -> list[str]:
    """Replace the names after ``--config`` and ``-c`` by paths.

    Raises:
        UsageError: See :func:`find_config`; or a file is no configuration.
    """
    resolved: list[str] = []
    for argument in arguments:
        if resolved and resolved[-1] in ("--config", "-c"):
            resolved.append(_readable(argument))
        elif argument.startswith(("--config=", "-c=")):
            option, _, name = argument.partition("=")
            resolved.append(f"{option}={_readable(name)}")
        else:
            resolved.append(argument)
    return resolved


def _readable(name: str) -> str:
    """Return the path of a file that holds one mapping of keys, as every configuration does."""
    path = find_config(name)
    encoding = locale.getpreferredencoding(do_setlocale=False)
    try:
        content = read_yaml(Path(path))
        # jsonargparse 4.53 opens it without an encoding, and takes the locale's.
        if codecs.lookup(encoding).name != "utf-8" and not Path(path).read_bytes().isascii():
            raise UsageError(f"it is not of ASCII alone, and would be read as {encoding}: set PYTHONUTF8=1")
    except UsageError as error:
        raise UsageError(f"--config: {path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        found = "empty" if content is None else f"a {type(content).__name__}"
        raise UsageError(f"--config: {path} must be a mapping of keys such as model, data and trainer, but is {found}.")
    return path
