"""Plain checkpoints out: the weights of the original architecture, and a description that says what they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import to_json, write_whole
from lightning_adv.core.reading import read_json
from lightning_adv.nn.normalize import NormalizedNetwork
from lightning_adv.nn.weights.domain_states import plain_state_dict, state_domains
from lightning_adv.nn.weights.form import CLASSES, MAPPING, RECIPE, SHAPE, TEXT, Field, check_form, list_of, or_none

FORMAT = "lightning-adv network 1"
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


_NUMBERS = list_of("numbers", lambda value: isinstance(value, (int, float)) and not isinstance(value, bool))
_FORM = (
    Field(("sha256",), TEXT),
    Field(("architecture",), MAPPING),
    Field(("architecture", "library"), TEXT),
    Field(("architecture", "name"), TEXT),
    Field(("num_classes",), CLASSES),
    Field(("normalization",), MAPPING),
    *(Field(("normalization", name), _NUMBERS) for name in ("mean", "std")),
    *(Field((name,), or_none(TEXT), required=False) for name in ("domain", "regime", "built_by")),
    Field(("image_shape",), or_none(SHAPE), required=False),
    Field(("evaluation_attack",), or_none(RECIPE), required=False),
)


@dataclass(frozen=True)
class ExportedNetwork:
    """A plain network as data.

    Args:
        state: The state dict of the original architecture, without normalisation and domains.
        description: What :data:`DESCRIPTION` holds, but for the weights' checksum.
    """

    state: dict[str, Tensor]
    description: dict[str, Any]


def export_network(
    network: NormalizedNetwork,
    architecture: Mapping[str, Any],
    num_classes: int,
    *,
    domain: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> ExportedNetwork:
    """Return a network without what its training added: its normalisation becomes numbers, its domains one BatchNorm.

    The state dict loads strictly into what timm or torchvision builds under the name in ``architecture`` (with its
    CIFAR stem and activation, if any: learnable activations have keys of their own). On images normalised by the
    numbers it computes the same logits in eval mode, to the last bit.

    Args:
        network: The network. It stays as it is.
        architecture: :meth:`lightning_adv.nn.backbones.Backbone.architecture` of the recipe that built it.
        num_classes: Number of classes K.
        domain: The BatchNorm domain of a network that has domains; None is ``main``.
        facts: What else to write into the description.

    Raises:
        UsageError: The network has no such domain.

    Example:
        >>> from torch import nn
        >>> from lightning_adv.nn import Normalize
        >>> network = NormalizedNetwork(Normalize(mean=[0.5], std=[0.25]), nn.Linear(2, 3))
        >>> exported = export_network(network, {"library": "timm", "name": "resnet18"}, num_classes=3)
        >>> list(exported.state), exported.description["normalization"]
        (['weight', 'bias'], {'mean': [0.5], 'std': [0.25]})
    """
    state: Mapping[str, Tensor] = network.network.state_dict()
    if state_domains(state) or domain is not None:
        domain = "main" if domain is None else domain
        state = plain_state_dict(state, domain)
    description = {
        "format": FORMAT,
        "architecture": dict(architecture),
        "num_classes": num_classes,
        "normalization": {
            name: getattr(network.normalize, name).flatten().double().tolist() for name in ("mean", "std")
        },
        "domain": domain,
        **({} if facts is None else facts),
    }
    # clones: safetensors refuses tensors that share memory
    return ExportedNetwork(
        {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}, description
    )


def write_network(exported: ExportedNetwork, folder: Path, *, overwrite: bool = False) -> None:
    """Write ``model.safetensors`` and ``model.json``, each whole or not at all.

    Weights that are there without a description, as a kill between the two leaves them, are no reason to refuse if they
    are the same.

    Raises:
        UsageError: One of them is there already and ``overwrite`` is False, or one cannot be written.

    Example:
        >>> import tempfile, torch
        >>> exported = ExportedNetwork({"weight": torch.ones(2)}, {"num_classes": 2})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_network(exported, Path(folder))
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['model.json', 'model.safetensors']
    """
    from safetensors.torch import save

    weights, description = folder / WEIGHTS, folder / DESCRIPTION
    content = save(exported.state, metadata={"format": "pt"})
    checksum = hashlib.sha256(content).hexdigest()
    unfinished = not description.exists() and weights.is_file() and _sha256(weights) == checksum
    there = [path for path in (weights, description) if path.exists()]
    if there and not overwrite and not unfinished:
        raise UsageError(f"{there[0]} is there already: choose another folder, or overwrite it.")
    checked = {**exported.description, "sha256": checksum}
    try:
        if not unfinished:
            write_whole(weights, content)  # beside them the description that is there now is refused when it is read
        write_whole(description, to_json(checked))
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written ({error.strerror}).") from error


def read_description(weights: str | os.PathLike[str], *, argument: str) -> dict[str, Any] | None:
    """Return the description beside exported weights (``model.json`` beside ``model.safetensors``).

    Args:
        weights: The weights file.
        argument: The name of the argument that gave it, for the errors.

    Returns:
        The description; None where there is none, or another program's.

    Raises:
        UsageError: It is the description of other weights, or incomplete.
    """
    weights = Path(weights).expanduser()
    path = weights.with_suffix(".json")
    if weights.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        description = read_json(path)
    except ValueError as error:
        raise UsageError(
            f"{argument}: {path}, which may say what {weights.name} is, cannot be read ({error}): put the right one "
            "beside it, or move it away."
        ) from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        return None
    try:
        check_form(description, _FORM, source=f"{argument}: {path}")
    except UsageError as error:
        raise UsageError(f"{error} Export the network again.") from error
    mean, std = (description["normalization"][name] for name in ("mean", "std"))
    if len(mean) != len(std) or not mean:
        raise UsageError(
            f"{argument}: {path} has {len(mean)} means and {len(std)} standard deviations in the field normalization, "
            "where one of each belongs for every channel. Export the network again."
        )
    if description["sha256"] != _sha256(weights):
        raise UsageError(
            f"{argument}: {path} describes other weights than {weights} (their checksums differ): put the right one "
            "beside it, or move it away."
        )
    return description


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
