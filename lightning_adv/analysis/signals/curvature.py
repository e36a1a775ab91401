"""How sharply the loss curves over the weights: the largest eigenvalue of its Hessian.

Liu et al., "On the loss landscape of adversarial training: identifying challenges and how to overcome them" (NeurIPS
2020), section 4, follow it through adversarial training. Gradient descent with a learning rate above 2 over this number
is unstable along that direction (Cohen et al., "Gradient descent on neural networks typically occurs at the edge of
stability", ICLR 2021).

Hessian-vector products are gradients of gradients, by autograd. Forward-mode differentiation, which curvature packages
use, lacks the backward passes of SiLU, Hardsigmoid and attention in torch 2.14.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_adv.analysis.signals.batches import check_labelled, in_parts
from lightning_adv.analysis.signals.weights import weights_of
from lightning_adv.attacks import Forward
from lightning_adv.attacks.losses import Loss, LossChoice, get_loss
from lightning_adv.core.errors import UsageError

Vector: TypeAlias = npt.NDArray[np.float64]

_VECTORS = 10  # that the iteration keeps; scipy's own choice of 20 takes twice the products where the start is good


def largest_hessian_eigenvalue(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: torch.Generator,
    loss: LossChoice = "cross_entropy",
    tolerance: float = 1e-2,
    max_products: int = 100,
    batch_size: int | None = None,
) -> float:
    """Return the largest eigenvalue of the Hessian of the mean loss to the weights, by Lanczos iteration.

    scipy's ``eigsh`` finds the algebraically largest eigenvalue: one that is negative with a larger absolute value does
    not count. At a kink, as of ReLU, the Hessian is that of the smooth piece.

    The network is in eval mode meanwhile and is left as it was; parameters that do not require a gradient are left out.
    Under autocast it runs in the precision of its weights. Cost: typically 12 to 25 products with the Hessian, each
    about 15 forward passes, and memory for ten vectors of double precision as long as the weights: take few images.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Images (N, C, H, W) in [0, 1], clean or adversarial, at least one.
        y: Labels (N,).
        generator: Draws the vector to start from.
        loss: What is trained on: the name of a loss or a function of logits (n, K) and labels (n,) to losses (n,); it
            must be twice differentiable.
        tolerance: Relative error at which the iteration ends.
        max_products: About how many products to spend at most, rounded up to whole restarts of the iteration.
        batch_size: How many images to look at at a time; None takes all. It does not change the result.

    Returns:
        The eigenvalue, in nats per squared unit of the weights; nan where ``max_products`` do not reach the tolerance,
        or the Hessian has infinite entries.

    Raises:
        UsageError: ``x`` are no images in [0, 1], ``y`` are not their labels, no parameter requires a gradient, or
            ``tolerance`` or ``max_products`` is out of its range.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
        >>> _ = network[1].weight.data.zero_()
        >>> x, generator = torch.ones(1, 1, 1, 1), torch.Generator().manual_seed(0)
        >>> value = largest_hessian_eigenvalue(network, x, torch.tensor([0]), generator=generator)
        >>> round(value, 4)  # p (1 - p) = 1/4 along (1, -1) / √2, twice
        0.5
    """
    check_labelled(x, y)
    if not 0 < tolerance < 1:
        raise UsageError(f"tolerance must lie above 0 and below 1, got {tolerance:g}.")
    if max_products < 1:
        raise UsageError(f"max_products must be at least 1, got {max_products}.")
    with (
        weights_of(network) as (still, weights),
        torch.compiler.set_stance("force_eager"),
        sdpa_kernel(SDPBackend.MATH),
    ):
        hessian = _Hessian(still, weights, x, y, get_loss(loss), batch_size)
        start = torch.randn(hessian.size, generator=generator, device=generator.device).double().cpu().numpy()
        return _largest(hessian, start, tolerance, max_products)


class _Hessian:
    """The Hessian of a mean loss, as a function that multiplies vectors (P,) with it."""

    def __init__(
        self,
        network: nn.Module,
        weights: Sequence[nn.Parameter],
        x: Tensor,
        y: Tensor,
        loss: Loss,
        batch_size: int | None,
    ) -> None:
        self._network, self._weights, self._dtype, self._loss = network, weights, x.dtype, loss
        self._parts, self._images = list(in_parts(batch_size, x, y.long())), len(x)
        self.size = sum(map(torch.numel, weights))

    def __call__(self, vector: Vector) -> Vector:
        """Return the product (P,) in double precision."""
        pieces = torch.split(torch.from_numpy(vector.ravel()), [weight.numel() for weight in self._weights])
        along = [piece.view_as(weight).to(weight) for piece, weight in zip(pieces, self._weights, strict=True)]
        product = torch.zeros(self.size, dtype=torch.float64)
        for images, labels in self._parts:
            logits = Forward(self._network, self._dtype, labels)(images)
            loss = self._loss(logits, labels).sum() / self._images
            gradient = torch.autograd.grad(loss, self._weights, create_graph=True, materialize_grads=True)
            slope = torch.stack([(g * v).sum() for g, v in zip(gradient, along, strict=True)]).sum()
            if slope.requires_grad:  # that of a loss which is linear in the weights is constant
                second = torch.autograd.grad(slope, self._weights, materialize_grads=True)
                product += torch.cat([each.flatten().cpu().double() for each in second])
        return product.numpy()


def _largest(hessian: _Hessian, start: Vector, tolerance: float, max_products: int) -> float:
    """Return the largest eigenvalue; one product takes the start closer to its eigenvector, and shows what is nan."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    closer = hessian(start)
    if not np.isfinite(closer).all():
        return math.nan
    if not closer.any():
        return 0.0  # a random vector is mapped to zero only where there is no curvature at all
    if hessian.size <= _VECTORS:
        return float(np.linalg.eigvalsh(np.stack([hessian(unit) for unit in np.eye(hessian.size)]))[-1])
    operator = LinearOperator((hessian.size, hessian.size), matvec=hessian, dtype=np.float64)
    try:
        found = eigsh(
            operator, k=1, which="LA", v0=closer, tol=tolerance, ncv=_VECTORS, return_eigenvectors=False,
            maxiter=math.ceil(max_products / _VECTORS),
        )  # fmt: skip
    except ArpackNoConvergence:
        return math.nan
    return float(found[0])
