"""Units that give out zero for every image: they take part in nothing, and no gradient revives them.

Such units are known as "dying" ReLUs (Lu et al., "Dying ReLU and initialization: theory and numerical examples", 2019).
A unit is a channel of a convolutional layer, an entry of a vector, or a dimension of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_adv.analysis.local_response import receiving
from lightning_adv.analysis.signals.batches import in_parts
from lightning_adv.attacks import held_still
from lightning_adv.core.errors import UsageError
from lightning_adv.nn.activations import ON_PURPOSE
from lightning_adv.nn.batchnorm import active_domain, without_domain
from lightning_adv.nn.domain_batchnorm import modules_of_domain
from lightning_adv.nn.trace import unwrap


def relu_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return the ReLUs of a network by name, those that are modules: the layers whose units can die.

    ReLU6 counts, and so does the ReLU with a smooth gradient; smooth activations do not, as they are zero nowhere. A
    ReLU that is called as a function has no name. The names are those of the network without domains.

    Example:
        >>> list(relu_layers(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.GELU())))
        ['1']
    """
    _, inner = unwrap(without_domain(network)[0])
    found: dict[nn.Module, str] = {}
    for name, module in modules_of_domain(inner, active_domain(network)).items():
        if isinstance(module, ON_PURPOSE):
            found.setdefault(module, name)
    return {name: module for module, name in found.items()}


def dead_units(
    network: nn.Module, x: Tensor, layers: Mapping[str, nn.Module] | None = None, *, batch_size: int | None = None
) -> dict[str, Tensor]:
    """Return which units of each layer are zero for every image, at every position.

    Over several batches or processes a unit is dead where it is in each of them (``&``); the share of dead units is
    ``dead.float().mean()``. The fewer images, the more units seem dead.

    The network is in eval mode meanwhile and is left as it was. Cost: one forward pass.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Images (N, C, H, W), at least one.
        layers: Modules of the network by name; None takes its :func:`relu_layers`. Outputs are (N, C), (N, C, ...) or
            tokens (N, T, C).
        batch_size: How many images to look at at a time; None takes all.

    Returns:
        For each layer, in the order of ``layers``, whether each unit is dead, (C,). A layer that runs several times in
        a pass, as the ReLU of a residual block in torchvision, has the units of all its runs, one behind the other.

    Raises:
        UsageError: There are no images, ``layers`` is None and the network has no ReLU, or a layer does not run or
            gives out something else than a tensor (N, ...).

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> network[1].bias.data = torch.tensor([1.0, -9.0, 1.0])
        >>> dead_units(network, torch.rand(8, 1, 1, 2))
        {'2': tensor([False,  True, False])}
    """
    if not len(x):
        raise UsageError("x must hold at least one image, got none.")
    if layers is None and not (layers := relu_layers(network)):
        raise UsageError(
            f"{type(network).__name__} has no ReLU among its modules, whose units could be dead: name the layers to "
            "look at."
        )
    dead: dict[str, list[Tensor]] = {name: [] for name in layers}
    for (images,) in in_parts(batch_size, x):
        for name, runs in _silent_units(network, images, layers).items():
            dead[name] = [now & before for now, before in zip(runs, dead[name], strict=True)] if dead[name] else runs
    return {name: torch.cat(runs) for name, runs in dead.items()}


def _silent_units(network: nn.Module, x: Tensor, layers: Mapping[str, nn.Module]) -> dict[str, list[Tensor]]:
    """Return of each layer, and of each of its runs, which units (C,) are zero for all images (n, C, H, W)."""
    silent: dict[str, list[Tensor]] = {name: [] for name in layers}

    def reduce(name: str, output: Tensor) -> None:
        axis = 2 if output.ndim == 3 else 1
        silent[name].append((output == 0).transpose(0, axis).flatten(1).all(1))

    with (
        held_still(network) as still,
        torch.no_grad(),
        torch.compiler.set_stance("force_eager"),  # a compiled network does not call hooks
        receiving(layers, len(x), reduce),
    ):
        still(x.clone())
    for name, runs in silent.items():
        if not runs:
            raise UsageError(f"layer {name} does not run in a forward pass: it has no units to look at.")
    return silent
