"""Any timm or torchvision classifier by name, for images in [0, 1].

timm, torchvision and the networks of this package that are registered with timm (``preact_resnet18``,
``wide_resnet28_10``, ``wide_resnet34_10``, ``small_cnn``) are imported on first use: the command line answers before.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from lightning_adv.nn.checkpoints import load_weights
from lightning_adv.nn.normalize import Normalize, NormalizedNetwork
from lightning_adv.recipe import Recipe

Stem = Literal["default", "cifar"]
Channels = Sequence[float]

# arguments of the two libraries that Backbone sets by fields of its own
RESERVED_OPTIONS = (
    "num_classes",
    "in_chans",
    "pretrained",
    "checkpoint_path",
    "features_only",
    "weights",
    "aux_logits",
    "transform_input",
)


@dataclass(frozen=True)
class Backbone(Recipe):
    """The recipe of a network: what :func:`create_backbone` gets, except for the number of classes.

    Example:
        >>> network = Backbone("resnet18", stem="cifar").build(num_classes=10)
        >>> network(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])

    Args:
        name: A timm name (``resnet18``, ``resnet50.a1_in1k``), else a torchvision name; ``timm/`` or ``torchvision/``
            in front picks the library. torchvision's weights are picked as in
            ``torchvision/resnet50.IMAGENET1K_V1``.
        stem: ``cifar`` makes a ResNet's first convolution 3×3 with stride 1 and drops its max-pool.
        in_channels: Channels C of the images.
        pretrained: Download the weights that the library has for this name.
        checkpoint: A weights file to load, with keys for all of the network.
        mean: Mean of each channel, pixels in [0, 1]. ``None``: the one that the network was pretrained with.
        std: Standard deviation of each channel, likewise.
        options: Further keyword arguments of the network's constructor, such as ``drop_path_rate``.
    """

    name: str
    stem: Stem = "default"
    in_channels: int = 3
    pretrained: bool = False
    checkpoint: str | None = None
    mean: Channels | None = None
    std: Channels | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # YAML has lists: as tuples, a recipe equals the one that its configuration gives back
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value))

    def build(self, num_classes: int) -> NormalizedNetwork:
        """Build the network with ``num_classes`` outputs. See :func:`create_backbone`."""
        return create_backbone(
            self.name,
            num_classes,
            stem=self.stem,
            in_channels=self.in_channels,
            pretrained=self.pretrained,
            checkpoint=self.checkpoint,
            mean=self.mean,
            std=self.std,
            options=self.options,
        )


def create_backbone(
    name: str,
    num_classes: int,
    *,
    stem: Stem = "default",
    in_channels: int = 3,
    pretrained: bool = False,
    checkpoint: str | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    options: dict[str, Any] | None = None,
) -> NormalizedNetwork:
    """Build a classifier by name, with the normalisation as its first layer.

    The arguments are those of :class:`Backbone`. With pretrained weights, the classifier is new where
    ``num_classes`` differs from theirs, and so is the first convolution with ``stem="cifar"``. timm adapts pretrained
    weights to ``in_channels``; torchvision cannot. Where the network's own ``mean`` and ``std`` have another
    number of channels, each channel gets their average.

    Returns:
        A network from images (N, C, H, W) in [0, 1] to logits (N, ``num_classes``).

    Raises:
        ValueError: An argument is outside what is allowed, the name is unknown or no classifier, the stem is not one
            that this network has, or the checkpoint does not fit.
    """
    settings = {} if options is None else dict(options)
    _check(num_classes, stem, in_channels, pretrained, checkpoint, settings)
    _check_channels(in_channels, mean=mean, std=std)
    library, name = _find(name)
    if library == "timm":
        network, own_mean, own_std = _build_timm(name, num_classes, in_channels, pretrained, settings)
    else:
        network, own_mean, own_std = _build_torchvision(name, num_classes, in_channels, pretrained, settings)
    if stem == "cifar":
        _use_cifar_stem(network, name)
    normalize = Normalize(_per_channel(mean, own_mean, in_channels), _per_channel(std, own_std, in_channels))
    built = NormalizedNetwork(normalize, network)
    if checkpoint is not None:
        load_weights(built, checkpoint, argument="backbone.checkpoint")
        _check_carried_normalization(built, mean, std)
    return built


def _check(
    num_classes: int,
    stem: str,
    in_channels: int,
    pretrained: bool,
    checkpoint: str | None,
    options: dict[str, Any],
) -> None:
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
    if stem not in ("default", "cifar"):
        raise ValueError(f"backbone.stem must be 'default' or 'cifar', got {stem!r}.")
    if in_channels < 1:
        raise ValueError(f"backbone.in_channels must be at least 1, got {in_channels}.")
    if pretrained and checkpoint is not None:
        raise ValueError(
            "backbone.pretrained and backbone.checkpoint are both given, and the checkpoint would replace "
            "every pretrained weight: leave one out."
        )
    reserved = [option for option in options if option in RESERVED_OPTIONS]
    if reserved:
        raise ValueError(
            f"backbone.options cannot hold {reserved[0]!r}: Backbone sets {', '.join(RESERVED_OPTIONS)} itself."
        )


def _check_channels(in_channels: int, **given: Channels | None) -> None:
    for name, values in given.items():
        if values is not None and len(values) != in_channels:
            raise ValueError(
                f"backbone.{name} needs one value for each of the {in_channels} channels (backbone.in_channels), "
                f"got {tuple(values)}."
            )


def _find(name: str) -> tuple[Literal["timm", "torchvision"], str]:
    """Return the library that ``name`` means, and the name without its prefix."""
    import timm
    import torchvision

    _register_zoo()
    prefix, _, rest = name.partition("/")
    wanted = prefix if prefix in ("timm", "torchvision") else None
    plain = name if wanted is None else rest
    # without detectors, segmenters, and quantized and video networks, which lie in submodules
    classifiers = torchvision.models.list_models(module=torchvision.models)
    if wanted != "torchvision" and timm.is_model(plain):
        return "timm", plain
    if wanted != "timm" and plain.partition(".")[0] in classifiers:
        return "torchvision", plain
    known = [] if wanted == "torchvision" else [str(model) for model in timm.list_models()]
    known += [] if wanted == "timm" else [f"torchvision/{classifier}" for classifier in classifiers]
    raise ValueError(_unknown(name, plain if wanted == "timm" else name, known))


def _unknown(name: str, looked_up: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(looked_up, known, n=3)
    return f"backbone.name {name!r} is no classifier of timm or torchvision" + (
        f"; the nearest names are {', '.join(nearest)}." if nearest else "."
    )


def _register_zoo() -> None:
    """Import the networks of this package, which register themselves with timm."""
    for module in ("preact_resnet", "small_cnn", "wide_resnet"):
        importlib.import_module(f"lightning_adv.nn.{module}")


def _build_timm(
    name: str, num_classes: int, in_channels: int, pretrained: bool, options: dict[str, Any]
) -> tuple[nn.Module, Channels, Channels]:
    import timm

    try:
        network = timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels, **options
        )
    except TypeError as error:
        raise ValueError(f"backbone.options {options} do not fit {name}: {error}.") from error
    except RuntimeError as error:  # an unknown tag, or no weights for this name
        raise ValueError(f"backbone.name {name!r} with pretrained={pretrained}: {error}") from error
    return network, network.pretrained_cfg["mean"], network.pretrained_cfg["std"]


def _build_torchvision(
    name: str, num_classes: int, in_channels: int, pretrained: bool, options: dict[str, Any]
) -> tuple[nn.Module, Channels, Channels]:
    from torchvision import models

    if pretrained and in_channels != 3:
        raise ValueError(f"backbone.in_channels must be 3 for torchvision's pretrained {name}, got {in_channels}.")
    architecture, _, tag = name.partition(".")
    # without VGG-16's weights for features alone, whose classifier is NaN
    known = {entry.name: entry for entry in models.get_model_weights(architecture) if entry.meta["categories"]}
    if tag and tag not in known:
        raise ValueError(_unknown(name, name, [f"{architecture}.{known_tag}" for known_tag in known]))
    weights = known[tag] if tag else models.get_model_weights(architecture).DEFAULT
    preset = weights.transforms()
    mean, std = preset.mean, preset.std

    arguments: dict[str, Any] = {"weights": weights} if pretrained else {"num_classes": num_classes}
    has_auxiliary_logits = architecture in ("googlenet", "inception_v3")
    if has_auxiliary_logits:
        # Pretrained, they turn ImageNet's normalisation into this one by themselves (transform_input).
        mean = std = (0.5, 0.5, 0.5)
        arguments["transform_input"] = False
        if not pretrained:
            arguments |= {"aux_logits": False, "init_weights": True}
    if architecture.startswith("vit_"):  # with weights, torchvision takes their size; without, it would be another
        options = {"image_size": weights.meta["min_size"][0], **options}
    try:
        network: nn.Module = models.get_model(architecture, **arguments, **options)
    except TypeError as error:
        raise ValueError(f"backbone.options {options} do not fit {name}: {error}.") from error
    if has_auxiliary_logits:
        # Auxiliary logits make the output a tuple in train mode; pretrained networks have them.
        for attribute, value in {"aux_logits": False, "aux1": None, "aux2": None, "AuxLogits": None}.items():
            if hasattr(network, attribute):
                setattr(network, attribute, value)
    if pretrained:
        _replace_classifier(network, num_classes)
    if in_channels != 3:
        _replace_first_convolution(network, in_channels)
    return network, mean, std


def _replace_classifier(network: nn.Module, num_classes: int) -> None:
    """Start a new last layer, unless it has ``num_classes`` outputs already."""
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    name, head = layers[-1]
    bias = head.bias is not None
    if isinstance(head, nn.Linear) and head.out_features != num_classes:
        network.set_submodule(name, nn.Linear(head.in_features, num_classes, bias=bias))
    elif isinstance(head, nn.Conv2d) and head.out_channels != num_classes:  # SqueezeNet, 1×1
        network.set_submodule(name, nn.Conv2d(head.in_channels, num_classes, kernel_size=1, bias=bias))


def _replace_first_convolution(network: nn.Module, in_channels: int) -> None:
    """Give an untrained network a first convolution of ``in_channels``, at the scale it was initialised with."""
    name, old = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    new = _convolution_like(old, in_channels=in_channels)
    nn.init.normal_(new.weight, std=old.weight.std().item())
    network.set_submodule(name, new)


def _use_cifar_stem(network: nn.Module, name: str) -> None:
    """Make the first convolution 3×3 with stride 1 and drop the max-pool (He et al. 2016, section 4.2)."""
    old = getattr(network, "conv1", None)
    if not isinstance(old, nn.Conv2d) or not hasattr(network, "maxpool"):
        raise ValueError(
            f"backbone.stem 'cifar' is for the ResNets of timm and torchvision whose stem is one convolution and a "
            f"max-pool (resnet18, resnet50, seresnet50, torchvision/resnet18, ...), got {name!r}."
        )
    new = _convolution_like(old, kernel_size=3, stride=1, padding=1)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")  # as both libraries do
    network.conv1, network.maxpool = new, nn.Identity()


def _convolution_like(old: nn.Conv2d, **changes: Any) -> nn.Conv2d:
    arguments = {
        "in_channels": old.in_channels,
        "out_channels": old.out_channels,
        "kernel_size": old.kernel_size,
        "stride": old.stride,
        "padding": old.padding,
        "bias": old.bias is not None,
    }
    return nn.Conv2d(**{**arguments, **changes})


def _per_channel(given: Channels | None, own: Channels, in_channels: int) -> Channels:
    if given is not None:
        return given
    return own if len(own) == in_channels else [sum(own) / len(own)] * in_channels


def _check_carried_normalization(built: NormalizedNetwork, mean: Channels | None, std: Channels | None) -> None:
    """A checkpoint may bring its own normalisation along; it must not silently replace one that was asked for."""
    for name, given in (("mean", mean), ("std", std)):
        carried = getattr(built.normalize, name).flatten()
        if given is not None and not torch.allclose(carried, torch.tensor(given, dtype=carried.dtype), atol=1e-4):
            raise ValueError(
                f"backbone.{name} is {tuple(given)}, but backbone.checkpoint was trained with {carried.tolist()}: "
                f"leave backbone.{name} out."
            )
