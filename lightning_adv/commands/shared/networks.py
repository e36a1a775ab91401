"""The network that is evaluated: of a run, exported, or of another project."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from lightning_adv.attacks import Attack
from lightning_adv.commands.shared.images import TestImages
from lightning_adv.core.errors import UsageError
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.weights.export import read_description
from lightning_adv.nn.weights.finite import check_finite_network
from lightning_adv.nn.weights.hub import exported_backbone
from lightning_adv.nn.weights.load import read_checkpoint, say
from lightning_adv.nn.weights.repositories import find_weights
from lightning_adv.nn.weights.runs import NotARunError
from lightning_adv.regimes.checks import check_shape
from lightning_adv.regimes.runs import load_run
from lightning_adv.regimes.training_data import compare_data, data_of


@dataclass(frozen=True)
class LoadedNetwork:
    """A network and what is known of it.

    Attributes:
        network: Maps images in [0, 1] to logits, in eval mode.
        name: Its architecture's name.
        num_classes: Number of classes.
        image_shape: Shape (C, H, W) of the images that it was trained on; None where nobody says.
        evaluation_attack: The attack that its run was tested with, as plain data; None where there is none.
        facts: What ``evaluation.json`` says of it.
        trained_on: The images of its training, by :func:`~lightning_adv.regimes.training_data.describe_data`; None
            where nobody says.
        regime: The class path of the regime that trained it; None where nobody says.
    """

    network: nn.Module
    name: str
    num_classes: int
    image_shape: tuple[int, ...] | None
    evaluation_attack: Mapping[str, Any] | None
    facts: dict[str, Any]
    trained_on: Mapping[str, Any] | None = None
    regime: str | None = None


def load_network(
    checkpoint: str | None,
    backbone: Backbone | None,
    *,
    num_classes: int | None,
    domain: str | None,
    domain_argument: str = "domain",
    argument: str = "checkpoint",
) -> LoadedNetwork:
    """Build the network and load its weights, all of them.

    Args:
        checkpoint: A checkpoint of a run, a network that ``lightning-adv export`` wrote (the file, its folder, or
            ``hf-hub:user/name``), or a weights file of another project, which needs a ``backbone``. None for a
            ``backbone`` with ``pretrained: true``.
        backbone: What network the weights are of, where the file does not say.
        num_classes: Number of classes of the data set; None where nobody says.
        domain: The BatchNorm domain; None takes the one that its regime predicts with.
        domain_argument: The argument that gave it, for the errors.
        argument: The argument that gave the checkpoint, for the errors.

    Raises:
        UsageError: The file is missing, cannot be read, or holds the weights of another network; nobody says which
            network it is; or its classes are not those of the data set.
    """
    file = None if checkpoint is None else find_weights(checkpoint, argument=argument)
    if checkpoint is None or file is None:
        loaded = _foreign(None, backbone, num_classes, domain, domain_argument)
    elif (description := read_description(file, argument=argument)) is not None:
        _check_unneeded(backbone, f"{checkpoint} says which network it is")
        loaded = _exported(file, description, domain, domain_argument)
        loaded.facts["checkpoint"] = checkpoint  # as it was given, where the file is that of a cache
    elif backbone is None or _is_run(checkpoint, argument):
        _check_unneeded(backbone, f"{checkpoint} is of a run of this package, and says which network it is")
        loaded = _of_run(checkpoint, domain, domain_argument, argument)
    else:
        loaded = _foreign(checkpoint, backbone, num_classes, domain, domain_argument)
    if num_classes is not None and loaded.num_classes != num_classes:
        raise UsageError(
            f"{argument}: the network of {checkpoint} has {loaded.num_classes} classes, but the data set has "
            f"{num_classes}."
        )
    check_finite_network(loaded.network, f"checkpoint: {checkpoint}")
    loaded.network.eval()
    return loaded


def load_networks(
    networks: Mapping[str, str | None],
    images: TestImages,
    *,
    num_classes: int | None,
    domains: Mapping[str, str],
    backbones: Mapping[str, Backbone] | None = None,
    attacks: Iterable[Attack] = (),
) -> dict[str, LoadedNetwork]:
    """Load several networks, and check that they and the attacks fit the images.

    Args:
        networks: For each name what :func:`load_network` takes as a checkpoint.
        images: The images. They have a shape afterwards.
        num_classes: Number of classes of the data set; None where nobody says.
        domains: The BatchNorm domain by network; the one that its regime predicts with where none is given.
        backbones: By network what its weights are of, where the file does not say.
        attacks: The attacks.

    Raises:
        UsageError: See :func:`load_network` and :func:`check_takes`; or ``domains`` or ``backbones`` names a network
            that there is not, or an attack does not fit.
    """
    for argument, names in (("domains", domains), ("backbones", backbones or {})):
        unknown = [name for name in names if name not in networks]
        if unknown:
            raise UsageError(f"{argument} has {unknown[0]!r}; the networks are {', '.join(networks)}.")
    found: dict[str, LoadedNetwork] = {}
    for name, path in networks.items():
        argument = f"networks.{name}"
        loaded = found[name] = load_network(
            path,
            (backbones or {}).get(name),
            num_classes=num_classes,
            domain=domains.get(name),
            domain_argument=f"domains.{name}",
            argument=argument,
        )
        check_takes(loaded, images, argument=argument)
        for attack in attacks:
            attack.check_fits(images.shape, loaded.num_classes)
    return found


def check_takes(loaded: LoadedNetwork, images: TestImages, *, argument: str = "checkpoint") -> None:
    """Check that a network takes the images of a test set, and knows their labels.

    Args:
        loaded: The network.
        images: The images. They have a shape afterwards.
        argument: The argument that gave the network, for the errors.

    Raises:
        UsageError: It does not, the images leave [0, 1], or some of them may be images that it was trained on.
    """
    shape = images.check(loaded.facts["architecture"]["in_channels"], loaded.num_classes)
    if loaded.image_shape is not None and loaded.image_shape != shape:
        raise UsageError(
            f"{argument}: {loaded.facts['checkpoint']} was trained on images of shape {loaded.image_shape}, but those "
            f"of {images.name} have the shape {shape}."
        )
    if told := compare_data(loaded.trained_on, images.described, "test", argument=argument):
        say(told, warn=True)
    check_shape(loaded.network, loaded.name, shape, images.name, loaded.num_classes)


def _is_run(checkpoint: str, argument: str) -> bool:
    content = read_checkpoint(checkpoint, argument=argument)
    return isinstance(content, dict) and "regime" in content and "hyper_parameters" in content


def _of_run(checkpoint: str, domain: str | None, domain_argument: str, argument: str) -> LoadedNetwork:
    try:
        loaded = load_run(checkpoint, argument=argument, domain=domain, domain_argument=domain_argument)
    except NotARunError as error:
        advice = (  # of the command, whose only key for a network it may be
            "Of a file of another project, say which network it is (backbone.name)."
            if argument == "checkpoint"
            else "It takes those, and what 'lightning-adv export' wrote."
        )
        raise UsageError(f"{error} {advice}") from None
    backbone, num_classes, settings, content, _ = loaded.run
    regime, shape = content["regime"]["class_path"], content["regime"].get("image_shape")
    facts = {
        "regime": regime.rpartition(".")[2],
        "domain": loaded.domain,
        "epoch": content["epoch"],
        "step": content["global_step"],
        **({} if loaded.built_by is None else {"built_by": loaded.built_by}),
    }
    attack = settings.get("evaluation_attack")
    told = facts | _facts(checkpoint, backbone.architecture(), num_classes)
    size = None if shape is None else tuple(shape)
    return LoadedNetwork(loaded.network, backbone.name, num_classes, size, attack, told, data_of(content), regime)


def _exported(
    checkpoint: str, description: Mapping[str, Any], domain: str | None, domain_argument: str
) -> LoadedNetwork:
    if domain is not None and domain != description.get("domain"):
        raise UsageError(
            f"{domain_argument} is {domain!r}, but {checkpoint} was exported without other domains than "
            f"{description.get('domain')!r}: leave it out."
        )
    backbone = exported_backbone(checkpoint, description)
    num_classes = int(description["num_classes"])
    facts = {"regime": description.get("regime"), "domain": description.get("domain")}
    told = facts | _facts(checkpoint, backbone.architecture(), num_classes)
    attack, shape = description.get("evaluation_attack"), description.get("image_shape")
    image_shape = None if shape is None else tuple(shape)
    trained_on = description.get("trained_on")
    return LoadedNetwork(backbone.build(num_classes), backbone.name, num_classes, image_shape, attack, told, trained_on)


def _foreign(
    checkpoint: str | None,
    backbone: Backbone | None,
    num_classes: int | None,
    domain: str | None,
    domain_argument: str,
) -> LoadedNetwork:
    if backbone is None:
        raise UsageError("checkpoint must be given, or a backbone with pretrained weights (backbone.pretrained: true).")
    if checkpoint is not None:
        backbone = replace(backbone, checkpoint=checkpoint, checkpoint_domain=domain)
    elif domain is not None and backbone.checkpoint is None:
        raise UsageError(f"{domain_argument} is {domain!r}, but there is no checkpoint with BatchNorm domains.")
    elif backbone.checkpoint is not None:
        backbone = replace(backbone, checkpoint=find_weights(backbone.checkpoint, argument="backbone.checkpoint"))
    elif not backbone.brings_weights:
        raise UsageError("checkpoint must be given, or backbone.pretrained: weights that were only drawn tell nothing.")
    if num_classes is None:
        raise UsageError("data must say how many classes there are (num_classes) for a network of another project.")
    try:
        network = backbone.build(num_classes)
    except UsageError as error:
        given = {} if checkpoint is None else {"checkpoint": "checkpoint", "checkpoint_domain": domain_argument}
        if error.key in given:  # the two are not given as the backbone's own
            raise UsageError(error.message, key=given[error.key]) from error
        raise error.under("backbone") from error
    if network.new:
        raise UsageError(
            f"checkpoint: {backbone.checkpoint or backbone.name} does not fill {', '.join(network.new)}, of a network "
            f"with the {num_classes} classes of the data set: an evaluation needs all weights."
        )
    told = {"regime": None, "domain": domain} | _facts(backbone.checkpoint, backbone.architecture(), num_classes)
    return LoadedNetwork(network, backbone.name, num_classes, None, None, told)


def _check_unneeded(backbone: Backbone | None, reason: str) -> None:
    if backbone is not None:
        raise UsageError(f"backbone.name is {backbone.name!r}, but {reason}: leave backbone out.")


def _facts(checkpoint: str | None, architecture: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"checkpoint": checkpoint, "architecture": dict(architecture), "num_classes": num_classes}
    if checkpoint is not None:
        with Path(checkpoint).expanduser().open("rb") as file:
            facts["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return facts
