"""The networks of timm and torchvision: by name, with their own normalisation, and what is changed in them."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from torch import nn

from lightning_adv.core import plugins
from lightning_adv.core.errors import UsageError
from lightning_adv.nn.own_networks import OWN, is_path, size_taken
from lightning_adv.nn.surgery import replace_modules
from lightning_adv.nn.weights.load import say

Channels: TypeAlias = Sequence[float]
Library: TypeAlias = Literal["timm", "torchvision", "python"]


def find_network(name: str) -> tuple[Library, str]:
    """Return the library that a network's name means, and the name without the library's prefix.

    What neither timm nor torchvision has is the name that a plugin announces, or an import path: its library is
    ``python``, and its name the path. Nothing is imported for it.

    Raises:
        UsageError: Neither library has a classifier of that name, and it is not an import path; or a plugin and another
            plugin or a library have one.
    """
    import timm
    import torchvision

    _register_zoo()
    prefix, _, rest = name.partition("/")
    wanted = prefix if prefix in ("timm", "torchvision", OWN) else None
    plain = name if wanted is None else rest
    # without detectors, segmenters, and quantized and video networks, which lie in submodules
    classifiers = torchvision.models.list_models(module=torchvision.models)
    library: Library | None = None
    if wanted in (None, "timm") and timm.is_model(plain):
        library = "timm"
    elif wanted in (None, "torchvision") and plain.partition(".")[0] in classifiers:
        library = "torchvision"
    if wanted in (None, OWN) and (announced := plugins.find_part("network", plain)) is not None:
        _check_only(announced, library)
        return "python", announced.path
    if library is not None:
        return library, plain
    if wanted in (None, OWN) and is_path(plain):
        return "python", plain
    known = [] if wanted == "torchvision" else [str(model) for model in timm.list_models()]
    known += [] if wanted == "timm" else [f"torchvision/{classifier}" for classifier in classifiers]
    raise _unknown(name, plain if wanted == "timm" else name, known)


def _check_only(announced: plugins.Part, library: Library | None) -> None:
    """Check that no library has a network of the name that a plugin announces, but what the plugin registers there.

    Raises:
        UsageError: One does.
    """
    import timm

    name = announced.name
    theirs = library == "timm" and announced.plugin.name in plugins.plugins_in([timm.model_entrypoint(name).__module__])
    if library is not None and not theirs:
        paths = {f"{library}/{name}": None, announced.path: announced.plugin}
        raise UsageError(plugins.several(f"network {name!r}", paths), key="name")


def _unknown(name: str, looked_up: str, known: Sequence[str]) -> UsageError:
    nearest = difflib.get_close_matches(looked_up, known, n=3)
    hint = f"; the nearest names are {', '.join(nearest)}" if nearest else ""
    return UsageError(
        f"{name!r} is not a classifier of timm or torchvision, nor an import path such as my_package.MyNet{hint}.",
        key="name",
    )


def _register_zoo() -> None:
    """Import the networks of this package, which register themselves with timm."""
    for module in ("preact_resnet", "small_cnn", "wide_resnet", "xcit"):
        importlib.import_module(f"lightning_adv.nn.zoo.{module}")


class Built(NamedTuple):
    """A library's network, and the mean and the standard deviation that it was pretrained with."""

    network: nn.Module
    mean: Channels
    std: Channels
    new_head: bool
    """Whether the weights are pretrained, but for a classifier of another size."""


def build_timm(name: str, num_classes: int, in_channels: int, pretrained: bool, options: dict[str, Any]) -> Built:
    """Build timm's network.

    Raises:
        UsageError: The options do not fit, or there are no such pretrained weights.
    """
    import timm

    try:
        network = timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels, **options
        )
    except TypeError as error:
        raise UsageError(f"{options} do not fit {name}: {error}.", key="options") from error
    except RuntimeError as error:  # an unknown tag, or no weights for this name
        raise UsageError(f"{name!r} with pretrained={pretrained}: {error}", key="name") from error
    config = network.pretrained_cfg
    classes = config["num_classes"] if pretrained else num_classes
    if pretrained:
        _say_pretrained(name, classes, num_classes, classifier_names(network))
    return Built(network, config["mean"], config["std"], new_head=classes != num_classes)


def build_torchvision(
    name: str, num_classes: int, in_channels: int, pretrained: bool, options: dict[str, Any]
) -> Built:
    """Build torchvision's network.

    Raises:
        UsageError: The options or the channels do not fit, or there are no such pretrained weights.
    """
    from torchvision import models

    if pretrained and in_channels != 3:
        raise UsageError(f"must be 3 for torchvision's pretrained {name}, got {in_channels}.", key="in_channels")
    architecture, _, tag = name.partition(".")
    # without VGG-16's weights for features alone, whose classifier is NaN
    known = {entry.name: entry for entry in models.get_model_weights(architecture) if entry.meta["categories"]}
    if tag and tag not in known:
        raise _unknown(name, name, [f"{architecture}.{known_tag}" for known_tag in known])
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
        raise UsageError(f"{options} do not fit {name}: {error}.", key="options") from error
    if has_auxiliary_logits:
        # Auxiliary logits make the output a tuple in train mode; pretrained networks have them.
        for attribute, value in {"aux_logits": False, "aux1": None, "aux2": None, "AuxLogits": None}.items():
            if hasattr(network, attribute):
                setattr(network, attribute, value)
    classes = num_classes
    if pretrained:
        classes = _replace_classifier(network, num_classes)
        _say_pretrained(f"{architecture}.{weights.name}", classes, num_classes, classifier_names(network))
    if in_channels != 3:
        _replace_first_convolution(network, in_channels)
    return Built(network, mean, std, new_head=classes != num_classes)


def _say_pretrained(weights: str, classes: int, num_classes: int, head: Sequence[str]) -> None:
    told = f"pretrained: the network starts from the weights {weights}"
    if classes != num_classes:
        told += f"; its classifier {', '.join(head)} is new: {num_classes} classes, where the weights have {classes}"
    say(f"{told}.", warn=classes != num_classes)


def classifier_names(network: nn.Module) -> tuple[str, ...]:
    """Return the dotted names of the layers that have an output for each class.

    timm says which they are (two in distilled transformers). In other networks it is the last linear layer or
    convolution.
    """
    config = getattr(network, "pretrained_cfg", None)
    if isinstance(config, Mapping) and config.get("classifier"):
        names = config["classifier"]
        return (names,) if isinstance(names, str) else tuple(names)
    return tuple(name for name, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d)))[-1:]


def _replace_classifier(network: nn.Module, num_classes: int) -> int:
    """Start a new last layer, unless it has ``num_classes`` outputs already. Returns the old number of outputs."""
    (name,) = classifier_names(network)
    head = network.get_submodule(name)
    bias = head.bias is not None
    if isinstance(head, nn.Conv2d):  # SqueezeNet, 1×1
        if head.out_channels != num_classes:
            convolution = nn.Conv2d(head.in_channels, num_classes, kernel_size=1, bias=bias)
            replace_modules(network, {head: convolution}, purpose="classifier")
        return head.out_channels
    if not isinstance(head, nn.Linear):
        raise TypeError(f"The classifier {name} is a {type(head).__name__}.")
    if head.out_features != num_classes:
        replace_modules(network, {head: nn.Linear(head.in_features, num_classes, bias=bias)}, purpose="classifier")
    return head.out_features


def _replace_first_convolution(network: nn.Module, in_channels: int) -> None:
    """Give an untrained network a first convolution of ``in_channels``, at the scale it was initialised with."""
    old = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    new = _convolution_like(old, in_channels=in_channels)
    nn.init.normal_(new.weight, std=old.weight.std().item())
    replace_modules(network, {old: new}, purpose="first convolution")


def use_cifar_stem(network: nn.Module, name: str) -> str:
    """Fit a ResNet or a VGG to images of 32×32, in place.

    A ResNet's first convolution becomes 3×3 with stride 1, and its max-pool is dropped (He et al. 2016, section 4.2).
    A VGG of torchvision pools its features to 1×1 instead of 7×7 before the classifier, whose first layer then has 512
    inputs (Siddiqui and Breuel 2021, section 3.3).

    Returns:
        What is new in the network, for a message.

    Raises:
        UsageError: The network has no such stem.
    """
    from torchvision.models import VGG

    if isinstance(network, VGG):
        linear = _linear_like(network.classifier[0], in_features=512)
        replaced = {network.avgpool: nn.AdaptiveAvgPool2d(1), network.classifier[0]: linear}
        replace_modules(network, replaced, purpose="CIFAR stem")
        return "the first linear layer"
    old, pool = getattr(network, "conv1", None), getattr(network, "maxpool", None)
    if not isinstance(old, nn.Conv2d) or not isinstance(pool, nn.Module):
        raise UsageError(
            "'cifar' is for the ResNets of timm and torchvision whose stem is one convolution and a max-pool "
            "(resnet18, resnet50, seresnet50, torchvision/resnet18, ...) and for torchvision's VGGs "
            f"(torchvision/vgg11_bn, ...), got {name!r}.",
            key="stem",
        )
    new = _convolution_like(old, kernel_size=3, stride=1, padding=1)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")  # as both libraries do
    replace_modules(network, {old: new, pool: nn.Identity()}, purpose="CIFAR stem")
    return "the first convolution"


def _linear_like(old: Any, in_features: int) -> nn.Linear:
    new = nn.Linear(in_features, old.out_features)
    nn.init.normal_(new.weight, std=0.01)  # as torchvision's VGG does
    nn.init.zeros_(new.bias)
    return new


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


def default_image_shape(
    network: nn.Module, stem: str, in_channels: int, options: Mapping[str, Any]
) -> tuple[int, int, int]:
    """Return a shape (C, H, W) of images that the network takes, the one that it was designed for if it says so.

    Raises:
        UsageError: A network that is of neither library says nothing, and takes none of the usual sizes.
    """
    config = getattr(network, "pretrained_cfg", None)
    if stem == "cifar":
        size: Any = 32
    elif isinstance(config, Mapping) and "input_size" in config:
        size = options.get("img_size", config["input_size"][1:])
    elif type(network).__module__.startswith(("torchvision.", "torch.fx.")):
        size = getattr(network, "image_size", 299 if type(network).__name__ == "Inception3" else 224)
    else:
        size = getattr(network, "image_size", None) or size_taken(network, in_channels)
    height, width = (size, size) if isinstance(size, int) else size
    return in_channels, height, width
