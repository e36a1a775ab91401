"""What keeps the weights of an attack view those of its network: what is copied, what is folded, and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.nn.surgery import put_modules
from lightning_adv.nn.view.folding import Affine, Layer, after, find_foldable, folded_weights, scale_and_shift


class Plan(NamedTuple):
    """From which modules of a network, by their paths, those of its view get their numbers."""

    folds: list[tuple[str, str, Layer]]
    """Paths of a layer and its BatchNorm, and the view's layer."""
    affines: list[tuple[str, Affine]]
    """Path of a BatchNorm, and what does for it."""
    copies: list[tuple[str, str, Tensor]]
    """Path of a module, name of one of its tensors, and the view's tensor."""


def rewrite(copied: nn.Module, images: Tensor, model: nn.Module) -> Plan:
    """Fold what can be folded in a copy of a network, in place.

    Args:
        copied: The copy, in eval mode.
        images: Images (N, C, H, W) for a trial pass.
        model: The network.

    Raises:
        UsageError: The copy computes with tensors of the network.
    """
    paths = {module: path for path, module in copied.named_modules()}  # before the places change
    pairs, lone = find_foldable(copied, images, [*model.parameters(), *model.buffers()])
    plan = Plan([], [], [])
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
    put_modules(copied, replaced)  # a view is compared with its network
    folded = {pair.layer for pair in pairs}
    for module in copied.modules():
        module.training = False  # that of the modules that are new
        if module in paths and module not in folded:
            plan.copies.extend((paths[module], name, holder[name]) for holder, name in _tensors(module))
    return plan


class Links:
    """Connects a network with its view.

    Args:
        plan: What :func:`rewrite` did.
        modules: The network's modules by their paths.
    """

    def __init__(self, plan: Plan, modules: Mapping[str, nn.Module]) -> None:
        self.folds = [
            (cast(Layer, modules[layer]), cast(_BatchNorm, modules[norm]), own) for layer, norm, own in plan.folds
        ]
        self._affines = [(cast(_BatchNorm, modules[norm]), own) for norm, own in plan.affines]
        copied = {path: {name: holder for holder, name in _tensors(modules[path])} for path, _, _ in plan.copies}
        self._copies = [(copied[path][name], name, own) for path, name, own in plan.copies]
        folded = [module for layer, norm, _ in self.folds for module in (layer, norm)]
        folded += [norm for norm, _ in self._affines]
        self._sources = [(holder, name) for holder, name, _ in self._copies]
        self._sources += [source for module in folded for source in _tensors(module)]
        self._children = [(m._modules, list(m._modules.items())) for m in modules.values()]
        self._seen: list[tuple[Tensor, int]] = []

    def is_stale(self) -> bool:
        """Whether a tensor or a module of the network was written to, or replaced, since the last :meth:`refresh`."""
        if not self._seen:
            return True
        for (holder, name), (tensor, version) in zip(self._sources, self._seen, strict=True):
            now = holder.get(name)
            # One that was made in inference mode counts no versions: it may have changed, always.
            if now is not tensor or tensor.is_inference() or tensor._version != version:
                return True
        return not all(list(now.items()) == children for now, children in self._children)

    def forget(self) -> None:
        """Be stale, whatever the network says."""
        self._seen = []

    @torch.inference_mode(False)
    @torch.no_grad()
    def refresh(self) -> None:
        """Give the view the numbers that the network has now, in the view's own tensors."""
        if self._copies:
            torch._foreach_copy_([own for *_, own in self._copies], [holder[name] for holder, name, _ in self._copies])
        for layer, norm, own in self.folds:
            weight, bias = folded_weights(layer, norm)
            own.weight.copy_(weight)
            cast(Tensor, own.bias).copy_(bias)
        for norm, affine in self._affines:
            scale, shift = scale_and_shift(norm)
            affine.scale.copy_(scale)
            affine.shift.copy_(shift)
        tensors = [holder[name] for holder, name in self._sources]
        self._seen = [(tensor, 0 if tensor.is_inference() else tensor._version) for tensor in tensors]


def _tensors(module: nn.Module) -> list[tuple[dict[str, Any], str]]:
    """Return where a module's own tensors are: those that are neither parameters nor buffers too."""
    holders = (cast(dict[str, Any], module._parameters), cast(dict[str, Any], module._buffers), vars(module))
    return [(holder, name) for holder in holders for name, value in holder.items() if isinstance(value, Tensor)]
