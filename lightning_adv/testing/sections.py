"""What every section of an interpretation promises."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_adv.attacks import FGSM, Attack
from lightning_adv.interpretation import Crafted, Finding, Section, Subject
from lightning_adv.interpretation.interpreting import interpret
from lightning_adv.testing.untouched import Snapshot


class _Draws(Section):
    """Draws from the generators that others could share, and asks for all examples, as another section may."""

    name = "another_section"

    def find(self, subjects: Sequence[Subject], crafted: Crafted) -> list[Finding]:
        for subject in subjects:
            for attack in crafted.attacks:
                crafted.adversarial(attack, subject.name)
        torch.rand(3, generator=crafted.generator(self.name))
        return []


def check_section(
    make: Callable[[], Section],
    networks: Mapping[str, nn.Module],
    x: Tensor,
    y: Tensor,
    *,
    attacks: Mapping[str, Attack] | None = None,
    domains: Mapping[str, str] | None = None,
    batch_size: int = 8,
) -> list[Finding]:
    """Check what a section promises, on networks, images and attacks for which it can be computed.

    It leaves networks (weights, buffers, gradients, flags), images, examples and the global random state as they are,
    and names its findings as they must be. It gives the same numbers again, beside another section in whatever order,
    and of the networks in another order.

    Args:
        make: Returns a new object of the section.
        networks: Networks by name, at least one.
        x: Images (N, C, H, W) in [0, 1].
        y: Labels (N,).
        attacks: The attacks by name; None takes FGSM as ``fgsm``.
        domains: The BatchNorm domain to look through, by network.
        batch_size: How many images go through a network at a time.

    Returns:
        The findings.

    Raises:
        AssertionError: It does not keep a promise; the message says which.

    Example:
        >>> class Brightness(Section):
        ...     name = "brightness"
        ...
        ...     def find(self, subjects, crafted):
        ...         yield from (Finding(each.name, "clean", "", "mean", float(crafted.x.mean())) for each in subjects)
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> len(check_section(Brightness, {"a": network}, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])))
        1
    """
    chosen = {"fgsm": FGSM()} if attacks is None else attacks

    def look(named: Mapping[str, nn.Module], *sections: Section) -> list[Finding]:
        undrawn = [section if isinstance(section, _Examples) else _Undrawn(section) for section in sections]
        found = interpret(named, x, y, chosen, undrawn, domains=domains, batch_size=batch_size)
        return found[make().name].findings

    flags = {name: [module.training for module in network.modules()] for name, network in networks.items()}
    before = {name: Snapshot(network) for name, network in networks.items()}
    images, state, examples = x.clone(), torch.get_rng_state(), _Examples(make, chosen)
    found = look(networks, examples)
    for name, snapshot in before.items():
        told = snapshot.difference()
        assert told is None, f"{name} is not as it was: {told}."
        assert flags[name] == [module.training for module in networks[name].modules()], f"{name} changed its modes."
        hooked = [path for path, module in networks[name].named_modules() if module._forward_hooks]
        assert not hooked, f"{name} keeps hooks, at {hooked[0]!r}."
    assert torch.equal(x, images), "The images were changed."
    assert torch.equal(torch.get_rng_state(), state), "The global random state was changed."
    for row in found:
        assert isinstance(row, Finding), f"find must give Findings, got {row!r}."
        assert row.network in networks, f"{row} is of no network that was given."
        assert row.low <= row.value <= row.high or math.isnan(row.low) or math.isnan(row.value), f"{row} is outside."
    names = [row[:4] for row in found]
    assert len(set(names)) == len(names), "Two findings have the same network, images, layer and statistic."
    assert _same(found, look(networks, make())), "Its numbers differ when it is computed again."
    assert _same(found, look(networks, make(), _Draws())), "Its numbers differ before another section."
    assert _same(found, look(networks, _Draws(), make())), "Its numbers differ behind another section."
    turned = {row[:4]: row for row in look(dict(reversed(list(networks.items()))), make())}
    both = [row for row in found if row[:4] in turned]  # a distance of two networks may be told of either
    assert _same(both, [turned[row[:4]] for row in both]), "Its numbers depend on the order of the networks."
    return found


class _Undrawn(Section):
    """A section without its pictures, which take their time and change no number."""

    def __init__(self, inner: Section) -> None:
        self._inner = inner
        self.name = inner.name  # type: ignore[misc]  # a class's, as a rule

    def check(self, subjects: Sequence[Subject], crafted: Crafted) -> None:
        self._inner.check(subjects, crafted)

    def find(self, subjects: Sequence[Subject], crafted: Crafted) -> list[Finding]:
        return list(self._inner.find(subjects, crafted))


class _Examples(_Undrawn):
    """A section between two looks at the images and examples that it gets."""

    def __init__(self, make: Callable[[], Section], attacks: Mapping[str, Attack]) -> None:
        super().__init__(make())
        self._attacks = attacks

    def check(self, subjects: Sequence[Subject], crafted: Crafted) -> None:
        super().check(subjects, crafted)
        assert not crafted._examples, "check crafts adversarial examples: that is for find."

    def find(self, subjects: Sequence[Subject], crafted: Crafted) -> list[Finding]:
        pairs = [(attack, subject.name) for attack in self._attacks for subject in subjects]
        before = {pair: copy.deepcopy(crafted.adversarial(*pair)) for pair in pairs}
        found = super().find(subjects, crafted)
        figures = self._inner.draw(found, crafted, subjects)
        for name, figure in figures.items():
            assert not set(name) & set('/\\:*?"<>|'), f"The picture {name!r} cannot be a file."
            figure.canvas.draw()
        for pair, examples in before.items():
            assert torch.equal(crafted.adversarial(*pair), examples), f"The examples {pair} were changed."
        for subject in subjects:
            assert not any(module.training for module in subject.network.modules()), (
                f"{subject.name} was left in train."
            )
        return found


def _same(first: Sequence[Finding], second: Sequence[Finding]) -> bool:
    """Whether findings are the same to the bit; NaN is the same as NaN."""
    return repr([tuple(row) for row in first]) == repr([tuple(row) for row in second])
