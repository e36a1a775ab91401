"""An evaluation of images in memory, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_adv.attacks import Attack
from lightning_adv.attacks.checks import check_images, check_labels
from lightning_adv.attacks.distance import Distance
from lightning_adv.attacks.forward import check_logits
from lightning_adv.attacks.hold import held_still
from lightning_adv.core.errors import UsageError
from lightning_adv.evaluation.fitting import leave_out_unfit
from lightning_adv.evaluation.options import CommonCorruptions, StepsCurve
from lightning_adv.evaluation.plan import BATCHES, make_plan
from lightning_adv.evaluation.summary import Summary, summarise
from lightning_adv.evaluation.verdicts import evaluate_chunk
from lightning_adv.nn.batchnorm import through
from lightning_adv.nn.weights.load import say


def evaluate(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Sequence[Attack],
    eps: Mapping[str, Sequence[Distance]],
    *,
    domain: str | None = None,
    steps_curve: StepsCurve | None = None,
    corruptions: CommonCorruptions | None = None,
    exhaustive: bool = False,
    batch_size: int = 256,
    seed: int = 0,
) -> Summary:
    """Attack images and count what survives; ``lightning-adv evaluate`` does the same for a data set.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K), on the device of the images. It is left as it was.
        x: Images (N, C, H, W) in [0, 1].
        y: Labels (N,).
        attacks: The attacks, given at any radius; see :func:`~lightning_adv.evaluation.make_plan`.
        eps: For each norm its radii, increasing.
        domain: The BatchNorm domain to evaluate through; None leaves the active one.
        steps_curve: The accuracy over the number of steps; None for none.
        corruptions: The common corruptions; None for none.
        exhaustive: Whether every attack sees every sample, also those that another has broken.
        batch_size: Samples that are attacked at a time. Noise depends on it.
        seed: Seed of all noise.

    Returns:
        The accuracies, with their intervals.

    Raises:
        UsageError: The images leave [0, 1], labels leave [0, K), ``batch_size`` is below 1, the network gives no
            logits, or the plan cannot be made. Attacks that the network does not allow (too few classes, no gradient)
            are left out, and told.

    Example:
        >>> import torch
        >>> from lightning_adv.attacks import FGSM, PGD
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> x = torch.rand(50, 3, 2, 2)
        >>> found = evaluate(network, x, network(x).argmax(1), [FGSM(), PGD(steps=5)], {"linf": ["4/255", 0.5]})
        >>> found.clean.accuracy, [accuracy.accuracy for accuracy in found.all_or_nothing.values()][1]
        (1.0, 0.0)
    """
    check_images(x, y)
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, got {batch_size}.")
    if not len(x):
        raise UsageError("x must hold at least one image, got none.")
    network = through(network, domain)
    with held_still(network) as still, torch.no_grad():
        num_classes = check_logits(still(x[:1]), 1).shape[1]
    check_labels(y, num_classes)  # one that is no class would pass for a misclassified image
    plan = make_plan(attacks, eps, steps_curve=steps_curve, corruptions=corruptions, exhaustive=exhaustive, seed=seed)
    plan = leave_out_unfit(plan, network, x, y, num_classes=num_classes)
    for reason in plan.unfit:
        say(f"attacks: left out: {reason}", warn=True)
    parts = zip(torch.split(x, BATCHES * batch_size), torch.split(y, BATCHES * batch_size), strict=True)
    chunks = [
        evaluate_chunk(
            network,
            images,
            labels,
            plan,
            number=number,
            first=number * BATCHES * batch_size,
            batch_size=batch_size,
        )
        for number, (images, labels) in enumerate(parts)
    ]
    return summarise(plan, chunks)
