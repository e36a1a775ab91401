"""What gives a view the numbers of its network: which tensors are copied, and which are folded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from lightning_adv.nn.surgery import put_modules
from lightning_adv.nn.view.folding import Affine, Layer, after, find_foldable, folded_weights, scale_and_shift


class WeightPlan(NamedTuple):
    """From which modules of a network, by their paths, those of its view get their numbers."""

    folds: list[tuple[str, str, Layer]]
    """Paths of a layer and its BatchNorm, and the view's layer."""
    affines: list[tuple[str, Affine]]
    """Path of a BatchNorm, and what the view has in its place."""
    copies: list[tuple[str, str, Tensor]]
    """Path of a module, name of one of its tensors, and the view's tensor."""

    @torch.inference_mode(False)
    @torch.no_grad()
    def refresh(self, modules: Mapping[str, nn.Module]) -> None:
        """Write the numbers that the network has now into the view's own tensors.

        Args:
            modules: The network's modules by their paths.
        """
        norms = cast(Any, modules)
        if self.copies:
            sources = [getattr(modules[path], name) for path, name, _ in self.copies]
            torch._foreach_copy_([own for *_, own in self.copies], sources)
        for layer, norm, own in self.folds:
            weight, bias = folded_weights(cast(Layer, modules[layer]), norms[norm])
            own.weight.copy_(weight)
            cast(Tensor, own.bias).copy_(bias)
        for norm, affine in self.affines:
            scale, shift = scale_and_shift(norms[norm])
            affine.scale.copy_(scale)
            affine.shift.copy_(shift)


def rewrite(copied: nn.Module, images: Tensor, network: nn.Module) -> WeightPlan:
    """Fold what can be folded in a copy of a network, in place.

    Args:
        copied: The copy, in eval mode.
        images: Images (N, C, H, W) for a trial pass.
        network: The network.

    Raises:
        UsageError: The copy computes with tensors of the network.
    """
    paths = {module: path for path, module in copied.named_modules()}  # before the places change
    pairs, lone = find_foldable(copied, images, [*network.parameters(), *network.buffers()])
    plan = WeightPlan([], [], [])
    replaced: dict[nn.Module, nn.Module] = {}
    for layer, norm in pairs:
        if layer.bias is None:
            layer.bias = nn.Parameter(layer.weight.new_zeros(len(layer.weight)), requires_grad=False)
        plan.folds.append((paths[layer], paths[norm], layer))
        replaced[norm] = after(norm)
    for norm in lone:
        affine = Affine(norm.num_features, images)
        plan.affines.append((paths[norm], affine))
        replaced[norm] = after(norm, [affine])
    put_modules(copied, replaced)
    folded = {pair.layer for pair in pairs}
    for module in copied.modules():
        module.training = False  # that of the modules that are new
        if module in paths and module not in folded:
            plan.copies.extend((paths[module], name, tensor) for name, tensor in _own_tensors(module).items())
    return plan


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's tensors by name: those that are neither parameters nor buffers too."""
    held = {**module._parameters, **module._buffers, **vars(module)}
    return {name: value for name, value in held.items() if isinstance(value, Tensor)}
