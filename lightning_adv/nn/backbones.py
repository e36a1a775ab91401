"""Any timm or torchvision classifier by name, or any network by its import path, for images in [0, 1].

timm, torchvision and the networks of this package that are registered with timm (``preact_resnet18``,
``wide_resnet28_10``, ``small_cnn``, ...) are imported on first use: the command line answers before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from lightning_adv.core.errors import UsageError
from lightning_adv.core.recipe import Recipe
from lightning_adv.nn.activations import replace_activations
from lightning_adv.nn.backbone_arguments import (
    Stem,
    check_carried_normalization,
    check_channels,
    check_options,
    check_sizes,
    check_weights,
)
from lightning_adv.nn.libraries import (
    Built,
    Channels,
    build_timm,
    build_torchvision,
    classifier_names,
    default_image_shape,
    find_network,
    use_cifar_stem,
)
from lightning_adv.nn.named_by_files import check_named
from lightning_adv.nn.normalize import Normalize, NormalizedNetwork
from lightning_adv.nn.own_networks import build_own, own_normalization
from lightning_adv.nn.weights.fetch import fetch
from lightning_adv.nn.weights.load import load_weights, say
from lightning_adv.nn.weights.repositories import find_weights
from lightning_adv.nn.zoo.robustbench import Published, find_published


@dataclass(frozen=True)
class Backbone(Recipe):
    """The recipe of a network: what :func:`create_backbone` gets, except for the number of classes.

    Example:
        >>> import torch
        >>> network = Backbone("resnet18", stem="cifar").build(num_classes=10)
        >>> network(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])

    Args:
        name: A timm name (``resnet18``, ``resnet50.a1_in1k``), else a torchvision name; ``timm/`` or ``torchvision/``
            in front picks the library. torchvision's weights are picked as in
            ``torchvision/resnet50.IMAGENET1K_V1``. ``robustbench/`` and the name of an entry of RobustBench's CIFAR-10
            Linf board is that network with its published weights, which are downloaded, or read from ``checkpoint``.
            Or the import path of a network of another package, ``my_package.MyNet``: a class, or a function that gives
            one. It gets ``num_classes`` and ``in_chans`` or ``in_channels`` if it takes them.
        stem: ``cifar`` fits the network to images of 32×32. It makes a ResNet's first convolution 3×3 with stride 1 and
            drops its max-pool (He et al. 2016, section 4.2); a VGG of torchvision pools its features to 1×1 before the
            classifier (Siddiqui and Breuel 2021, section 3.3).
        in_channels: Channels C of the images.
        pretrained: Download the weights that the library has for this name; a network by its import path that takes an
            argument ``pretrained`` is given it.
        checkpoint: A weights file to load: a state dict, a checkpoint of Lightning or of another project, or what
            ``lightning-adv export`` wrote (also by its folder, or as ``hf-hub:user/name`` from the hub). It must have
            keys for all of the network; a classifier of another number of classes stays new. What was loaded is logged.
        mean: Mean of each channel, pixels in [0, 1]. ``None``: the one that the network was pretrained with;
            one that says none, as most of other packages, gets the pixels as they are.
        std: Standard deviation of each channel, above 0; ``None`` as for ``mean``.
        options: Further keyword arguments of the network's constructor, such as ``drop_path_rate``.
        checkpoint_domain: The BatchNorm domain to take from a checkpoint that has domains. None takes the one that
            its regime predicts with, else ``main``.
        activation: What to put in the place of every ReLU, by its name in
            :data:`lightning_adv.nn.activations.ACTIVATIONS`; None leaves the network as it is.
        activation_options: Keyword arguments of the activation, such as ``alpha``.
    """

    name: str
    stem: Stem = "default"
    in_channels: int = 3
    pretrained: bool = False
    checkpoint: str | None = None
    mean: Channels | None = None
    std: Channels | None = None
    options: dict[str, Any] = field(default_factory=dict)
    checkpoint_domain: str | None = None
    activation: str | None = None
    activation_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # jsonargparse hands a dataclass "None" where the command line says null for an optional string
        for name in ("checkpoint", "checkpoint_domain", "activation"):
            if getattr(self, name) == "None":
                object.__setattr__(self, name, None)
        # YAML has lists: as tuples, a recipe equals the one that its configuration gives back
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value))

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """Build the recipe again from plain data, which a file may hold: see :meth:`Recipe.from_config`.

        Raises:
            NotImportedError: It names a network by an import path that is not trusted.
        """
        if not isinstance(config, cls):
            check_named(config)
        return super().from_config(config)

    def build(self, num_classes: int) -> NormalizedNetwork:
        """Build the network with ``num_classes`` outputs, as :func:`create_backbone` does."""
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
            checkpoint_domain=self.checkpoint_domain,
            activation=self.activation,
            activation_options=self.activation_options,
        )

    @property
    def brings_weights(self) -> bool:
        """Whether the network starts from weights that were trained."""
        return self.pretrained or self.checkpoint is not None or find_published(self.name) is not None

    def without_weights(self) -> Backbone:
        """Return the recipe of the same network with weights of its own, as they are drawn.

        A published network is named by its architecture then.
        """
        recipe = replace(self, pretrained=False, checkpoint=None, checkpoint_domain=None)
        published = find_published(self.name)
        if published is None:
            return recipe
        mean, std = published.normalization
        return replace(
            recipe,
            name=published.network,
            mean=mean if self.mean is None else self.mean,
            std=std if self.std is None else self.std,
            **_as_published(published, self.stem, self.options, self.activation),
        )

    def architecture(self) -> dict[str, Any]:
        """Return what the network is, as plain data, without where its weights and its normalisation come from.

        Raises:
            UsageError: The name is unknown.
        """
        recipe = self.without_weights()
        library, name = find_network(recipe.name)
        fields = recipe.to_config()["init_args"]
        kept = ("stem", "in_channels", "options", "activation", "activation_options")
        return {"library": library, "name": name, **{field: fields[field] for field in kept}}


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
    checkpoint_domain: str | None = None,
    activation: str | None = None,
    activation_options: dict[str, Any] | None = None,
) -> NormalizedNetwork:
    """Build a classifier by name, with the normalisation as its first layer.

    The arguments are those of :class:`Backbone`. With pretrained weights, the classifier is new where
    ``num_classes`` differs from theirs, and so is the layer that ``stem="cifar"`` replaces. timm adapts pretrained
    weights to ``in_channels``; torchvision cannot. Where the network's own ``mean`` and ``std`` have another
    number of channels, each channel gets their average.

    Returns:
        A network from images (N, C, H, W) in [0, 1] to logits (N, ``num_classes``).

    Raises:
        UsageError: An argument is outside what is allowed, the name is unknown or not that of a classifier, the stem is
            not one that this network has, the activation is unknown, or the checkpoint does not fit. Its key is the
            argument.

    Example:
        >>> import torch
        >>> create_backbone("small_cnn", 10, in_channels=1)(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    settings = {} if options is None else dict(options)
    check_sizes(num_classes, stem, in_channels)
    check_weights(pretrained, checkpoint, checkpoint_domain, activation, activation_options)
    check_channels(in_channels, mean=mean, std=std)
    entry, published = name, find_published(name)
    if published is not None:
        name, pretrained = published.network, False
        stem, settings, activation = _as_published(published, stem, settings, activation).values()
    recipe = {"activation": activation, "activation_options": activation_options}
    library, name = find_network(name)
    check_options(settings, library)
    network, own_mean, own_std, new_head = _BUILD[library](name, num_classes, in_channels, pretrained, settings)
    if published is not None:
        own_mean, own_std = published.normalization
    head = classifier_names(network)
    new = [f"{layer}.{key}" for layer in head if new_head for key in network.get_submodule(layer).state_dict()]
    if stem == "cifar" and library == "python":
        raise UsageError(f"'cifar' changes networks of timm and torchvision: let {name} have such a stem.", key="stem")
    if stem == "cifar":
        before = set(network.parameters())
        replaced = use_cifar_stem(network, name)
        if pretrained:
            new += [key for key, parameter in network.named_parameters() if parameter not in before]
            say(f"stem 'cifar': {replaced} is new, and not pretrained.", warn=True)
    keys = network.state_dict().keys()
    if activation is not None:
        shape = default_image_shape(network, stem, in_channels, settings)
        network = replace_activations(network, activation, options=activation_options, image_shape=shape)
    normalize = Normalize(_per_channel(mean, own_mean, in_channels), _per_channel(std, own_std, in_channels))
    built = NormalizedNetwork(normalize, network)
    if published is not None and checkpoint is None:
        checkpoint = str(fetch(entry, published.source))
    if checkpoint is not None:
        report = load_weights(
            built,
            find_weights(checkpoint, argument="checkpoint"),
            argument="checkpoint",
            domain=checkpoint_domain,
            head=head,
            optional=sorted(network.state_dict().keys() - keys),
            recipe=recipe,
            rewrite=None if published is None else published.rewrite,
        )
        new = [*report.replaced_head, *(key for key in report.missing if key in keys)]
        check_carried_normalization(built, mean, std)
        say(f"checkpoint: {report}", warn=bool(report.replaced_head) or not keys >= set(report.missing))
    built.new = tuple(new)
    return built


def _as_published(
    published: Published, stem: Stem, options: Mapping[str, Any], activation: str | None
) -> dict[str, Any]:
    """Return what a recipe says of a network's architecture, with what the entry that it names says.

    Raises:
        UsageError: Both say something of the stem or the activation.
    """
    given = {"stem": (stem, published.stem, "default"), "activation": (activation, published.activation, None)}
    for key, (own, theirs, nothing) in given.items():
        if own not in (nothing, theirs) and theirs != nothing:
            raise UsageError(f"is {own!r}, but the published network has {theirs!r}: leave it out.", key=key)
    return {
        "stem": published.stem if stem == "default" else stem,
        "options": {**published.options, **options},
        "activation": published.activation if activation is None else activation,
    }


def _build_own(name: str, num_classes: int, in_channels: int, pretrained: bool, options: dict[str, Any]) -> Built:
    network = build_own(name, num_classes, in_channels, pretrained, options)
    if pretrained:
        say(f"pretrained: the network starts from the weights that {name} gives it.")
    return Built(network, *own_normalization(network), new_head=False)


_BUILD = {"timm": build_timm, "torchvision": build_torchvision, "python": _build_own}


def _per_channel(given: Channels | None, own: Channels, in_channels: int) -> Channels:
    if given is not None:
        return given
    return own if len(own) == in_channels else [sum(own) / len(own)] * in_channels
