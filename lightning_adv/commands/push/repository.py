"""The files of a repository, and their way to the hub."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from lightning_adv.commands.push.card import model_card
from lightning_adv.commands.push.source import Source, read_source
from lightning_adv.commands.push.timm_config import check_timm_builds, timm_config, unlike_timm
from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import clear_unfinished, to_json, write_whole
from lightning_adv.core.locks import alone
from lightning_adv.nn.weights.export import DESCRIPTION, WEIGHTS, write_network
from lightning_adv.nn.weights.repositories import told_of_hub

CARD, CONFIG = "README.md", "config.json"
FILES = (WEIGHTS, DESCRIPTION, CONFIG, CARD)


def push(
    source: Path,
    repository: str,
    *,
    domain: str | None = None,
    evaluations: Iterable[Path] = (),
    license: str = "unknown",
    private: bool = False,
    output: Path | None = None,
    overwrite: bool = False,
) -> str:
    """Put a network on the hub: its weights, what timm and this package build it by, and a card.

    Args:
        source: A run folder, a checkpoint, or a folder that ``lightning-adv export`` wrote.
        repository: ``user/name``.
        domain: The BatchNorm domain; None takes the one that the regime predicts with.
        evaluations: Folders of evaluations of these weights, beside those that lie in the run or the export.
        license: The licence, as the hub names it.
        private: Whether the repository becomes a private one if it is made.
        output: A folder to write instead, without asking the hub; None pushes.
        overwrite: Whether files in ``output`` may be replaced.

    Returns:
        What was written where, for the user.

    Raises:
        UsageError: There is no such network, the folder cannot be written, or the hub refuses.
    """
    _check_name(repository)
    found = read_source(source, domain=domain, evaluations=list(evaluations))
    taken = found.exported.description.get("domain")
    through = "" if taken is None else f", through the domain {taken}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _write(folder, found, repository, license)
        if output is None:
            return f"The network is in {_upload(folder, repository, private)}{through}"
        _move(folder, output, overwrite=overwrite)
    return f"What would be pushed to {repository} is in {output}{through}"


def _check_name(repository: str) -> None:
    from huggingface_hub import utils

    with told_of_hub("--repo", repository):
        utils.validate_repo_id(repository)  # type: ignore[attr-defined]  # documented, and not listed
    if "/" not in repository:
        raise UsageError(f"--repo: {repository!r} is not a repository such as user/name.")


def _write(folder: Path, found: Source, repository: str, license: str) -> None:
    """Write the files, and check that timm builds the network from them if the card says so."""
    plain, description = found.network.network, found.exported.description
    write_network(found.exported, folder)
    write_whole(folder / CONFIG, to_json(timm_config(plain, description, license)))
    if unlike_timm(description["architecture"]) is None:
        check_timm_builds(str(folder), plain, description)
    write_whole(folder / CARD, model_card(found, repository, license))


def _move(folder: Path, output: Path, *, overwrite: bool) -> None:
    """Write what lies in one folder into another, each file whole or not at all."""
    try:
        with alone(output / ".lightning-adv.lock", f"--output: {output}", instead="give another --output"):
            clear_unfinished(output)
            there = [output / name for name in FILES if (output / name).exists()]
            if there and not overwrite:
                raise UsageError(f"{there[0]} is there already: choose another folder, or overwrite it.")
            for name in FILES:  # the weights first: beside them an older description is refused when it is read
                write_whole(output / name, (folder / name).read_bytes())
    except OSError as error:
        raise UsageError(f"The folder {output} cannot be written ({error.strerror}).") from error


def _upload(folder: Path, repository: str, private: bool) -> str:
    from huggingface_hub import HfApi

    api = HfApi(library_name="lightning-adv")
    with told_of_hub("--repo", repository):
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            allow_patterns=list(FILES),
            commit_message="Push a network of lightning-adv",
        )
    return str(made)
