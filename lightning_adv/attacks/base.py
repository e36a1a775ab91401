"""What an attack is: one method to write, and everything around it done."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from lightning_adv.attacks.balls import bring_inside
from lightning_adv.attacks.checks import check_counts, check_images
from lightning_adv.attacks.distance import parse_distance
from lightning_adv.attacks.forward import Forward, at_least_fp32, round_towards
from lightning_adv.attacks.hold import held_still
from lightning_adv.attacks.restarts import single_runs
from lightning_adv.attacks.stated import Stated
from lightning_adv.core.moved import renamed_argument


class Prepared(NamedTuple):
    """What an attack works with, once everything is checked and the network held still.

    Attributes:
        forward: Images (n, C, H, W) to logits (n, K).
        x: A copy of the clean images (N, C, H, W), in fp32 or more: in bf16 a step of 2/255 from 0.9 is lost.
        y: A copy of the true labels (N,), int64.
        generator: The source of randomness.
    """

    forward: Forward
    x: Tensor
    y: Tensor
    generator: torch.Generator


class Attack(Stated, ABC):
    """The inner maximisation: ``x_adv = attack(network, x, y)``. A subclass writes :meth:`perturb`.

    Every attack keeps six promises, whatever the network, the norm, the BatchNorm mode and the precision:

    1. ``x_adv`` is detached, has the dtype and device of ``x``, lies in [0, 1] and within ``eps`` of ``x``.
    2. The network is left as it was: train flags, ``requires_grad``, ``.grad`` and buffers, module by module.
    3. Parameters take part in no gradient; losses are summed, so that samples do not see each other.
    4. It works inside ``no_grad``, ``inference_mode``, autocast, DDP and a compiled network.
    5. Randomness comes from ``generator``; the global random state is left alone.
    6. BatchNorm mode and domain are a choice.

    The base keeps them all but two, which are up to :meth:`perturb`: to sum losses over samples, and to draw from
    ``generator``. :func:`lightning_adv.testing.check_attack` checks the six.

    An attack says in attributes what others ask of it: those of :class:`Stated`, which have a default there. One that
    keeps an ``eps`` says its ``norm`` too. A subclass may override ``__call__`` instead of :meth:`perturb`, and then
    keeps the promises by itself.

    Example:
        >>> class SignStep(Attack):
        ...     norm = "linf"
        ...     def __init__(self, eps: float = 8 / 255) -> None:
        ...         self.eps = eps
        ...     def perturb(self, forward, x, y, generator):
        ...         loss = nn.functional.cross_entropy(forward(x.requires_grad_()), y, reduction="sum")
        ...         return x + self.eps * torch.autograd.grad(loss, x)[0].sign()
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        >>> x_adv = SignStep()(network, torch.rand(5, 3, 2, 2), torch.tensor([0, 1, 0, 1, 0]))
        >>> x_adv.requires_grad
        False
    """

    _unseeded_calls = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__call__" in vars(cls) and getattr(cls.perturb, "__isabstractmethod__", False):
            cls.perturb = _whole_call  # type: ignore[assignment, method-assign]

    @abstractmethod
    def perturb(self, forward: Forward, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return adversarial images. This is what a subclass writes.

        Gradients are on and the network's parameters have none. What is returned may be attached to a graph or leave
        [0, 1]; where there are ``norm`` and ``eps``, a sample that leaves the ball goes to the ball's nearest point.

        Args:
            forward: Maps images (n, C, H, W), any number of them, to logits (n, K) in fp32 or more.
            x: Clean images (N, C, H, W) in [0, 1], in fp32 or more; a copy, to be written to at will.
            y: True labels (N,), int64, in [0, K); a copy too.
            generator: The source of randomness, which may be on another device than ``x``.

        Returns:
            Images of ``x``'s shape.
        """

    @renamed_argument("model", "network")
    def __call__(
        self,
        network: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        domain: str | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the adversarial examples.

        Args:
            network: Maps images (N, C, H, W) to logits (N, K).
            x: Clean images (N, C, H, W) in [0, 1].
            y: True labels (N,), integers in [0, K).
            domain: The BatchNorm domain to attack through; None leaves the active one.
            generator: The source of randomness. None takes a new one for each call, seeded by
                ``torch.initial_seed()`` and the number of calls so far.

        Returns:
            Adversarial images (N, C, H, W), detached, in ``x``'s dtype and on its device.

        Raises:
            UsageError: ``x`` leaves [0, 1], ``y`` leaves [0, K), or their shapes do not agree; the attack has an
                ``eps`` and says no norm.
            TypeError: :meth:`perturb` gave something else than images of ``x``'s shape.
        """
        with self.prepared(network, x, y, domain=domain, generator=generator) as prepared:
            return self.finished(x, self.perturb(*prepared))

    @contextmanager
    def prepared(
        self, network: nn.Module, x: Tensor, y: Tensor, *, domain: str | None, generator: torch.Generator | None
    ) -> Iterator[Prepared]:
        """Check what is given, hold the network still, and yield what :meth:`perturb` takes.

        Args:
            network: As in a call, and so are the others.
            x: See there.
            y: See there.
            domain: See there.
            generator: See there.
        """
        check_images(x, y)
        self.threat_model  # noqa: B018 - an attack that does not say what it stays in says so before it runs
        generator = self._generator(generator)
        with held_still(network, batchnorm=self.batchnorm, domain=domain) as still:
            labels = y.clone().long()
            forward = Forward(still, x.dtype, y, independent=self.batchnorm == "eval")
            yield Prepared(forward, at_least_fp32(x.detach().clone()), labels, generator)

    @torch.no_grad()
    def finished(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Return images as the first promise has them: detached, in [0, 1] and in the ball, in ``x``'s dtype.

        Args:
            x: The clean images (N, C, H, W), as they were given.
            adversarial: Images of the same shape.

        Raises:
            TypeError: They are something else.
        """
        told: object = type(adversarial).__name__
        if isinstance(adversarial, Tensor):
            told = tuple(adversarial.shape) if adversarial.is_floating_point() else adversarial.dtype
        if told != tuple(x.shape):
            name = type(self).__name__
            raise TypeError(f"{name}.perturb must return floating-point images of shape {tuple(x.shape)}, got {told}.")
        clean = at_least_fp32(x.detach())
        adversarial = adversarial.detach().to(clean)
        ball, eps = self.ball, self.threat_model.eps
        if ball is not None and eps is not None and x.numel():
            # What adding a perturbation in this precision rounds, entry by entry.
            slack = 4 * torch.finfo(clean.dtype).eps * ball.norm(clean.new_ones(1, *x.shape[1:]))
            adversarial = bring_inside(ball, clean, adversarial, eps, slack=slack)
        return round_towards(x, adversarial.clamp(0, 1))

    def scaled(self, factor: float) -> Self:
        """Return the same attack with ``eps`` and ``step_size`` multiplied by ``factor`` (a warm-up's step).

        What an attack does not have is not scaled; a ``step_size`` that is a share of ``eps`` follows it.
        """
        scaled = copy.copy(self)
        # Counted as a call: of copies made one a step, each must draw noise of its own.
        self._unseeded_calls += 1
        for name in ("eps", "step_size"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and "eps" in value):
                setattr(scaled, name, factor * parse_distance(value, name))
        return scaled

    def stages(self) -> list[Attack]:
        """Return the attacks that are this one if each is run on what the ones before it have left unbroken.

        An evaluation skips what is broken: restarts and the parts of an ensemble need not see it again. An attack with
        ``restarts`` is as many runs of itself (:func:`~lightning_adv.attacks.restarts.single_runs`); most attacks are
        one stage.

        Raises:
            UsageError: ``restarts`` is not a whole number of at least 1.
        """
        check_counts(self, "restarts")
        return single_runs(self)

    def part(self, stages: Sequence[Attack]) -> Attack | None:
        """Return this attack with some of its :meth:`stages` only; None where it cannot be taken apart.

        An evaluation leaves out what a network does not allow, such as gradients of one that has none.
        """
        return self if len(stages) == len(self.stages()) else None

    def check_available(self) -> None:
        """Check, before anything is computed, that what the attack needs is installed.

        Raises:
            UsageError: A package is missing; the message says how to install it.
        """

    def check_fits(self, shape: tuple[int, ...], num_classes: int) -> None:
        """Check, before anything is computed, that the attack can be run on images and a network.

        Args:
            shape: Shape (C, H, W) of an image.
            num_classes: Number of classes K of the network.

        Raises:
            UsageError: It cannot.
        """

    def _generator(self, given: torch.Generator | None) -> torch.Generator:
        if given is not None:
            return given
        # A counter and not a stored generator: attacks stay plain data that deepcopy and pickle take.
        self._unseeded_calls += 1
        generator = torch.Generator()
        generator.manual_seed((torch.initial_seed() + 0x9E3779B97F4A7C15 * self._unseeded_calls) % 2**63)
        return generator


def _whole_call(
    attack: Attack, forward: Forward, x: Tensor, y: Tensor, generator: torch.Generator
) -> Tensor:  # what stands for perturb in an attack that writes __call__
    raise NotImplementedError(f"{type(attack).__name__} writes __call__ as a whole, and no perturb.")
