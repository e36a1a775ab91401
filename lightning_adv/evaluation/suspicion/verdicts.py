"""What the outcomes of several attacks say about the attacks: comparisons of verdicts and losses, image by image.

Athalye et al. (2018), "Obfuscated Gradients Give a False Sense of Security", section 3.1, list the behaviours by which
one recognises that a defence masks its gradients: one-step attacks do better than iterative ones, black-box attacks
better than white-box ones, unbounded attacks do not reach 100 % success, random search finds what the attack does not,
and a larger bound does not raise the success. Carlini et al. (2019), "On Evaluating Adversarial Robustness", ask for
the same checks, and that more iterations do not weaken an attack.

Each function takes one number for each image and gives a :class:`Suspicion` or None. A difference counts only if it is
beyond chance: exact binomial tests on images in pairs, one-sided, at the level :data:`ALPHA`.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from lightning_adv.core.errors import UsageError

ALPHA = 0.001
"""Level of every test: of a thousand sound networks one may be suspected by it."""

GROWING = 0.75
"""On at least this share of images a stronger attack has a larger loss. On networks that are sound it is nearly 1."""

Evidence: TypeAlias = dict[str, bool | int | float | str | list[str] | list[float] | None]
"""Plain values, as JSON knows them."""


class Suspicion(NamedTuple):
    """A reason to doubt a robust accuracy.

    Attributes:
        name: A stable identifier, such as ``zero_gradients``.
        message: What was seen, what it may mean, and what to do next.
        evidence: The numbers behind the message, as plain values.
    """

    name: str
    message: str
    evidence: Evidence


def blackbox_beats_whitebox(white_broken: Tensor, black_broken: Tensor, *, tolerance: float = 0.01) -> Suspicion | None:
    """Suspect that gradients mislead, as an attack without them breaks images that gradient attacks do not.

    AutoAttack warns when Square lowers the accuracy by more than 0.2 points after three white-box attacks (Croce & Hein
    2020; ``check_square_sr``). A black-box attack may be lucky on a few images, more so after a weak white-box attack:
    the share of images that it alone breaks must exceed ``tolerance`` beyond chance.

    Args:
        white_broken: Which images (N,) the white-box attacks broke, bool.
        black_broken: Which images (N,) the black-box attack broke, bool.
        tolerance: Share of images that the black-box attack alone may break. 0.002 is AutoAttack's.

    Raises:
        UsageError: The verdicts are not bool of one shape (N,), there are none, or ``tolerance`` is outside [0, 1).

    Example:
        >>> import torch
        >>> white, black = torch.zeros(100, dtype=torch.bool), torch.arange(100) < 30
        >>> blackbox_beats_whitebox(white, black).evidence["blackbox_only"]
        30
    """
    _check_verdicts(white_broken=white_broken, black_broken=black_broken)
    _check_tolerance(tolerance)
    black_only = int((black_broken & ~white_broken).sum())
    p_value = _more_than(black_only, len(white_broken), tolerance)
    if p_value >= ALPHA:
        return None
    return Suspicion(
        "blackbox_beats_whitebox",
        f"A black-box attack broke {black_only} of {len(white_broken)} images that white-box attacks did not. The "
        "gradients may be masked: attack through a differentiable surrogate (BPDA), or from other networks (transfer).",
        {
            "images": len(white_broken),
            "whitebox_broken": int(white_broken.sum()),
            "blackbox_broken": int(black_broken.sum()),
            "blackbox_only": black_only,
            "tolerance": tolerance,
            "p_value": p_value,
        },
    )


def fgsm_beats_pgd(fgsm_broken: Tensor, pgd_broken: Tensor) -> Suspicion | None:
    """Suspect the gradients along PGD's way, as a single step does better than many.

    On a few images FGSM succeeds alone by luck. It is compared where just one of the two succeeds: the sign test (exact
    McNemar) asks whether FGSM is the winner more often than in half of these.

    Args:
        fgsm_broken: Which images (N,) FGSM broke, bool.
        pgd_broken: Which images (N,) PGD broke in the same ball, bool.

    Raises:
        UsageError: The verdicts are not bool of one shape (N,), or there are none.

    Example:
        >>> import torch
        >>> fgsm, pgd = torch.arange(100) < 40, torch.arange(100) < 10
        >>> fgsm_beats_pgd(fgsm, pgd).evidence["fgsm_only"], fgsm_beats_pgd(pgd, fgsm)
        (30, None)
    """
    _check_verdicts(fgsm_broken=fgsm_broken, pgd_broken=pgd_broken)
    fgsm_only, pgd_only = int((fgsm_broken & ~pgd_broken).sum()), int((pgd_broken & ~fgsm_broken).sum())
    p_value = sign_test(fgsm_only, pgd_only)
    if p_value >= ALPHA:
        return None
    return Suspicion(
        "fgsm_beats_pgd",
        f"FGSM broke {int(fgsm_broken.sum())} of {len(fgsm_broken)} images, PGD {int(pgd_broken.sum())}: one step does "
        "better than many. The loss surface may be too rugged for small steps: try larger steps, restarts, gradients "
        "averaged over noise, and black-box attacks.",
        {
            "images": len(fgsm_broken),
            "fgsm_broken": int(fgsm_broken.sum()),
            "pgd_broken": int(pgd_broken.sum()),
            "fgsm_only": fgsm_only,
            "pgd_only": pgd_only,
            "p_value": p_value,
        },
    )


def more_steps_do_not_help(few_loss: Tensor, many_loss: Tensor, many_broken: Tensor) -> Suspicion | None:
    """Suspect an attack whose loss does not grow from few steps to many, although images withstand it.

    That the *accuracy* stays is no evidence: PGD converges, and then all is well. But from the first step of a small
    size to the last, the loss of nearly every image grows. Suspected is an attack on which, beyond chance, it grows for
    less than three quarters of the images (:data:`GROWING`).

    Args:
        few_loss: Loss (N,) after few steps that cannot cross the ball, from some start.
        many_loss: Loss (N,) after many such steps, from the same start.
        many_broken: Which images (N,) the many steps broke, bool. If they broke all, there is nothing to suspect.

    Raises:
        UsageError: The tensors are not of one shape (N,), there are none, or ``many_broken`` is not bool.

    Example:
        >>> import torch
        >>> loss, unbroken = torch.ones(100), torch.zeros(100, dtype=torch.bool)
        >>> more_steps_do_not_help(loss, loss, unbroken).name, more_steps_do_not_help(loss, 2 * loss, unbroken)
        ('more_steps_do_not_help', None)
    """
    _check_verdicts(many_broken=many_broken)
    grown, p_value = _growth(few_loss, many_loss, many_broken, names=("few_loss", "many_loss"))
    if p_value >= ALPHA or bool(many_broken.all()):
        return None
    total, left = len(many_broken), int((~many_broken).sum())
    return Suspicion(
        "more_steps_do_not_help",
        f"More steps raise the loss on {grown} of {total} images only, and {left} withstand the attack. The gradients "
        "may not lead uphill, or the step size may not fit: look for steps that are not differentiable, and vary the "
        "step size.",
        {
            "images": total,
            "loss_grown": grown,
            "unbroken": left,
            "median_loss_few_steps": _median(few_loss),
            "median_loss_many_steps": _median(many_loss),
            "p_value": p_value,
        },
    )


def larger_eps_does_not_help(loss: Tensor, larger_loss: Tensor, larger_broken: Tensor) -> Suspicion | None:
    """Suspect an attack to which a larger ball is of no use, although images withstand it.

    The test is that of :func:`more_steps_do_not_help`: a larger ball contains the smaller one, so that the loss of
    nearly every image grows.

    Args:
        loss: Loss (N,) of an attack in a ball.
        larger_loss: Loss (N,) of the same attack in a larger ball.
        larger_broken: Which images (N,) it broke there, bool. If it broke all, there is nothing to suspect.

    Raises:
        UsageError: The tensors are not of one shape (N,), there are none, or ``larger_broken`` is not bool.

    Example:
        >>> import torch
        >>> loss, unbroken = torch.ones(100), torch.zeros(100, dtype=torch.bool)
        >>> larger_eps_does_not_help(loss, loss, unbroken).name, larger_eps_does_not_help(loss, 2 * loss, unbroken)
        ('larger_eps_does_not_help', None)
    """
    _check_verdicts(larger_broken=larger_broken)
    grown, p_value = _growth(loss, larger_loss, larger_broken, names=("loss", "larger_loss"))
    if p_value >= ALPHA or bool(larger_broken.all()):
        return None
    total, left = len(larger_broken), int((~larger_broken).sum())
    return Suspicion(
        "larger_eps_does_not_help",
        f"A larger eps raises the loss on {grown} of {total} images only, and {left} withstand the attack. It does not "
        "find what is there: the gradients may be masked. Try black-box attacks and attacks from other networks.",
        {
            "images": total,
            "loss_grown": grown,
            "unbroken": left,
            "median_loss": _median(loss),
            "median_loss_larger_eps": _median(larger_loss),
            "p_value": p_value,
        },
    )


def full_eps_leaves_accuracy(broken: Tensor, *, tolerance: float = 0.002) -> Suspicion | None:
    """Suspect an attack that leaves images unbroken although it may change them into any image.

    In Linf that is eps = 1. An adversarial image exists there for every label that is not the network's only answer
    (Athalye et al. 2018, section 3.1; Carlini et al. 2019).

    Args:
        broken: Which images (N,) the attack broke, bool.
        tolerance: Share of images that may be left; it must be exceeded beyond chance.

    Raises:
        UsageError: The verdicts are not bool of shape (N,), there are none, or ``tolerance`` is outside [0, 1).

    Example:
        >>> import torch
        >>> full_eps_leaves_accuracy(torch.arange(100) < 60).evidence["unbroken"]
        40
    """
    _check_verdicts(broken=broken)
    _check_tolerance(tolerance)
    left = int((~broken).sum())
    p_value = _more_than(left, len(broken), tolerance)
    if p_value >= ALPHA:
        return None
    return Suspicion(
        "full_eps_leaves_accuracy",
        f"{left} of {len(broken)} images withstand an attack that may turn them into any image. So the attack fails, "
        "and not for want of adversarial images: the gradients may be masked, or the steps too few or too small.",
        {"images": len(broken), "unbroken": left, "tolerance": tolerance, "p_value": p_value},
    )


def sign_test(wins: int, losses: int) -> float:
    """Return the probability of at least so many wins if wins and losses were equally likely; ties are left out.

    On pairs of verdicts this is McNemar's test in its exact form, one-sided.
    """
    return _more_than(wins, wins + losses, 0.5)


def _growth(before: Tensor, after: Tensor, broken: Tensor, names: tuple[str, str]) -> tuple[int, float]:
    """Return on how many images the loss grew, and how likely so few are if it grows on a share of ``GROWING``."""
    for name, loss in zip(names, (before, after), strict=True):
        if loss.shape != broken.shape:
            raise UsageError(f"{name} must have one number for each of {len(broken)} images, got {tuple(loss.shape)}.")
    grown = int((after > before).sum())  # NaN has not grown
    return grown, _more_than(len(broken) - grown, len(broken), 1 - GROWING)


def _more_than(count: int, total: int, share: float) -> float:
    """Return the probability of at least ``count`` of ``total`` where each has the probability ``share``."""
    from scipy.stats import binomtest  # half a second to import

    return 1.0 if count == 0 else float(binomtest(count, total, share, alternative="greater").pvalue)


def _median(loss: Tensor) -> float | None:
    median = float(loss.detach().float().median())
    return median if math.isfinite(median) else None  # JSON has no NaN


def _check_verdicts(**verdicts: Tensor) -> None:
    shape = next(iter(verdicts.values())).shape
    for name, verdict in verdicts.items():
        if verdict.dtype != torch.bool or verdict.ndim != 1 or verdict.shape != shape or not len(verdict):
            raise UsageError(
                f"{name} must be bool of shape (N,), one for each of at least one image, got {verdict.dtype} of shape "
                f"{tuple(verdict.shape)}."
            )


def _check_tolerance(tolerance: float) -> None:
    if not 0 <= tolerance < 1:
        raise UsageError(f"tolerance must lie in [0, 1), got {tolerance}.")
