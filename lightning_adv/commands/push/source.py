"""What is pushed, and what is known of it: the network of a run or an export, and the evaluations of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightning_adv.commands.export.checkpoint import plain_network
from lightning_adv.core.errors import UsageError
from lightning_adv.core.reading import MEGABYTE, read_json, read_yaml
from lightning_adv.nn.normalize import NormalizedNetwork
from lightning_adv.nn.weights.export import DESCRIPTION, WEIGHTS, ExportedNetwork, export_network, read_description
from lightning_adv.nn.weights.hub import exported_backbone
from lightning_adv.nn.weights.load import say

_EVALUATION = "evaluation.json"


class Source(NamedTuple):
    """A network that is pushed.

    Attributes:
        network: The network, in eval mode.
        exported: The same as data, with what is known of it.
        evaluations: What ``evaluate`` wrote of these weights.
        configuration: What its run was configured with; empty where it is not known.
    """

    network: NormalizedNetwork
    exported: ExportedNetwork
    evaluations: list[Mapping[str, Any]]
    configuration: Mapping[str, Any]


def read_source(source: Path, *, domain: str | None, evaluations: Iterable[Path]) -> Source:
    """Read a network and what is known of it.

    Args:
        source: A run folder, a checkpoint, or a folder that ``lightning-adv export`` wrote.
        domain: The BatchNorm domain of a run; None takes the one that its regime predicts with.
        evaluations: Folders of evaluations, beside those that lie in the run or the export.

    Raises:
        UsageError: There is no such network, or an evaluation that was given is not of these weights.
    """
    if (source / DESCRIPTION).is_file():
        weights, home = source / WEIGHTS, source
        network, exported = _read_export(source, domain)
    else:
        weights = source / "checkpoints" / "best.ckpt" if source.is_dir() else source
        home = weights.parent.parent if weights.parent.name == "checkpoints" else weights.parent
        if source.is_dir() and not weights.is_file():
            raise UsageError(f"SOURCE: {source} is neither a run with checkpoints/best.ckpt nor an export.")
        network, exported = plain_network(weights, domain=domain, argument="SOURCE")
    of_weights = _sha256(weights)
    taken = exported.description.get("domain")
    found = [_read_evaluation(folder / _EVALUATION, of_weights, taken, given=True) for folder in evaluations]
    beside = [
        _read_evaluation(path, of_weights, taken, given=False)
        for path in sorted(home.glob(f"*/{_EVALUATION}"))
        if path.parent.resolve() not in {folder.resolve() for folder in evaluations}
    ]
    return Source(network.eval(), exported, [each for each in (*found, *beside) if each], _configuration(home))


def _read_export(folder: Path, domain: str | None) -> tuple[NormalizedNetwork, ExportedNetwork]:
    description = read_description(folder / WEIGHTS, argument="SOURCE")
    if description is None:
        raise UsageError(f"SOURCE: {folder} holds no {WEIGHTS} that lightning-adv export wrote.")
    if domain is not None and domain != description.get("domain"):
        raise UsageError(f"--domain is {domain!r}, but {folder} was exported through {description.get('domain')!r}.")
    backbone = exported_backbone(folder / WEIGHTS, description)
    network = backbone.build(int(description["num_classes"]))
    state = export_network(network, backbone.architecture(), int(description["num_classes"])).state
    return network, ExportedNetwork(state, {name: value for name, value in description.items() if name != "sha256"})


def _read_evaluation(path: Path, sha256: str, domain: str | None, *, given: bool) -> Mapping[str, Any] | None:
    """Return an evaluation of these weights through this domain; None, with a word, for another that was found."""
    try:
        content = read_json(path, most=100 * MEGABYTE)
        network = content["settings"]["network"]
        if (network["sha256"], network["domain"]) != (sha256, domain):
            raise UsageError("it is of other weights, or of another BatchNorm domain")
    except (UsageError, KeyError, TypeError) as error:
        reason = error if isinstance(error, UsageError) else "it holds no evaluation of a network"
        if given:
            raise UsageError(f"--evaluation: {path} cannot stand in the card: {reason}.") from error
        say(f"{path} does not stand in the card: {reason}.", warn=True)
        return None
    evaluation: Mapping[str, Any] = {**content, "name": path.parent.name}
    return evaluation


def _configuration(home: Path) -> Mapping[str, Any]:
    """Return what a run was configured with, but for where its files lie and what looks at it."""
    path = home / "config.yaml"
    if not path.is_file():
        return {}
    try:
        content = read_yaml(path)
        trainer, data = content.get("trainer") or {}, content.get("data") or {}
        kept = {"max_epochs": trainer.get("max_epochs"), "precision": trainer.get("precision")}
        plain: Mapping[str, Any] = without_paths(
            {
                "seed_everything": content.get("seed_everything"),
                "trainer": {name: value for name, value in kept.items() if value is not None},
                **{name: content[name] for name in ("model", "optimizer", "lr_scheduler") if content.get(name)},
                "data": data,
            }
        )
        return plain
    except (UsageError, AttributeError) as error:
        say(f"{path} does not stand in the card: it cannot be read ({error}).", warn=True)
        return {}


def without_paths(value: Any) -> Any:
    """Return plain data with the last part alone of each path of this machine: a card is for everybody.

    Example:
        >>> without_paths({"root": "/home/somebody/images", "eps": "8/255"})
        {'root': 'images', 'eps': '8/255'}
    """
    if isinstance(value, Mapping):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and (value.startswith("~") or Path(value).is_absolute()):
        return Path(value).name
    return value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
