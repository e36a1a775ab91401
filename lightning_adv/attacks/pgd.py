"""Projected gradient descent: the one loop behind every gradient attack."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_adv.attacks.ascent import Ascent, unit_l1
from lightning_adv.attacks.balls import Ball, Linf, Norm, Step, draw, get_ball, signed_step
from lightning_adv.attacks.base import Attack
from lightning_adv.attacks.checks import check_counts
from lightning_adv.attacks.distance import Distance, StepSize, parse_distance, parse_step_size
from lightning_adv.attacks.diversity import diversify, draw_bernoulli, fork_to_host
from lightning_adv.attacks.early_stop import RemainingSamples
from lightning_adv.attacks.forward import Forward
from lightning_adv.attacks.hold import BatchNormMode
from lightning_adv.attacks.labels import CHANGING, TARGETED, LabelChoice, choose_labels
from lightning_adv.attacks.losses import LossChoice, get_loss, kept_loss
from lightning_adv.attacks.restarts import Run, worse
from lightning_adv.core.arguments import check_choices
from lightning_adv.core.errors import UsageError
from lightning_adv.core.moved import renamed_argument


class PGD(Attack):
    """Projected gradient descent (Madry et al. 2018, section 2.1, equation 1).

    x(t+1) = project(x(t) + step_size * steepest(gradient of the loss at x(t))), clamped to [0, 1].

    Args:
        eps: Radius of the ball, in the unit of the images; a number or a fraction such as ``"8/255"``. The defaults
            of the first three arguments are those that Madry et al. (section 5) train CIFAR-10 networks with. 0 gives
            the images back: where a curve over ``eps`` begins.
        steps: Number of gradient steps, at least 1.
        step_size: Length of a step in the ball's norm, or its share of the radius, such as ``"eps/8"``. None is a
            quarter of ``eps``, and ``eps / steps`` where that is more, so that few steps reach the edge of the ball.
            0 leaves the start as it is: what the random start does by itself (a run warns of it).
        norm: ``"linf"``, ``"l2"``, ``"l1"`` or a :class:`~lightning_adv.attacks.Ball`.
        start: ``"uniform"`` in the ball, ``"zero"``, or ``"gaussian"``: 0.001 N(0, 1) in each entry (TRADES, Zhang et
            al. 2019, algorithm 1).
        clean_start_probability: With this probability a whole batch starts at zero instead (Xie et al. 2019, section
            6.3, use 0.2).
        loss: ``"cross_entropy"``, ``"margin"``, ``"dlr"`` (the difference of logits ratio, Croce & Hein 2020, equation
            6; at least 3 classes) or ``"kl"`` (to the clean prediction); a :class:`~lightning_adv.attacks.Loss`, or any
            function of logits (N, K) and labels (N,) that gives (N,).
        label: ``"true"`` or ``"predicted"`` (no label leaking), or a target: a ``"random"`` other class, the
            ``"most_likely"`` other class or the ``"least_likely"`` one. Each restart has a target of its own: it draws
            again, or takes the next likely class, so that K - 1 ``restarts`` of ``"most_likely"`` aim at every class
            but the true one, and n at the n nearest (Gowal et al. 2019, section 3, MultiTargeted).
        momentum: Decay factor mu of MI-FGSM (Dong et al. 2018, equation 6); 0 is no momentum.
        diversity_probability: Probability p of transforming the input of a step (Xie et al. 2019, equation 3.6).
        diversity_scale: Size of the transformed input over the image's own; below 1 the smallest size over it, which is
            then padded to the image's.
        project: False leaves the ball out (GD in Xie et al. 2020, section 7.5.4); [0, 1] still holds.
        restarts: Number of runs; of each sample the worst result is kept: a successful one if there is one, then one
            that is misclassified at least, then the one with the largest loss.
        batchnorm: What BatchNorms normalise by: ``"eval"`` running statistics, ``"batch"`` those of the batch.
        early_stop: True keeps of each sample the first iterate at which the attack has succeeded (the label is left, or
            the target reached), and takes it out of the batch. So a sample is broken if any iterate of any restart is
            (rounding apart: a smaller batch may round otherwise), and not only if a run ends so; the start is no
            iterate. Each restart takes a forward pass more, and the host reads one number of the device in each step,
            where otherwise it reads none. Not with input diversity, whose passes do not judge the iterates themselves,
            nor with ``batchnorm="batch"``, where who leaves changes the others.
        direction: ``"steepest"`` is the ball's own direction of steepest ascent. ``"sign"`` moves every entry by
            ``step_size`` whatever the ball, and then projects; in Linf they are the same. So are the L2 attacks of
            Zhang & Zhu (2019), section A.2.1, in their code: on CIFAR-10 ``PGD(eps=0.4, steps=20, step_size="2/255",
            norm="l2", start="zero", direction="sign")``, with 0.8 and 4/255, and 1.2 and 6/255, too.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> x, y = torch.rand(5, 3, 2, 2), torch.tensor([0, 1, 0, 1, 0])
        >>> x_adv = PGD(eps="8/255", steps=10, step_size="2/255")(network, x, y)
        >>> bool((x_adv - x).abs().max() <= 8 / 255 + 1e-6)
        True
    """

    norm: Ball
    eps: float
    steps: int
    step_size: float

    def __init__(
        self,
        eps: Distance = "8/255",
        steps: int = 7,
        step_size: StepSize = None,
        *,
        norm: Norm = "linf",
        start: Literal["uniform", "zero", "gaussian"] = "uniform",
        clean_start_probability: float = 0.0,
        loss: LossChoice = "cross_entropy",
        label: LabelChoice = "true",
        momentum: float = 0.0,
        diversity_probability: float = 0.0,
        diversity_scale: float = 330 / 299,
        project: bool = True,
        restarts: int = 1,
        batchnorm: BatchNormMode = "eval",
        early_stop: bool = False,
        direction: Literal["steepest", "sign"] = "steepest",
    ) -> None:
        self.norm = get_ball(norm)
        self.eps = parse_distance(eps, "eps", self.norm.max_eps)
        self.steps = steps
        check_counts(self, "steps")
        self.step_size = parse_step_size(step_size, self.eps, steps)
        self.start = start
        self.clean_start_probability = clean_start_probability
        self.loss = kept_loss(loss)
        self.label: LabelChoice = "true" if label is True else label
        self.momentum = momentum
        self.diversity_probability = diversity_probability
        self.diversity_scale = diversity_scale
        self.project = project
        self.restarts = restarts
        self.batchnorm = batchnorm
        self.early_stop = early_stop
        self.direction = direction
        self._check()
        if direction == "sign" and step_size is None and not isinstance(self.norm, Linf):
            raise UsageError(
                "direction='sign' moves every entry by step_size, which in this ball no rule takes from eps: give a "
                "step_size, such as 2/255."
            )

    def _check(self) -> None:
        check_choices(self, PGD)
        check_counts(self, "restarts")
        for name in ("clean_start_probability", "diversity_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must lie in [0, 1], got {getattr(self, name)}.")
        if not 0 < self.diversity_scale < float("inf"):
            raise UsageError(f"diversity_scale must be positive and finite, got {self.diversity_scale}.")
        if not 0 <= self.momentum < float("inf"):
            raise UsageError(f"momentum must be at least 0 and finite, got {self.momentum}.")
        if get_loss(self.loss).target == "clean_logits":
            if self.label != "true":
                raise UsageError(f"loss={self.loss!r} compares with the clean prediction: leave label='true'.")
            if self.start == "zero":
                raise UsageError(
                    f"loss={self.loss!r} has no gradient at the clean image: use start='uniform' or 'gaussian'."
                )
        if self.early_stop and (self.diversity_probability or self.batchnorm != "eval"):
            raise UsageError(
                "early_stop=True needs diversity_probability=0, since a pass on transformed images does not judge the "
                "images themselves, and batchnorm='eval', since who leaves a batch changes its statistics; got "
                f"{self.diversity_probability} and {self.batchnorm!r}."
            )

    @property
    def selects_by_success(self) -> bool:
        """Whether iterates or restarts are chosen between: otherwise it is the last iterate that comes back."""
        return self.early_stop or self.restarts > 1

    def check_fits(self, shape: tuple[int, ...], num_classes: int) -> None:
        """Check that there are classes enough for the loss; see :meth:`Attack.check_fits`.

        Raises:
            UsageError: There are not.
        """
        get_loss(self.loss).check_classes(num_classes)

    @property
    def reach(self) -> float | None:
        """How far the steps lead (:attr:`Attack.reach`); None for steps of signs: it depends on the images."""
        signed = self.direction == "sign" and not isinstance(self.norm, Linf)
        return None if signed else super().reach

    def perturb(self, forward: Forward, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the adversarial examples; see :meth:`Attack.perturb`."""
        clean_logits = self._clean_logits(forward, x)
        ascent = self._ascent(clean_logits, y, generator)
        worst = self._run(forward, ascent, x, self._start(x, generator), generator)
        for turn in range(1, self.restarts):
            if self.label in CHANGING:
                ascent = self._ascent(clean_logits, y, generator, turn)
            worst = self._restart(forward, ascent, x, worst, generator)
        return worst

    @renamed_argument("model", "network")
    def iterates(
        self,
        network: nn.Module,
        x: Tensor,
        y: Tensor,
        at: Sequence[int],
        *,
        domain: str | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Tensor]:
        """Return what one run has reached after each of some numbers of steps, instead of after ``steps``.

        Args:
            network: Maps images (N, C, H, W) in [0, 1] to logits (N, K).
            x: Clean images (N, C, H, W) in [0, 1].
            y: True labels (N,).
            at: Numbers of steps, increasing, each at least 1.
            domain: The BatchNorm domain to attack through; None is the active one.
            generator: The source of randomness, as in a call of the attack.

        Returns:
            For each number n the result of the attack with ``steps=n`` and one restart, of the same noise.

        Raises:
            UsageError: ``at`` does not increase from 1 or more, or see :meth:`Attack.__call__`.
        """
        if not at or any(later <= earlier for earlier, later in zip((0, *at), at, strict=False)):
            raise UsageError(f"at must be increasing numbers of steps, each at least 1, got {list(at)}.")
        with self.prepared(network, x, y, domain=domain, generator=generator) as (forward, clean, labels, noise):
            ascent = self._ascent(self._clean_logits(forward, clean), labels, noise)
            path = enumerate(self._path(forward, ascent, clean, self._start(clean, noise), noise, at[-1]), start=1)
            # cloned: with early_stop the next step writes to it
            return [self.finished(x, adversarial.clone()) for step, adversarial in path if step in at]

    def _restart(
        self, forward: Forward, ascent: Ascent, clean: Tensor, worst: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Run once more, and keep of each sample the worse result: (N, C, H, W)."""

        def rated(images: Tensor, ascent: Ascent) -> Run:
            with torch.no_grad():
                return Run(images, *ascent.compare(forward(images)))

        start = self._start(clean, generator)  # for every sample, so that its noise does not depend on the others
        if not self.early_stop:
            again = self._run(forward, ascent, clean, start, generator)
            return worse(rated(worst, ascent), rated(again, ascent)).images
        with torch.no_grad():
            rows = (~ascent.settled(forward(worst))).nonzero().flatten()
        if not len(rows):
            return worst
        rest = ascent.select(rows)
        again = self._run(forward, rest, clean[rows], start[rows], generator)
        return worst.index_copy(0, rows, worse(rated(worst[rows], rest), rated(again, rest)).images)

    def _run(
        self, forward: Forward, ascent: Ascent, clean: Tensor, start: Tensor, generator: torch.Generator
    ) -> Tensor:
        """One run from one start: (N, C, H, W) -> (N, C, H, W), in fp32."""
        return deque(self._path(forward, ascent, clean, start, generator, self.steps), maxlen=1).pop()

    def _path(
        self,
        forward: Forward,
        ascent: Ascent,
        clean: Tensor,
        adversarial: Tensor,
        generator: torch.Generator,
        steps: int,
    ) -> Iterator[Tensor]:
        """Yield where each step of one run leads: (N, C, H, W), in fp32; with ``early_stop`` always in one tensor."""
        step = self._step(clean)
        velocity = torch.zeros_like(clean) if self.momentum else None
        unbroken = RemainingSamples(adversarial) if self.early_stop else None
        coins = fork_to_host(generator) if self.diversity_probability else generator
        for number in range(steps):
            gradient, logits = ascent.gradient(lambda images: forward(self._diversify(images, coins)), adversarial)
            if unbroken is not None and number:  # the pass for this gradient has judged the last iterate too
                rows = unbroken.leave_out(ascent.succeeded(logits))
                if not len(rows):
                    yield from repeat(unbroken.images, steps - number)
                    return
                if len(rows) < len(adversarial):
                    clean, adversarial, gradient = clean[rows], adversarial[rows], gradient[rows]
                    velocity = None if velocity is None else velocity[rows]
                    ascent, step = ascent.select(rows), self._step(clean)
            if velocity is not None:
                gradient = velocity = self.momentum * velocity + unit_l1(gradient)
            adversarial = step(adversarial, gradient)
            yield adversarial if unbroken is None else unbroken.move(adversarial)

    def _step(self, clean: Tensor) -> Step:
        if self.direction == "sign" and not isinstance(self.norm, Linf):
            return signed_step(self.norm, clean, self.eps, self.step_size, project=self.project)
        if self.project:
            return self.norm.projected_step(clean, self.eps, self.step_size)
        return lambda x, gradient: (x + self.step_size * self.norm.steepest(gradient, x)).clamp(0, 1)

    def _start(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        if self.start == "zero" or draw_bernoulli(self.clean_start_probability, generator):
            return clean
        if self.start == "gaussian":
            noise = draw(torch.randn, clean.shape, clean, generator)
            return (clean + self.norm.project(0.001 * noise, self.eps)).clamp(0, 1)
        return (clean + self.norm.sample(clean, self.eps, generator)).clamp(0, 1)

    def _diversify(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return diversify(images, self.diversity_probability, self.diversity_scale, generator)

    @torch.no_grad()
    def _clean_logits(self, forward: Forward, clean: Tensor) -> Tensor | None:
        """Return the logits (N, K) of the clean images where the ascent depends on them."""
        return None if self.label == "true" and get_loss(self.loss).target == "labels" else forward(clean)

    def _ascent(self, clean_logits: Tensor | None, y: Tensor, generator: torch.Generator, turn: int = 0) -> Ascent:
        loss, label = get_loss(self.loss), y
        if clean_logits is not None:
            label = choose_labels(self.label, y, clean_logits, generator, self.turn + turn)
        target = clean_logits if clean_logits is not None and loss.target == "clean_logits" else label
        targeted, changing = self.label in TARGETED, self.label in CHANGING
        return Ascent(loss, target, label, targeted, self.batchnorm == "eval", y=y, changing=changing)
