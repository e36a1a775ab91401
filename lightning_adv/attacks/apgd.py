"""Auto-PGD, which has no step size to tune (Croce & Hein 2020, "Reliable evaluation ...", section 3)."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from lightning_adv.attacks.ascent import Ascent
from lightning_adv.attacks.balls import L2, Ball, Linf, Norm, get_ball, per_sample
from lightning_adv.attacks.base import Attack
from lightning_adv.attacks.checks import check_counts
from lightning_adv.attacks.distance import Distance, parse_distance
from lightning_adv.attacks.forward import Forward
from lightning_adv.attacks.hold import BatchNormMode
from lightning_adv.attacks.losses import LossChoice, get_loss, kept_loss
from lightning_adv.attacks.restarts import Run, where, worse
from lightning_adv.core.arguments import check_choices
from lightning_adv.core.errors import UsageError

_ALPHA = 0.75  # share of the new step; the rest is the last move (section 3.1)
_RHO = 0.75  # share of steps that must raise the loss (section 3.2)


class APGD(Attack):
    """Auto-PGD (Croce & Hein 2020, algorithm 1): steps with momentum, whose size each sample halves for itself.

    The step is 2 eps at first. At each checkpoint, a sample whose loss rose in at most 75 % of the steps since the last
    one, or whose best loss and step size are those of the last one, halves its step and goes on from its best point.

    The algorithm asks of the loss its order and of the gradient its direction. Both are the same for the cross-entropy
    and for the log-odds that the label is wrong; so the log-odds are climbed, which still tell points apart, and still
    have a gradient, where the cross-entropy of a confident network rounds to 0. Where samples see each other
    (``batchnorm="batch"``) the cross-entropy itself is climbed.

    Where the paper leaves something open or differs, this follows the authors' code: the start is random, on the
    surface of the ball; a checkpoint comes right after its step (the paper takes one step more), and just 75 % is too
    few (in the paper it is enough); a misclassified point met on the way is the result: the last one; without one, the
    point with the largest loss. With ``batchnorm="batch"`` this is judged by what the batch is at that moment.

    Args:
        eps: Radius of the ball, a number or a fraction; the paper's for CIFAR-10.
        steps: Number of gradient steps, 100 there. It sets the checkpoints.
        norm: ``"linf"`` or ``"l2"``.
        loss: ``"cross_entropy"``, or ``"dlr"``, the difference of logits ratio (equation 6; at least 3 classes); a
            :class:`~lightning_adv.attacks.Loss`, or any function of logits (N, K) and labels (N,) that gives (N,).
        restarts: Number of runs; of each sample the worst result is kept, as in :class:`PGD`.
        batchnorm: What BatchNorms normalise by: ``"eval"`` running statistics, ``"batch"`` those of the batch.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> x, y = torch.rand(5, 3, 2, 2), torch.tensor([0, 1, 0, 1, 0])
        >>> x_adv = APGD(eps="8/255", steps=20)(network, x, y)
        >>> bool((x_adv - x).abs().max() <= 8 / 255 + 1e-6)
        True
    """

    norm: Ball
    eps: float
    steps: int

    def __init__(
        self,
        eps: Distance = "8/255",
        steps: int = 100,
        *,
        norm: Norm = "linf",
        loss: LossChoice = "cross_entropy",
        restarts: int = 1,
        batchnorm: BatchNormMode = "eval",
    ) -> None:
        self.norm = get_ball(norm)
        self.eps = parse_distance(eps, "eps", self.norm.max_eps)
        self.steps = steps
        self.loss = kept_loss(loss)
        self.restarts = restarts
        self.batchnorm = batchnorm
        if not isinstance(self.norm, (Linf, L2)):
            raise UsageError(f"norm must be one of linf, l2, got {norm!r}: the paper has no APGD for others.")
        check_choices(self, APGD)
        if isinstance(loss, str) and loss not in ("cross_entropy", "dlr"):
            raise UsageError(f"loss must be one of cross_entropy, dlr, got {loss!r}.")
        if get_loss(self.loss).target != "labels":
            raise UsageError(f"loss must compare logits with labels, got {loss!r}.")
        check_counts(self, "steps", "restarts")

    def check_fits(self, shape: tuple[int, ...], num_classes: int) -> None:
        """Check that there are classes enough for the loss; see :meth:`Attack.check_fits`.

        Raises:
            UsageError: There are not.
        """
        get_loss(self.loss).check_classes(num_classes)

    def perturb(self, forward: Forward, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the adversarial examples; see :meth:`Attack.perturb`."""
        ascent = Ascent(get_loss(self.loss), y, y, False, self.batchnorm == "eval")
        return reduce(worse, (self._run(forward, ascent, x, generator) for _ in range(self.restarts))).images

    def _run(self, forward: Forward, ascent: Ascent, clean: Tensor, generator: torch.Generator) -> Run:
        """One run from one start: the result (N, ...), whether it succeeded (N,), and the largest loss met (N,)."""

        def project(images: Tensor) -> Tensor:
            return (clean + self.norm.project(images - clean, self.eps)).clamp(0, 1)

        point = previous = best = success = self._start(clean, generator)
        gradient, won, loss = _look(ascent, forward, point)
        best_gradient, best_loss, last_loss = gradient, loss, loss
        step_size = torch.full_like(loss, 2 * self.eps)
        # Of the last checkpoint: its step, its best loss, whose step it halved; and how often the loss rose since.
        checkpoint, loss_then, halved, rises = 0, loss, torch.ones_like(won), torch.zeros_like(loss)
        checkpoints = _checkpoints(self.steps)
        for step in range(1, self.steps + 1):
            ahead = project(point + step_size.view(per_sample(clean)) * self.norm.steepest(gradient, point))
            alpha = 1.0 if step == 1 else _ALPHA
            point, previous = project(point + alpha * (ahead - point) + (1 - alpha) * (point - previous)), point

            gradient, wrong, loss = _look(ascent, forward, point)
            success, won = where(wrong, point, success), won | wrong
            better = loss > best_loss
            best, best_gradient = where(better, point, best), where(better, gradient, best_gradient)
            best_loss = where(better, loss, best_loss)
            rises, last_loss = rises + (loss > last_loss), loss

            if step in checkpoints:
                oscillates = rises <= _RHO * (step - checkpoint)  # condition 1
                halved = oscillates | (~halved & (best_loss == loss_then))  # or condition 2
                step_size = where(halved, step_size / 2, step_size)
                point, gradient = where(halved, best, point), where(halved, best_gradient, gradient)
                checkpoint, loss_then, rises = step, best_loss, torch.zeros_like(rises)
        return Run(where(won, success, best), won, best_loss)

    def _start(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Draw from the surface of the ball: a uniform draw inside, stretched."""
        noise = self.norm.sample(clean, 1.0, generator)
        length = self.norm.norm(noise).clamp_min(torch.finfo(noise.dtype).tiny)
        return (clean + noise * (self.eps / length).view(per_sample(clean))).clamp(0, 1)


def _look(ascent: Ascent, forward: Forward, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient (N, ...), the success (N,) and the loss (N,) at ``images``, from one forward pass."""
    gradient, logits = ascent.gradient(forward, images)
    return gradient, *ascent.score(logits)


def _checkpoints(steps: int) -> set[int]:
    """Return w_j = ceil(p_j steps), with p_1 = 0.22 and p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03, 0.06)."""
    checkpoints, percent, period = set(), 22, 22  # in percent: sums of such floats may lie a hair above an integer
    while percent <= 100:
        checkpoints.add(-(-percent * steps // 100))
        period = max(period - 3, 6)
        percent += period
    return checkpoints
