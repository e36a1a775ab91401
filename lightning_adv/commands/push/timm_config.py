"""``config.json`` as timm reads it of ``hf-hub:user/name`` and ``local-dir:folder``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.own_networks import OWN

_KEPT = ("interpolation", "crop_mode", "first_conv", "classifier", "fixed_input_size")
_OURS = "lightning_adv."


def needed_beside_timm(architecture: Mapping[str, Any]) -> str | None:
    """Return the module to import before timm builds a network; None where timm needs nothing else.

    Args:
        architecture: The library, the name and the options of a network of timm's.
    """
    from timm.models import model_entrypoint

    module: str = model_entrypoint(_plain_name(architecture)).__module__
    return module if module.startswith(_OURS) else None


def unlike_timm(architecture: Mapping[str, Any]) -> str | None:
    """Return why timm does not build an exported network, as the end of a sentence; None where it does.

    Example:
        >>> unlike_timm({"library": "timm", "name": "resnet18", "stem": "cifar", "activation": None})
        'it has the stem for images of 32×32 (stem: cifar)'
    """
    if architecture["library"] == OWN:
        return f"{architecture['name']} is of a package of its own"
    if architecture["library"] != "timm":
        return f"{architecture['name']} is not one of its networks ({architecture['library']})"
    if architecture["stem"] == "cifar":
        return "it has the stem for images of 32×32 (stem: cifar)"
    # the one that computes what ReLU does, and has another gradient alone
    if architecture["activation"] not in (None, "smooth_backward_relu"):
        return f"it has the activation {architecture['activation']}"
    return None


def timm_config(network: nn.Module, description: Mapping[str, Any], license: str) -> dict[str, Any]:
    """Return what timm builds the network by, and how it has the images.

    Args:
        network: The plain network, which takes normalised images.
        description: What :func:`~lightning_adv.nn.weights.export.export_network` says of it.
        license: Its licence, as the hub names it.

    Returns:
        The content of ``config.json``. Of a network that timm does not build, ``architecture`` is a sentence, which
        timm's error then has in it: ``Unknown model (...)``.
    """
    architecture, num_classes = description["architecture"], description["num_classes"]
    own = getattr(network, "pretrained_cfg", None)
    own = {} if own is None else {name: own[name] for name in _KEPT if own.get(name) is not None}
    shape, names = description.get("image_shape"), description.get("class_names")
    pretrained = {
        **own,
        **description["normalization"],
        **({} if shape is None else {"input_size": shape}),
        "num_classes": num_classes,
        "crop_pct": 1.0,  # training and evaluation have the images whole
        "license": license,
    }
    reason = unlike_timm(architecture)
    return {
        "architecture": _plain_name(architecture)
        if reason is None
        else f"timm does not build this network, since {reason}: lightning_adv.nn.from_pretrained loads it",
        "num_classes": num_classes,
        **({"num_features": network.num_features} if isinstance(getattr(network, "num_features", None), int) else {}),
        **({} if names is None else {"label_names": list(names)}),
        "model_args": {"in_chans": architecture["in_channels"], **architecture["options"]},
        "pretrained_cfg": pretrained,
    }


def check_timm_builds(folder: str, network: nn.Module, description: Mapping[str, Any]) -> None:
    """Check that what timm builds from a folder computes what the network does.

    Args:
        folder: With ``config.json`` and ``model.safetensors``.
        network: The plain network, in eval mode.
        description: What it is.

    Raises:
        UsageError: It does not.
    """
    import timm

    built = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    shape = description.get("image_shape") or built.pretrained_cfg["input_size"]
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if not torch.equal(built(x), network(x)):
            raise UsageError(
                f"timm builds another network than this one by the name {_plain_name(description['architecture'])}."
            )


def _plain_name(architecture: Mapping[str, Any]) -> str:
    """Return a name without the tag of pretrained weights."""
    return str(architecture["name"]).partition(".")[0]
