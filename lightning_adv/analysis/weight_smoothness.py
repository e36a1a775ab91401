"""How smooth a network's kernels are, and how strongly weight decay pulls at them.

"Dissecting Local Properties of Adversarial Examples" (ICLR 2022 submission, anonymous), sections 4.2 to 4.4: a kernel
of large variance answers to what differs between neighbouring pixels, and so amplifies a locally disordered
perturbation; a smooth one takes averages. More weight decay gives a smaller quadratic sum of parameters (figure 5a),
smoother kernels and smaller local response differences (figures 5 and 9).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import SGD, Adam, NAdam, Optimizer, RAdam, RMSprop

from lightning_adv.core.errors import UsageError
from lightning_adv.core.table import Record
from lightning_adv.nn.batchnorm import InDomain, domain_norms, without_domain
from lightning_adv.nn.domain_batchnorm import DomainBatchNorm
from lightning_adv.nn.layers import named_layers, select_layers

MEANS = ("relative_kernel_variance", "relative_total_variation", "high_frequency_share")
"""The measures that do not depend on the scale of the weights: those that are averaged over convolutions."""


class KernelSmoothness(NamedTuple):
    """How smooth the kernels of a convolution are, from its weights w (out, in / groups, K_1, ..., K_d).

    A slice is one of the out · in / groups kernels. The relative measures do not change when w is multiplied by a
    number: weight decay shrinks every weight, and a convolution before a BatchNorm computes the same at any scale.
    They are 0 where all weights are 0.

    Attributes:
        kernel_variance: Variance over the positions of a slice (population), mean over slices. In squared weights.
        relative_kernel_variance: Sum of these variances over the sum of the slices' mean squares, in [0, 1]: 0 for
            constant slices, 1 for slices with mean 0.
        total_variation: Sum of the absolute differences of neighbours along each spatial axis (anisotropic), mean over
            slices. In weights.
        relative_total_variation: Sum of the total variations over the sum of all absolute weights.
        high_frequency_share: Share of the spectral energy, in [0, 1], at frequencies of which any component exceeds 1/4
            cycle per pixel, half of the Nyquist frequency. White noise has 3/4 in two dimensions.
    """

    kernel_variance: float
    relative_kernel_variance: float
    total_variation: float
    relative_total_variation: float
    high_frequency_share: float


def kernel_smoothness(weight: Tensor) -> KernelSmoothness:
    """Measure the weights (out, in / groups, K_1, ..., K_d) of a convolution, in double precision.

    The spectrum is the continuous one, W(f) = Σ_n w[n] exp(-2πi f·n) for f in [-1/2, 1/2]^d, whatever the kernel's
    size. The energy within ``|f_1|, ..., |f_d| <= 1/4`` is then the quadratic form

        Σ_{m, n} w[m] w[n] s(m_1 - n_1) ... s(m_d - n_d),  s(n) = ∫_{-1/4}^{1/4} exp(2πi f n) df = sin(πn/2) / (πn),

    and the whole energy is Σ_n w[n]² (Parseval).

    Raises:
        UsageError: The weights have no spatial axis.

    Example:
        >>> kernel_smoothness(torch.ones(1, 1, 3, 3)).relative_kernel_variance
        0.0
    """
    if weight.ndim < 3:
        raise UsageError(f"weight must be (out, in / groups, K_1, ...), of a convolution, got {tuple(weight.shape)}.")
    w = _exact(weight)
    variances = w.flatten(2).var(2, correction=0)
    mean_squares = w.square().flatten(2).mean(2)
    axes = range(2, w.ndim)
    variations = torch.stack([w.diff(dim=axis).abs().flatten(2).sum(2) for axis in axes]).sum(0)
    low = w
    for _ in axes:  # each takes the first spatial axis and puts it last: after all of them the order is the old one
        positions = torch.arange(low.shape[2], dtype=w.dtype, device=w.device)
        s = 0.5 * torch.sinc((positions[:, None] - positions) / 2)
        low = torch.tensordot(low, s, dims=([2], [0]))
    energy = w.square().sum()
    sums = (variances.sum(), mean_squares.sum(), variations.sum(), w.abs().sum(), energy - (w * low).sum(), energy)
    variance, mean_square, variation, absolute, high, total = torch.stack(sums).tolist()
    slices = variances.numel()
    return KernelSmoothness(
        kernel_variance=variance / slices,
        relative_kernel_variance=_ratio(variance, mean_square),
        total_variation=variation / slices,
        relative_total_variation=_ratio(variation, absolute),
        high_frequency_share=max(0.0, _ratio(high, total)),  # a constant kernel of many pixels rounds below 0
    )


def quadratic_sum(network: nn.Module) -> float:
    """Return Σ w² over all parameters (figure 5a), frozen ones too.

    Args:
        network: Any network. In ``InDomain`` only the BatchNorms of its domain count: the number is that of the plain
            network that the domain makes.

    Example:
        >>> quadratic_sum(nn.BatchNorm2d(3))
        3.0
    """
    parameters = list(network.parameters())
    network, domain = without_domain(network)
    if domain is not None:
        own = {id(parameter) for norm in domain_norms(network, domain) for parameter in norm.parameters()}
        converted = (module for module in network.modules() if isinstance(module, DomainBatchNorm))
        others = {id(parameter) for module in converted for parameter in module.parameters()} - own
        parameters = [parameter for parameter in parameters if id(parameter) not in others]
    return float(sum(_exact(parameter).square().sum() for parameter in parameters))


# Weight decay ---------------------------------------------------------------------------------------------------------


def effective_learning_rate(parameter: Tensor, optimizer: Optimizer) -> float | None:
    """Return by how much a step turns weights whose scale does not matter.

    A convolution before a BatchNorm computes the same at any norm ‖w‖. Its gradient shrinks as 1/‖w‖, so that SGD moves
    the direction w/‖w‖ as it would move unit weights with the learning rate lr/‖w‖² (van Laarhoven 2017, "L2
    Regularization versus Batch and Weight Normalization"). Adam and its kin take out the gradient's scale: lr/‖w‖.
    Weight decay keeps the norm small, and the effective learning rate high.

    Args:
        parameter: The weights.
        optimizer: The optimizer, with its learning rate of now.

    Returns:
        The rate; None for a frozen parameter, for weights that are all 0, and for optimizers of which it is not known.

    Example:
        >>> weight = nn.Parameter(torch.full((4,), 2.0))
        >>> effective_learning_rate(weight, SGD([weight], lr=0.8))
        0.05
    """
    group = _group_of(parameter, optimizer)
    power = 2 if isinstance(optimizer, SGD) else 1 if isinstance(optimizer, (Adam, NAdam, RAdam, RMSprop)) else None
    norm = float(_exact(parameter).norm())
    if group is None or power is None or norm == 0:
        return None
    return float(group["lr"]) / norm**power


def decay_rate(parameter: Tensor, optimizer: Optimizer) -> float | None:
    """Return the share by which weight decay alone shortens weights in one step, in the long run.

    SGD adds λw to the gradient, of which momentum μ with dampening τ makes lr · λ · (1 - τ) / (1 - μ). Decoupled weight
    decay (AdamW; Loshchilov and Hutter 2019) takes lr · λ.

    Args:
        parameter: The weights.
        optimizer: The optimizer, with its learning rate of now.

    Returns:
        The share of each step; None for a frozen parameter, and where there is no such share: for optimizers that put
        λw into a gradient which they rescale (Adam with L2), and for a momentum of 1.

    Example:
        >>> weight = nn.Parameter(torch.ones(4))
        >>> decay_rate(weight, SGD([weight], lr=0.5, weight_decay=0.25, momentum=0.5))
        0.25
    """
    group = _group_of(parameter, optimizer)
    if group is None:
        return None
    decay = float(group["lr"]) * float(group.get("weight_decay", 0))
    if isinstance(optimizer, SGD):
        momentum = float(group["momentum"])
        if momentum == 0:  # then torch does not dampen either
            return decay
        return decay * (1 - float(group["dampening"])) / (1 - momentum) if momentum < 1 else None
    return decay if group.get("decoupled_weight_decay", False) else None


def _group_of(parameter: Tensor, optimizer: Optimizer) -> dict[str, Any] | None:
    groups = optimizer.param_groups if parameter.requires_grad else []
    return next((group for group in groups if any(each is parameter for each in group["params"])), None)


# All of it ------------------------------------------------------------------------------------------------------------


def spatial_convolutions(network: nn.Module, layers: str | Sequence[str] = "**") -> dict[str, _ConvNd]:
    """Return the convolutions with a kernel of more than one pixel, by name.

    Args:
        network: Any network.
        layers: Patterns of names, see :func:`~lightning_adv.nn.layers.select_layers`.

    Raises:
        UsageError: There is none, or a pattern matches none.
    """
    found = {name: module for name, module in named_layers(network).items() if isinstance(module, _ConvNd)}
    found = {name: convolution for name, convolution in found.items() if max(convolution.kernel_size) > 1}
    if not found:
        raise UsageError("network has no convolution with a kernel of more than one pixel, whose smoothness there is.")
    return select_layers(found, layers, argument="smoothness.layers")


def smoothness_records(
    network: nn.Module,
    layers: str | Sequence[str] = "**",
    *,
    domains: Sequence[str] = (),
    optimizer: Optimizer | None = None,
) -> list[Record]:
    """Return the smoothness of a network's weights as rows of a table.

    Args:
        network: Any network. Nothing is run, and nothing changed.
        layers: Patterns of convolutions' names.
        domains: The BatchNorm domains to tell the quadratic sum of; empty for a network without.
        optimizer: What trains the network; None leaves the rates out.

    Returns:
        Of the whole network (name ``""``) ``quadratic_sum``, for each domain, and the means over the convolutions of
        :data:`MEANS`. Of each convolution the fields of :class:`KernelSmoothness`, the ``norm`` ‖w‖ of its weights, and
        where there are such rates ``effective_learning_rate`` and ``decay_rate``.

    Raises:
        UsageError: No convolution has a kernel of more than one pixel, a pattern matches none, or there is no such
            domain.

    Example:
        >>> smoothness_records(nn.Sequential(nn.Conv2d(1, 1, 3, bias=False)))[0].statistic
        'quadratic_sum'
    """
    convolutions = spatial_convolutions(network, layers)
    smoothness = {name: kernel_smoothness(convolution.weight) for name, convolution in convolutions.items()}
    records = [Record("", domain, "quadratic_sum", quadratic_sum(InDomain(network, domain))) for domain in domains]
    if not domains:
        records.append(Record("", "", "quadratic_sum", quadratic_sum(network)))
    for measure in MEANS:
        records.append(Record("", "", measure, fmean(getattr(each, measure) for each in smoothness.values())))
    for name, convolution in convolutions.items():
        numbers: dict[str, float | None] = dict(smoothness[name]._asdict())
        numbers["norm"] = float(_exact(convolution.weight).norm())
        if optimizer is not None:
            numbers["effective_learning_rate"] = effective_learning_rate(convolution.weight, optimizer)
            numbers["decay_rate"] = decay_rate(convolution.weight, optimizer)
        records += [Record(name, "", measure, value) for measure, value in numbers.items() if value is not None]
    return records


weight_smoothness = smoothness_records  # the name of version 0.1


def _exact(weight: Tensor) -> Tensor:
    """Return weights in double precision, which neither autocast nor TF32 rounds."""
    weight = weight.detach()
    return (weight.cpu() if weight.device.type == "mps" else weight).double()  # Apple's devices have no doubles


def _ratio(part: float, whole: float) -> float:
    return 0.0 if whole == 0 else part / whole
