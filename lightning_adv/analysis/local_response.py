"""How far an adversarial example moves the responses of a network's layers from those to the clean image.

"Dissecting Local Properties of Adversarial Examples" (ICLR 2022 submission, anonymous), sections 4.1 and 4.3: of each
image and layer the maximum and the total absolute difference (table 1), for successful and for failed attacks (tables
2 and 4), and for examples that were made on another network (tables 3 and 5).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torchmetrics import Metric

from lightning_adv.attacks import held_still
from lightning_adv.core.errors import UsageError
from lightning_adv.nn.blocks import split_blocks
from lightning_adv.nn.layers import named_layers
from lightning_adv.nn.trace import has_parameters, trace_forward

GROUPS = ("", "_successful", "_failed")
"""What follows a statistic's name: of all images, of those that an attack turned, and of those that withstood it."""


def response_layers(network: nn.Module, image_shape: Sequence[int]) -> dict[str, nn.Module]:
    """Return the layers whose responses the paper looks at (section 4.3), under its names.

    ``conv1`` is the first convolution, ``layer0`` what enters layer 1 ("the feature maps before layer 1"), behind the
    pooling of an ImageNet stem, and ``layer1``, ``layer2``, ... the ends of the stages that
    :func:`~lightning_adv.nn.blocks.split_blocks` finds, without the head. A stage ends with its last module at the
    resolution of its last weights that gives out one tensor. For a ResNet these are ``conv1``, ``layer0`` behind its
    BatchNorm, activation and pooling, and its own ``layer1`` to ``layer4``. In a network that calls something else by
    one of these names they are ``first_conv``, and ``m0``, ``m1``, ... like its blocks.

    Args:
        network: A classifier of images (N, C, H, W). It runs once, on black images, and is left as it was.
        image_shape: Shape (C, H, W) of the images.

    Returns:
        The modules whose outputs are the responses, from the first to the last. ``conv1`` is missing if the network
        has no convolution.

    Raises:
        UsageError: The network does not take such images, or is of one block.

    Example:
        >>> from torchvision.models import resnet18
        >>> list(response_layers(resnet18(), (3, 32, 32)))
        ['conv1', 'layer0', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    stages = split_blocks(network, image_shape)[:-1]
    if not stages:
        raise UsageError(f"network {type(network).__name__} is of a single block: name the layers to look at.")
    trace, _ = trace_forward(network, image_shape)
    convolutions = [module for module in trace if isinstance(module, _ConvNd)]
    found: dict[str, nn.Module] = {"conv1": convolutions[0]} if convolutions else {}
    order = {module: position for position, module in enumerate(trace)}
    for number, stage in enumerate(stages):
        ran = [module for path in stage.modules if (module := network.get_submodule(path)) in order]
        ran.sort(key=order.__getitem__)
        with_parameters = [module for module in ran if has_parameters(module)]
        if with_parameters:  # what pools the last stage (VGG) has been put into it, but changes the resolution
            resolution = trace[with_parameters[-1]]
            last = [module for module in ran if trace[module] == resolution][-1]
            if last in trace.several:  # HRNet's stages give out a list: the last that gives one tensor, inside
                inside = [module for module in last.modules() if module in order and module not in trace.several]
                inside = [module for module in inside if trace[module] == resolution]
                if not inside:
                    continue
                last = max(inside, key=order.__getitem__)
            found[f"layer{number}"] = last
    if "layer0" in found:
        # The pooling of a stem opens the first stage. (What no module gives, such as F.max_pool2d's, has no name.)
        opening = (network.get_submodule(path) for path in stages[1].modules) if len(stages) > 1 else ()
        for module in itertools.takewhile(lambda module: not has_parameters(module), opening):
            found["layer0"] = module if module in order and module not in trace.several else found["layer0"]
    own = named_layers(network)
    taken = [name for name, module in found.items() if own.get(name, module) is not module]
    if "conv1" in taken:
        found = {"first_conv" if name == "conv1" else name: module for name, module in found.items()}
    if any(name.startswith("layer") for name in taken):
        found = {re.sub("^layer", "m", name): module for name, module in found.items()}
    return found


class Comparison(NamedTuple):
    """What a network makes of clean images and of their adversarial examples.

    Attributes:
        maximum: Of each layer the largest absolute difference of an image's responses: (N,), float32 or wider. Of a
            layer that runs several times in a pass, the largest of all runs.
        total: Of each layer the sum of all absolute differences, likewise; over all runs.
        clean: Logits (N, K) of the clean images.
        adversarial: Logits (N, K) of the adversarial examples.
    """

    maximum: dict[str, Tensor]
    total: dict[str, Tensor]
    clean: Tensor
    adversarial: Tensor


def local_responses(network: nn.Module, x: Tensor, layers: Mapping[str, nn.Module]) -> dict[str, list[Tensor]]:
    """Return what layers give out in one forward pass, without gradients, in the modes that the network is in.

    Args:
        network: Any network.
        x: Images (N, C, H, W).
        layers: Modules of the network by name.

    Returns:
        For each layer the outputs (N, ...) of its runs, as copies: an activation in place changes the output of the
        layer before it.

    Raises:
        UsageError: A layer did not run, or gives out something else than a tensor (N, ...).

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> local_responses(network, torch.rand(3, 1, 2, 2), {"fc": network[1]})["fc"][0].shape
        torch.Size([3, 2])
    """
    responses, _ = _record(network, x, layers)
    return responses


def compare_responses(network: nn.Module, x: Tensor, x_adv: Tensor, layers: Mapping[str, nn.Module]) -> Comparison:
    """Compare a network's responses to clean images and to their adversarial examples, image by image.

    With the response R (N, ...) of a layer this is ``max |R(x_adv) - R(x)|`` and ``Σ |R(x_adv) - R(x)|`` over all but
    the first axis, in float32 or wider whatever the precision: a total in half precision would overflow or round. The
    network is in eval mode meanwhile and is left as it was. Only the clean responses are kept, the adversarial ones are
    compared as they come.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Clean images (N, C, H, W).
        x_adv: Their adversarial examples (N, C, H, W), from this network or another.
        layers: Modules of the network by name.

    Raises:
        UsageError: A layer did not run, ran for one kind of image more often than for the other, or gives out something
            else than a tensor (N, ...).

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Identity())
        >>> clean = torch.zeros(1, 1, 1, 2)
        >>> compare_responses(network, clean, clean + 0.25, {"flat": network[0]}).total["flat"]
        tensor([0.5000])
    """
    maximum: dict[str, Tensor] = {}
    total: dict[str, Tensor] = {}

    def reduce(name: str, response: Tensor) -> None:
        if not responses[name]:
            raise UsageError(f"layer {name} runs more often for adversarial examples than for clean images.")
        clean = responses[name].pop(0)
        precision = torch.promote_types(clean.dtype, torch.float32)
        difference = (response.to(precision) - clean.to(precision)).abs().flatten(1)
        largest, whole = difference.amax(1), difference.sum(1)
        again = name in maximum
        maximum[name] = torch.maximum(maximum[name], largest) if again else largest
        total[name] = total[name] + whole if again else whole

    with held_still(network) as still, torch.no_grad():
        responses, clean_logits = _record(still, x, layers)
        with receiving(layers, len(x_adv), reduce):
            adversarial_logits = still(x_adv)
    left = [name for name, rest in responses.items() if rest]
    if left:
        raise UsageError(f"layer {left[0]} runs more often for clean images than for adversarial examples.")
    return Comparison(
        maximum={name: maximum[name] for name in layers},
        total={name: total[name] for name in layers},
        clean=clean_logits,
        adversarial=adversarial_logits,
    )


def _record(network: nn.Module, x: Tensor, layers: Mapping[str, nn.Module]) -> tuple[dict[str, list[Tensor]], Tensor]:
    """Return the responses and the network's output."""
    responses: dict[str, list[Tensor]] = {name: [] for name in layers}
    with torch.no_grad(), receiving(layers, len(x), lambda name, response: responses[name].append(response.clone())):
        output: Tensor = network(x)
    silent = [name for name, found in responses.items() if not found]
    if silent:
        raise UsageError(f"layer {silent[0]} does not run in a forward pass: it has no responses.")
    return responses, output


@contextmanager
def receiving(layers: Mapping[str, nn.Module], images: int, receive: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Hand each output of the layers on as it comes, with the layer's name, until the end of the context.

    Args:
        layers: Modules by name.
        images: The number N of images of each forward pass.
        receive: Takes the name and the output (N, ...), which an activation in place may change afterwards.

    Raises:
        UsageError: In a forward pass: a layer gives out something else than a tensor (N, ...).
    """

    def hook(name: str) -> Callable[[nn.Module, object, object], None]:
        def check(module: nn.Module, inputs: object, output: object) -> None:
            if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != images:
                told = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
                raise UsageError(
                    f"layer {name} must give out one tensor (N, ...) with the responses to {images} images, got {told}."
                )
            receive(name, output)

        return check

    handles = [module.register_forward_hook(hook(name)) for name, module in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class LocalResponses(Metric):
    """The mean local response differences of images that come batch by batch, from all processes.

    An attack is successful if an image is classified correctly and its adversarial example is not, and has failed if
    both are; images that are misclassified to begin with are neither (section 4.3, tables 2 and 4).

    Args:
        layers: Names of the layers.
    """

    full_state_update = False
    sums: Tensor
    images: Tensor

    def __init__(self, layers: Iterable[str]) -> None:
        super().__init__()
        self.layers = tuple(layers)
        # (layer, maximum and total, group of images)
        sums = torch.zeros(len(self.layers), 2, len(GROUPS), dtype=torch.float64)
        self.add_state("sums", sums, dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(len(GROUPS), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, seen: Comparison, y: Tensor) -> None:
        """Take in what was seen of images with labels (N,)."""
        correct, withstood = seen.clean.argmax(1) == y, seen.adversarial.argmax(1) == y
        groups = torch.stack([torch.ones_like(correct), correct & ~withstood, correct & withstood])  # as in GROUPS
        groups = groups.to(self.images.device)
        numbers = torch.stack([torch.stack([seen.maximum[name], seen.total[name]]) for name in self.layers])
        numbers = numbers.to(self.sums)
        # by index: a product with 0 would spread an overflow
        self.sums += torch.stack([numbers[..., group].sum(-1) for group in groups], -1)
        self.images += groups.sum(1)

    def compute(self) -> dict[str, dict[str, float]]:
        """Return the means over images.

        Returns:
            Of each layer ``max`` and ``total`` over all images, and ``max_successful``, ``total_successful``,
            ``max_failed`` and ``total_failed``. Under the name ``""`` the numbers of images: ``images``,
            ``images_successful`` and ``images_failed``. There are no means of no images.
        """
        counts: list[int] = self.images.tolist()
        found = {"": {f"images{group}": float(count) for group, count in zip(GROUPS, counts, strict=True)}}
        for name, layer in zip(self.layers, self.sums.tolist(), strict=True):
            found[name] = {
                f"{statistic}{group}": total / count
                for statistic, by_group in zip(("max", "total"), layer, strict=True)
                for group, total, count in zip(GROUPS, by_group, counts, strict=True)
                if count
            }
        return found
