"""The family of fast gradient sign methods, as settings of the one loop.

How they relate: Xie et al. (2019), figure 3.2. Without momentum M-DI²-FGSM is DI²-FGSM, without diversity it is
MI-FGSM, without both I-FGSM, and with one step FGSM.
"""

from __future__ import annotations

from typing import Any, TypedDict

from lightning_adv.attacks.balls import Norm
from lightning_adv.attacks.distance import Distance, StepSize, parse_distance
from lightning_adv.attacks.hold import BatchNormMode
from lightning_adv.attacks.labels import LabelChoice
from lightning_adv.attacks.pgd import PGD
from lightning_adv.core.keywords import Unpack


class Settings(TypedDict, total=False):
    """What all of the family leave to the user, by keyword."""

    norm: Norm
    label: LabelChoice
    batchnorm: BatchNormMode


class _Preset(PGD):
    """PGD with most of its arguments set, from the clean image if they do not say otherwise.

    Args:
        preset: The arguments that are set.
        norm: ``"linf"``, ``"l2"``, ``"l1"`` or a :class:`~lightning_adv.attacks.Ball`.
        label: ``"true"`` or ``"predicted"`` (no label leaking), or a target: ``"random"``, ``"most_likely"`` or
            ``"least_likely"``.
        batchnorm: What BatchNorms normalise by: ``"eval"`` running statistics, ``"batch"`` those of the batch.
    """

    def __init__(
        self,
        preset: dict[str, Any],
        /,
        *,
        norm: Norm = "linf",
        label: LabelChoice = "true",
        batchnorm: BatchNormMode = "eval",
    ) -> None:
        super().__init__(**{"start": "zero", **preset}, norm=norm, label=label, batchnorm=batchnorm)


class FGSM(_Preset):
    """One step of length ``eps`` from the clean image (Goodfellow et al. 2015, section 4).

    Args:
        eps: Radius and step. The paper has no default of its own (0.25 on MNIST, 0.1 on CIFAR-10); 8/255 is the
            field's threat model for CIFAR-10.
        **settings: ``norm``, ``label`` and ``batchnorm``, as of :class:`PGD`.
    """

    def __init__(
        self,
        eps: Distance = "8/255",
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__({"eps": eps, "steps": 1, "step_size": "eps"}, **settings)


class IFGSM(_Preset):
    """I-FGSM, the basic iterative method: many small steps from the clean image (Kurakin et al. 2017).

    Args:
        eps: Radius, 16/255 in Kurakin et al. (section 2.2).
        steps: Number of steps; None is their rule min(eps + 4, 1.25 eps), eps in grey levels.
        step_size: None is one grey level, as there, or more where so few steps would not reach ``eps``.
        **settings: ``norm``, ``label`` and ``batchnorm``, as of :class:`PGD`.
    """

    def __init__(
        self,
        eps: Distance = "16/255",
        steps: int | None = None,
        step_size: StepSize = None,
        **settings: Unpack[Settings],
    ) -> None:
        steps = _kurakin_steps(eps) if steps is None else steps
        super().__init__(
            {
                "eps": eps,
                "steps": steps,
                "step_size": _kurakin_step(eps, steps) if step_size is None else step_size,
            },
            **settings,
        )


class MIFGSM(_Preset):
    """MI-FGSM: I-FGSM along an accumulated gradient (Dong et al. 2018, algorithm 1).

    Args:
        eps: Radius, 16/255 there.
        steps: Number of steps, 10 there.
        step_size: None is eps / steps, as there.
        momentum: Decay factor mu, 1 there.
        **settings: ``norm``, ``label`` and ``batchnorm``, as of :class:`PGD`.
    """

    def __init__(
        self,
        eps: Distance = "16/255",
        steps: int = 10,
        step_size: StepSize = None,
        momentum: float = 1.0,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(
            {
                "eps": eps,
                "steps": steps,
                "step_size": _reaching(eps, steps) if step_size is None else step_size,
                "momentum": momentum,
            },
            **settings,
        )


class DIFGSM(_Preset):
    """DI²-FGSM: I-FGSM on randomly resized and padded inputs (Xie et al. 2019, equation 3.5).

    Args:
        eps: Radius, 15/255 there (section 3.4.1).
        steps: None is the rule min(eps + 4, 1.25 eps), eps in grey levels, as there.
        step_size: None is one grey level, as there, or more where so few steps would not reach ``eps``.
        diversity_probability: p, 0.5 there.
        diversity_scale: Size of the transformed input over the image's own; below 1 the smallest size over it, which is
            then padded to the image's.
        **settings: ``norm``, ``label`` and ``batchnorm``, as of :class:`PGD`.
    """

    def __init__(
        self,
        eps: Distance = "15/255",
        steps: int | None = None,
        step_size: StepSize = None,
        diversity_probability: float = 0.5,
        diversity_scale: float = 330 / 299,
        **settings: Unpack[Settings],
    ) -> None:
        steps = _kurakin_steps(eps) if steps is None else steps
        super().__init__(
            {
                "eps": eps,
                "steps": steps,
                "step_size": _kurakin_step(eps, steps) if step_size is None else step_size,
                "diversity_probability": diversity_probability,
                "diversity_scale": diversity_scale,
            },
            **settings,
        )


class MDIFGSM(_Preset):
    """M-DI²-FGSM: DI²-FGSM with momentum (Xie et al. 2019, equation 3.7).

    Args:
        eps: Radius, 15/255 there (section 3.4.1).
        steps: None is the rule min(eps + 4, 1.25 eps), eps in grey levels, as there.
        step_size: None is one grey level, as there, or more where so few steps would not reach ``eps``.
        momentum: Decay factor mu, 1 there.
        diversity_probability: p, 0.5 there.
        diversity_scale: Size of the transformed input over the image's own; below 1 the smallest size over it, which is
            then padded to the image's.
        **settings: ``norm``, ``label`` and ``batchnorm``, as of :class:`PGD`.
    """

    def __init__(
        self,
        eps: Distance = "15/255",
        steps: int | None = None,
        step_size: StepSize = None,
        momentum: float = 1.0,
        diversity_probability: float = 0.5,
        diversity_scale: float = 330 / 299,
        **settings: Unpack[Settings],
    ) -> None:
        steps = _kurakin_steps(eps) if steps is None else steps
        super().__init__(
            {
                "eps": eps,
                "steps": steps,
                "step_size": _kurakin_step(eps, steps) if step_size is None else step_size,
                "momentum": momentum,
                "diversity_probability": diversity_probability,
                "diversity_scale": diversity_scale,
            },
            **settings,
        )


class GD(_Preset):
    """PGD without its projection, which AdvProp ablates (Xie et al. 2020, section 7.5.4, table 7.7).

    The result is not confined to the ball of radius ``eps``, which sets the random start only; it lies within
    ``eps + steps * step_size``, and in [0, 1].

    Args:
        eps: Radius of the random start, 4/255 there.
        steps: Number of steps, 5 there.
        step_size: One grey level there, which is what :class:`PGD` takes for these two.
        **settings: ``norm``, ``label`` and ``batchnorm``, as of :class:`PGD`.
    """

    def __init__(
        self,
        eps: Distance = "4/255",
        steps: int = 5,
        step_size: StepSize = None,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(
            {
                "eps": eps,
                "steps": steps,
                "step_size": step_size,
                "start": "uniform",
                "project": False,
            },
            **settings,
        )


def _reaching(eps: Distance, steps: int) -> float:
    """Return eps / steps. Where ``steps`` is no number of steps, :class:`PGD` says so."""
    return parse_distance(eps, "eps") / (steps if isinstance(steps, int) and steps > 0 else 1)


def _kurakin_step(eps: Distance, steps: int) -> float:
    """Return one grey level (Kurakin et al. 2017, section 2.1); more where the steps would not reach ``eps``."""
    return max(1 / 255, _reaching(eps, steps))


def _kurakin_steps(eps: Distance) -> int:
    """Return min(eps + 4, 1.25 eps), eps in grey levels (Kurakin et al. 2017, section 2.2), rounded down."""
    levels = round(255 * parse_distance(eps, "eps"), 6)  # 255 * (16 / 255) may be a hair below 16
    return max(1, int(min(levels + 4, 1.25 * levels)))
