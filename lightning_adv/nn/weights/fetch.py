"""Published weights, from where their authors put them into a folder of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.weights.load import say


def fetch(name: str, source: str) -> Path:
    """Return the file of a published network's weights, which is downloaded where it is not there yet.

    It lies under ``torch.hub.get_dir()``: ``robustbench/cifar10/Linf/<entry>.pt``, which is also where RobustBench's
    own package looks, given the folder before ``cifar10``.

    Args:
        name: ``robustbench/`` and the entry.
        source: The id of a file on Google Drive, for which the package gdown is needed, or an address.

    Raises:
        UsageError: gdown is not installed, or the file cannot be downloaded.
    """
    library, _, entry = name.partition("/")
    file = Path(torch.hub.get_dir()) / library / "cifar10" / "Linf" / f"{entry}.pt"
    if file.is_file():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    address = source if source.startswith("https://") else f"https://drive.google.com/uc?id={source}"
    say(f"{name}: its weights are downloaded from {address} to {file}.")
    partial = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        if address == source:
            torch.hub.download_url_to_file(source, str(partial), progress=False)
        else:
            _from_drive(source, partial, name)
        partial.replace(file)
    except UsageError:
        raise
    except Exception as error:  # what the two raise is of a dozen packages: no network, no such file, a limit, a disk
        raise UsageError(
            f"{name!r}: its weights cannot be downloaded from {address} ({type(error).__name__}: {error}). Give the "
            "file as checkpoint, once you have it.",
            key="name",
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return file


def _from_drive(identity: str, file: Path, name: str) -> None:
    try:
        import gdown
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{name!r} has its weights on Google Drive, for which the package gdown is needed: "
            "pip install 'lightning-adv[robustbench]'; or give their file as checkpoint.",
            key="name",
        ) from error
    gdown.download(id=identity, output=str(file), quiet=True)
