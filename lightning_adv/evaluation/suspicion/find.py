"""Is a robust accuracy suspicious? Warnings with their evidence, from a probe of some hundred images.

A robust accuracy is an upper bound: an attack that fails says nothing about the network. What goes wrong as a rule has
been listed by Athalye et al. (2018), "Obfuscated Gradients Give a False Sense of Security", section 3.1, by Carlini et
al. (2019), "On Evaluating Adversarial Robustness", and in AutoAttack's flags (Croce & Hein 2020, ``flags_doc.md`` of
its repository). :func:`find_suspicions` looks for all of it; each check of this package can be called by itself, too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_adv.attacks.balls import Ball, Norm, get_ball
from lightning_adv.attacks.base import Attack
from lightning_adv.attacks.checks import check_images, check_labels
from lightning_adv.attacks.distance import Distance, parse_distance
from lightning_adv.attacks.fgsm import FGSM
from lightning_adv.attacks.losses import log_odds
from lightning_adv.attacks.pgd import PGD
from lightning_adv.attacks.random_noise import RandomNoise
from lightning_adv.core.errors import UsageError
from lightning_adv.evaluation.suspicion.network import (
    batch_dependent_output,
    network_logits,
    probabilities,
    random_state_kept,
    randomised_output,
    train_mode,
    zero_gradients,
)
from lightning_adv.evaluation.suspicion.normalisation import normalised_twice
from lightning_adv.evaluation.suspicion.verdicts import (
    Evidence,
    Suspicion,
    blackbox_beats_whitebox,
    fgsm_beats_pgd,
    full_eps_leaves_accuracy,
    larger_eps_does_not_help,
    more_steps_do_not_help,
)

STEPS = 100
"""PGD's steps in the ball; the step is a tenth of the radius throughout, so that one step cannot cross the ball."""

LARGER_STEPS = 50
"""PGD's steps in the larger balls."""

DRAWS = 50
"""Random perturbations."""


def find_suspicions(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: Norm = "linf",
    eps: Distance,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> list[Suspicion]:
    """Look at a network, and at how attacks on it do, for reasons to doubt its robust accuracy.

    Images that the network classifies correctly are attacked by FGSM, by PGD with 1 and with 100 steps in the ball, by
    PGD with 50 steps at twice the radius, by PGD with 50 steps among all images (eps = 1 in Linf; a ball of radius √d
    in L2 or d in L1 holds the same images of d entries) and by 50 random draws. All of them are exhaustive: what one
    attack breaks the others attack too. That is 203 forward and backward passes an image, and 50 forward passes more;
    the checks of the network itself take 10 to 15 forward passes.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K). It is in eval mode meanwhile, and is left as it was; so are
            the global random states.
        x: Clean images (N, C, H, W) in [0, 1]; 100 or more. With few images little is beyond chance.
        y: Labels (N,).
        norm: ``"linf"``, ``"l2"``, ``"l1"`` or a :class:`~lightning_adv.attacks.Ball`.
        eps: Radius of the ball that the accuracy is about, above 0; a number or a fraction such as ``"8/255"``.
        generator: The source of randomness. None takes a new one with seed 0.
        batch_size: How many images to look at at a time.

    Returns:
        What is suspicious, the network's own faults first; empty if nothing is.

    Raises:
        UsageError: These are no images in [0, 1] with labels of the network, the network gives NaN or something else
            than logits (N, K), or an argument is out of its range.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2), torch.nn.Softmax(1)).eval()
        >>> x = torch.rand(20, 3, 2, 2)
        >>> [found.name for found in find_suspicions(network, x, network(x).argmax(1), eps="8/255")]
        ['probabilities']
    """
    ball = get_ball(norm)
    radius = parse_distance(eps, "eps", ball.max_eps)
    if radius == 0:
        raise UsageError(f"eps must be above 0 for attacks to differ, got {eps!r}.")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UsageError(f"batch_size must be an integer of at least 1, got {batch_size!r}.")
    check_images(x, y)
    if not len(x):
        raise UsageError("x must have at least one image, got none.")
    found = [train_mode(network)]  # before anything sets the flags
    with random_state_kept(x):
        logits = network_logits(network, x, batch_size=batch_size)
        check_labels(y, logits.shape[1])
        flat = zero_gradients(network, x, y, batch_size=batch_size)
        random = randomised_output(network, x, batch_size=batch_size)
        found += [
            random,
            batch_dependent_output(network, x, batch_size=batch_size),
            probabilities(network, x, batch_size=batch_size),
            normalised_twice(network, x, y, batch_size=batch_size),
            flat,
        ]
        correct = logits.argmax(1) == y
        # No gradient attack runs on a network whose output autograd cannot follow back to its input.
        if correct.any() and (flat is None or flat.evidence["differentiable"]):
            generator = torch.Generator().manual_seed(0) if generator is None else generator
            probe = _Probe(network, x[correct], y[correct], generator, batch_size)
            found += _compare_attacks(probe, ball, radius, deterministic=random is None)
    return [suspicion for suspicion in found if suspicion is not None]


class _Outcome(NamedTuple):
    """What became of an attack: which images it broke, and their log-odds; (N,) both."""

    broken: Tensor
    loss: Tensor


class _Probe(NamedTuple):
    """Images that are attacked in several ways."""

    network: nn.Module
    x: Tensor
    y: Tensor
    generator: torch.Generator
    batch_size: int

    def attack(self, attack: Attack, state: Tensor | None = None) -> _Outcome:
        """Run an attack on all images, from a state of the generator where another attack is to have the same noise."""
        if state is not None:
            self.generator.set_state(state)
        parts = zip(torch.split(self.x, self.batch_size), torch.split(self.y, self.batch_size), strict=True)
        adversarial = torch.cat([attack(self.network, x, y, generator=self.generator) for x, y in parts])
        logits = network_logits(self.network, adversarial, batch_size=self.batch_size)
        # The log-odds grow with the cross-entropy, but do not saturate where the network is confident.
        return _Outcome(logits.argmax(1) != self.y, log_odds(logits, self.y.long()))


def _compare_attacks(probe: _Probe, ball: Ball, eps: float, deterministic: bool) -> list[Suspicion | None]:
    def pgd(radius: float, steps: int) -> PGD:
        return PGD(eps=radius, steps=steps, step_size=radius / 10, norm=ball)

    larger = min(2 * eps, covering_radius(ball, probe.x[0]))
    fgsm = probe.attack(FGSM(eps=eps, norm=ball))
    state = probe.generator.get_state()
    few = probe.attack(pgd(eps, 1))
    many = probe.attack(pgd(eps, STEPS), state)
    wide = probe.attack(pgd(larger, LARGER_STEPS), state)
    # A ball that covers all images holds the same ones in every norm, and Linf's steps get about them fastest. From
    # the clean images: random ones are far off, and a network that has no gradients may fall by the start alone.
    whole = probe.attack(PGD(eps=1, steps=LARGER_STEPS, step_size=0.1, start="zero"))
    noise = probe.attack(RandomNoise(eps=eps, draws=DRAWS, norm=ball))
    setting: Evidence = {"norm": ball.name, "eps": eps}
    return [
        _with(setting, fgsm_beats_pgd(fgsm.broken, many.broken)),
        # A random network gives other verdicts each time: some are broken by one attack only, whatever the attacks.
        _with(setting | {"attack": f"{DRAWS} random draws"}, blackbox_beats_whitebox(many.broken, noise.broken))
        if deterministic
        else None,
        _with(
            setting | {"few_steps": 1, "many_steps": STEPS}, more_steps_do_not_help(few.loss, many.loss, many.broken)
        ),
        _with(setting | {"larger_eps": larger}, larger_eps_does_not_help(many.loss, wide.loss, wide.broken))
        if larger > eps
        else None,
        _with({"norm": "linf", "eps": 1.0}, full_eps_leaves_accuracy(whole.broken)),
    ]


def covering_radius(ball: Ball, image: Tensor) -> float:
    """Return the radius at which a ball around any image of that shape holds all images in [0, 1].

    The cube's diagonal: 1 in Linf, √d in L2 and d in L1 for d entries.
    """
    return min(float(ball.norm(torch.ones_like(image)[None])), ball.max_eps)


def _with(setting: Evidence, suspicion: Suspicion | None) -> Suspicion | None:
    """Add the setting of the attacks to the evidence."""
    return None if suspicion is None else suspicion._replace(evidence=setting | suspicion.evidence)
