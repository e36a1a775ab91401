"""The attacks of Carlini & Wagner (2017), "Towards Evaluating the Robustness of Neural Networks".

The L2 attack looks for the nearest adversarial example; PGD with their margin as its loss is known as C&W in Linf.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

from lightning_adv.attacks.balls import L2, Ball
from lightning_adv.attacks.base import Attack
from lightning_adv.attacks.carlini_wagner_search import Search
from lightning_adv.attacks.checks import check_counts
from lightning_adv.attacks.distance import Distance, StepSize, parse_distance
from lightning_adv.attacks.forward import Forward
from lightning_adv.attacks.hold import BatchNormMode
from lightning_adv.attacks.labels import LabelChoice, choose_labels
from lightning_adv.attacks.pgd import PGD
from lightning_adv.core.arguments import check_choices
from lightning_adv.core.errors import UsageError


class CarliniWagner(Attack):
    """The L2 attack: the nearest adversarial example (Carlini & Wagner 2017, sections V and VI-A).

    With x' = (tanh(w) + 1) / 2, which stays in [0, 1], Adam minimises ||x' - x||² + c f(x') over w. Here f(x') =
    max(-m(x'), -confidence), and m is the margin by which the attack has succeeded: the lead of the best other class
    over the label (f_6), or of the target over the best other class. c is searched for each sample: ten times larger
    until an example is found, then by bisection. Of all examples on the way the nearest is kept.

    A sample without a success within ``eps`` is returned clean: to the network it is unbroken. So is a sample whose
    clean image succeeds already, at a distance of 0. Each sample has its own c and its own early stop; with
    ``batchnorm="batch"`` a success is judged by what the batch is at that moment. The paper's several starting points
    are left out, as in the authors' code.

    Args:
        eps: Largest L2 distance of an example, a number or a fraction; None sets no bound, as the paper.
        steps: Adam's steps for each c. The authors take 10,000, which shortens the median distance on the digits by
            less than 0.1 % against 1,000.
        learning_rate: Adam's, 0.01 in the authors' code.
        confidence: kappa, the margin of the logits that an example must exceed; above 0 for examples that transfer.
        binary_search_steps: Number of c tried, 9 in the authors' code (20 in the paper).
        initial_const: The first c, 0.001 in the authors' code.
        abort_early: Stop a sample's descent when a tenth of the steps has not lowered its lowest loss by 0.01 %. In
            batch mode no sample stops before the others.
        label: ``"true"`` or ``"predicted"`` (no label leaking), or a target: ``"random"``, ``"most_likely"`` or
            ``"least_likely"``.
        diversity_probability: Probability p of transforming the input of a step (Xie et al. 2019, equation 3.6).
            Success is judged without it.
        diversity_scale: Size of the transformed input over the image's own; below 1 the smallest size over it, which is
            then padded to the image's.
        batchnorm: What BatchNorms normalise by: ``"eval"`` running statistics, ``"batch"`` those of the batch.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> x = torch.rand(5, 3, 2, 2)
        >>> y = network(x).argmax(1)
        >>> x_adv = CarliniWagner(steps=200)(network, x, y)
        >>> bool((network(x_adv).argmax(1) != y).all())
        True
    """

    norm: Ball
    eps: float | None
    steps: int

    def __init__(
        self,
        eps: Distance | None = None,
        steps: int = 1000,
        learning_rate: float = 0.01,
        *,
        confidence: float = 0.0,
        binary_search_steps: int = 9,
        initial_const: float = 1e-3,
        abort_early: bool = True,
        label: LabelChoice = "true",
        diversity_probability: float = 0.0,
        diversity_scale: float = 330 / 299,
        batchnorm: BatchNormMode = "eval",
    ) -> None:
        self.norm = L2()
        self.eps = None if eps is None else parse_distance(eps, "eps")
        self.steps = steps
        self.learning_rate = learning_rate
        self.confidence = confidence
        self.binary_search_steps = binary_search_steps
        self.initial_const = initial_const
        self.abort_early = abort_early
        self.label: LabelChoice = "true" if label is True else label
        self.diversity_probability = diversity_probability
        self.diversity_scale = diversity_scale
        self.batchnorm = batchnorm
        self._check()

    @property
    def passes(self) -> int:
        """The steps for each number that is tried as c."""
        return super().passes * self.binary_search_steps

    def _check(self) -> None:
        check_choices(self, CarliniWagner)
        check_counts(self, "steps", "binary_search_steps")
        for name in ("learning_rate", "initial_const", "diversity_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be positive and finite, got {getattr(self, name)}.")
        if not 0 <= self.confidence < math.inf:
            raise UsageError(f"confidence must be at least 0 and finite, got {self.confidence}.")
        if not 0 <= self.diversity_probability <= 1:
            raise UsageError(f"diversity_probability must lie in [0, 1], got {self.diversity_probability}.")

    def scaled(self, factor: float) -> Self:
        """Return the same attack with ``eps`` multiplied by ``factor``.

        Raises:
            UsageError: There is no ``eps``.
        """
        if self.eps is None:
            raise UsageError(f"eps must be a distance to be scaled, got None: give {type(self).__name__} an eps.")
        return super().scaled(factor)

    def perturb(self, forward: Forward, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the adversarial examples; see :meth:`Attack.perturb`."""
        with torch.no_grad():
            logits = forward(x)
        label = choose_labels(self.label, y, logits, generator)
        search = Search(self, forward, x, label)
        search.offer(search.everyone, x, search.success(logits, search.everyone))
        search.run(generator)
        return search.nearest(self.eps)


class DCarliniWagner(CarliniWagner):
    """D-C&W: the L2 attack on randomly resized and padded inputs, for transfer (Xie et al. 2019, section 3.4.2).

    Args:
        eps: Largest L2 distance of an example, a number or a fraction; None sets no bound.
        steps: 250 there.
        learning_rate: 0.01 there.
        confidence: 10 there.
        diversity_probability: p, 0.5 there (section 3.4.1).
        diversity_scale: Size of the transformed input over the image's own; below 1 the smallest size over it, which is
            then padded to the image's.
        binary_search_steps: Number of trade-offs c tried, from 0.001.
        label: ``"true"`` or ``"predicted"`` (no label leaking), or a target: ``"random"``, ``"most_likely"`` or
            ``"least_likely"``.
        batchnorm: What BatchNorms normalise by: ``"eval"`` running statistics, ``"batch"`` those of the batch.
    """

    def __init__(
        self,
        eps: Distance | None = None,
        steps: int = 250,
        learning_rate: float = 0.01,
        confidence: float = 10.0,
        diversity_probability: float = 0.5,
        diversity_scale: float = 330 / 299,
        *,
        binary_search_steps: int = 9,
        label: LabelChoice = "true",
        batchnorm: BatchNormMode = "eval",
    ) -> None:
        super().__init__(
            eps=eps,
            steps=steps,
            learning_rate=learning_rate,
            confidence=confidence,
            binary_search_steps=binary_search_steps,
            label=label,
            diversity_probability=diversity_probability,
            diversity_scale=diversity_scale,
            batchnorm=batchnorm,
        )


class CarliniWagnerLinf(PGD):
    """PGD on the margin of Carlini & Wagner: C&W in Linf (Madry et al. 2018, section 5, table 2).

    The margin is not cut off at a confidence, as at a large one: Madry et al. use 50.

    Args:
        eps: Radius, 8/255 there.
        steps: Number of steps, 30 there.
        step_size: 2/255 there, which is what :class:`PGD` takes for these two.
        diversity_probability: Probability p of transforming the input of a step; above 0 it is D-C&W in Linf.
        diversity_scale: Size of the transformed input over the image's own; below 1 the smallest size over it, which is
            then padded to the image's.
        restarts: Number of runs; of each sample the worst result is kept.
        label: ``"true"`` or ``"predicted"`` (no label leaking), or a target: ``"random"``, ``"most_likely"`` or
            ``"least_likely"``.
        batchnorm: What BatchNorms normalise by: ``"eval"`` running statistics, ``"batch"`` those of the batch.
    """

    def __init__(
        self,
        eps: Distance = "8/255",
        steps: int = 30,
        step_size: StepSize = None,
        diversity_probability: float = 0.0,
        diversity_scale: float = 330 / 299,
        *,
        restarts: int = 1,
        label: LabelChoice = "true",
        batchnorm: BatchNormMode = "eval",
    ) -> None:
        super().__init__(
            eps=eps,
            steps=steps,
            step_size=step_size,
            loss="margin",
            diversity_probability=diversity_probability,
            diversity_scale=diversity_scale,
            restarts=restarts,
            label=label,
            batchnorm=batchnorm,
        )
