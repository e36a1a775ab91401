"""Several networks attacked as one (Xie et al. 2019, section 3.3.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from lightning_adv.attacks.forward import at_least_fp32, check_logits
from lightning_adv.core.errors import UsageError


class LogitEnsemble(nn.Module):
    """The weighted sum of networks' logits (Xie et al. 2019, equation 3.8, after Dong et al. 2018, section 3.2).

    l(x) = sum over k of w_k l_k(x). An example that breaks several networks at once is more likely to break another:
    attack the ensemble, and test on a network that was held out. It is a network like any other to every attack; the
    networks in it keep their own train flags and BatchNorm domains.

    Args:
        networks: K networks that map images (N, C, H, W) to logits (N, classes), with the same classes.
        weights: K positive numbers that sum to 1; None is 1 / K each.

    Raises:
        UsageError: ``networks`` is empty or holds something else; ``weights`` do not fit. In a call: the networks'
            logits differ in shape.

    Example:
        >>> import torch
        >>> first, second = (torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)) for _ in range(2))
        >>> x = torch.rand(5, 3, 2, 2)
        >>> logits = LogitEnsemble([first, second], weights=[0.25, 0.75])(x)
        >>> torch.allclose(logits, 0.25 * first(x) + 0.75 * second(x))
        True
    """

    def __init__(self, networks: Sequence[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not networks:
            raise UsageError("networks must hold at least one network, got none.")
        for index, network in enumerate(networks):
            if not isinstance(network, nn.Module):
                raise UsageError(f"networks must be torch modules, got {type(network).__name__} at index {index}.")
        self.networks = nn.ModuleList(networks)
        self.weights = _check_weights(weights, len(networks))

    def forward(self, x: Tensor) -> Tensor:
        """Return the fused logits (N, classes), in fp32 or more, whatever the precision of the networks."""
        logits = [at_least_fp32(check_logits(network(x), len(x))) for network in self.networks]
        for index, other in enumerate(logits):
            if other.shape != logits[0].shape:
                raise UsageError(
                    "networks must give logits of one shape to be fused, got "
                    f"{tuple(logits[0].shape)} from index 0 and {tuple(other.shape)} from index {index}."
                )
        fused = self.weights[0] * logits[0]
        for weight, other in zip(self.weights[1:], logits[1:], strict=True):
            fused = fused + weight * other
        return fused


def _check_weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    if weights is None:
        return (1 / count,) * count
    numbers = tuple(float(weight) for weight in weights)
    if len(numbers) != count:
        raise UsageError(f"weights must be one number for each of the {count} networks, got {len(numbers)}.")
    if not all(number > 0 for number in numbers):  # written so that NaN fails too
        raise UsageError(f"weights must be positive, got {list(numbers)}: leave out a network that is to have no say.")
    if not math.isclose(sum(numbers), 1, abs_tol=1e-6):
        raise UsageError(f"weights must sum to 1, got {list(numbers)}, which sum to {sum(numbers):g}.")
    return numbers
