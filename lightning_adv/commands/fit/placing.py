"""Where a run, a test, a validation or predictions go, and that nobody else writes there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from lightning_adv.commands.shared.run_folder import check_writable, run_folder_of, saved_checkpoints
from lightning_adv.commands.shared.stopping import how_to_go_on
from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import clear_unfinished, set_aside
from lightning_adv.core.locks import alone

_PLACE = ("save_dir", "name", "version")
_VERSION = "--trainer.logger.init_args.version"


class Held(ExitStack):
    """Locks. Lightning's weight averaging copies the module and all that it reaches, which is the command too."""

    def __deepcopy__(self, memo: object) -> Held:
        return self


def place_of(command: str, given: Mapping[str, Any], checkpoint: str | None) -> dict[str, Any]:
    """Return where the CSVLogger of a command other than ``fit`` writes: never among the runs.

    Of a run's checkpoint it is ``RUN/<command>/version_<n>``, unless the logger is told another place than the run's
    own; else ``<save_dir>/<name>/<command>/version_<n>``. A version that is given is taken as it is.

    Args:
        command: ``test``, ``validate`` or ``predict``.
        given: The logger's arguments.
        checkpoint: The checkpoint, where there is one.
    """
    run = None if checkpoint is None else run_folder_of(checkpoint)
    place = {key: given.get(key) for key in _PLACE}
    if checkpoint is not None and run is not None and os.access(run, os.W_OK) and _is_of(run, place):
        below = run if Path(checkpoint).is_absolute() else Path(os.path.relpath(run))
        return {"save_dir": str(below), "name": command, "version": None}
    if place["version"] is None:
        return place | {"name": f"{place['name']}/{command}" if place["name"] else command}
    return place


def _is_of(run: Path, place: Mapping[str, Any]) -> bool:
    """Whether a logger's place is that of a run, which may have moved since."""
    version = f"version_{place['version']}" if isinstance(place["version"], int) else place["version"]
    if version is not None and Path(str(place["save_dir"]), str(place["name"] or ""), version) == run:
        return True
    content = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    trainer = content.get("trainer") if isinstance(content, dict) else None
    logger = trainer.get("logger") if isinstance(trainer, dict) else None
    loggers = [one for one in (logger if isinstance(logger, list) else [logger]) if isinstance(one, dict)]
    arguments = [one.get("init_args") for one in loggers if str(one.get("class_path")).endswith("CSVLogger")]
    if not arguments:  # that of the command's own
        return True
    return isinstance(arguments[0], dict) and all(arguments[0].get(key) == place[key] for key in _PLACE)


@contextmanager
def taking_a_version(root: Path) -> Iterator[None]:
    """Let one start at a time choose the next version below a folder, and make its folder.

    Raises:
        UsageError: The folder cannot be written, or another start holds it for a long time.
    """
    check_writable(root)
    with alone(root / ".lightning-adv.lock", f"The folder {root}", instead=f"give {_VERSION}", wait=60.0):
        yield


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Hold a run folder, which is there, while a command writes into it.

    The lock lies beside it: Lightning's logger warns of a folder that is not empty.

    Raises:
        UsageError: Another process writes there, or it cannot be written.
    """
    check_writable(folder)
    beside = folder.resolve().with_name(f".{folder.resolve().name}.lock")
    with ExitStack() as held:
        with suppress(OSError):  # only the folder itself can be written, such as a volume
            held.enter_context(alone(beside, f"The run folder {folder}", instead=f"give another version ({_VERSION})"))
        for below in (folder, *(folder / name for name in ("checkpoints", "figures", "analyses"))):
            clear_unfinished(below)
        yield


def check_resumable(folder: Path) -> None:
    """Check that a run can go on in its folder.

    Raises:
        UsageError: It cannot be written.
    """
    try:
        check_writable(folder, argument="ckpt_path")
    except UsageError as error:
        raise UsageError(f"{error} A run goes on in its own folder: copy it to a place that can be written.") from error


def check_vacant(folder: Path) -> None:
    """Check that a run folder holds no run that a new one would replace; make room where nothing of it was saved.

    Raises:
        UsageError: It holds one.
    """
    if not (folder / "config.yaml").is_file():
        return
    if (folder / "results.json").is_file() or saved_checkpoints(folder):
        raise UsageError(
            f"The run folder {folder} holds a run already: give this one another version ({_VERSION})."
            f"{how_to_go_on(folder)}"
        )
    set_aside(folder / "metrics.csv")  # of a run that was killed before it had saved anything
