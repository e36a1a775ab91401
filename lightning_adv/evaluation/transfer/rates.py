"""Do adversarial examples of one network fool another?

Xie (2020), section 3.4: sources by targets by attacks, on images that all networks classify correctly. Examples are
crafted on a single network (section 3.4.2, table 3.1) or on an ensemble of all but one (section 3.4.3, table 3.3).

A command that streams images finds which count by :func:`commonly_correct`, runs chunk after chunk of those through
:func:`transfer_rates` or :func:`ensemble_rates`, each chunk with a seed of its own, and adds up by :func:`add_rates`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_adv.analysis.images.transformed_accuracy import correctly_classified
from lightning_adv.attacks import Attack, LogitEnsemble, held_still
from lightning_adv.attacks.checks import check_images
from lightning_adv.attacks.crafting import attack_in_batches
from lightning_adv.core.errors import UsageError
from lightning_adv.core.seeds import derive_seed
from lightning_adv.core.shares import Share
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.nn.batchnorm import through as in_domain


class TransferRate(NamedTuple):
    """How many adversarial examples of one network fool another: one row of a tidy table.

    Attributes:
        attack: The attack's name.
        source: The network that the examples were crafted on; ``-NAME`` is the ensemble of all but NAME.
        target: The network that they were tested on.
        white_box: Whether that is the source itself.
        fooled: Number of examples that the target classifies wrongly.
        total: Number of examples, at least 1; all networks classify the clean images correctly.
    """

    attack: str
    source: str
    target: str
    white_box: bool
    fooled: int
    total: int

    @property
    def rate(self) -> float:
        """The success rate, a fraction of 1."""
        return Share(self.fooled, self.total).accuracy

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the rate."""
        return Share(self.fooled, self.total).interval


def commonly_correct(
    networks: Mapping[str, nn.Module],
    x: Tensor,
    y: Tensor,
    *,
    domains: Mapping[str, str] | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Return which images all networks classify correctly: (N,) bool (Xie 2020, section 3.4.1).

    Args:
        networks: At least two networks by name, each maps images (N, C, H, W) to logits (N, K). They are in eval mode
            meanwhile, and are left as they were. One network may stand there twice, with two domains.
        x: Images (N, C, H, W) in [0, 1].
        y: Labels (N,).
        domains: The BatchNorm domain to classify and to attack through, by network; one that is not named is taken
            through its active domain.
        batch_size: How many images to classify at a time; it changes no result.

    Raises:
        UsageError: There are fewer than two networks or no images, the networks' logits differ in shape, or
            ``domains`` names a network or a domain that there is not.

    Example:
        >>> import torch
        >>> networks = {name: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)) for name in ("a", "b")}
        >>> x = torch.rand(5, 3, 2, 2)
        >>> commonly_correct({"a": networks["a"], "same": networks["a"]}, x, networks["a"](x).argmax(1))
        tensor([True, True, True, True, True])
    """
    return _all(_correct(_checked(networks, x, y, domains), x, y, batch_size))


def transfer_rates(
    networks: Mapping[str, nn.Module],
    attacks: Mapping[str, Attack],
    x: Tensor,
    y: Tensor,
    *,
    sources: Sequence[str] | None = None,
    domains: Mapping[str, str] | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> list[TransferRate]:
    """Craft adversarial examples on each source and test them on all networks (Xie 2020, section 3.4.2, table 3.1).

    Args:
        networks: See :func:`commonly_correct`.
        attacks: The attacks by name.
        x: Images (N, C, H, W) in [0, 1]. Only those that all networks classify correctly are attacked.
        y: Labels (N,).
        sources: The networks to craft on; None takes all.
        domains: See :func:`commonly_correct`.
        seed: Each attack on each source draws from a generator of its own, made from this number and the two names:
            it does not matter which others there are. Chunks of images need different seeds.
        batch_size: How many images to attack at a time. The draws of a random attack depend on it; input diversity
            draws one transform a batch, so that a few large batches leave its rates to luck.

    Returns:
        A row for each attack, source and target, in this order; white-box where the target is the source.

    Raises:
        UsageError: See :func:`commonly_correct`; or there is no attack, a source is not among the networks, or no
            image is classified correctly by all networks.

    Example:
        >>> import torch
        >>> from lightning_adv.attacks import FGSM
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> x = torch.rand(5, 3, 2, 2)
        >>> rates = transfer_rates({"a": network, "b": network}, {"FGSM": FGSM(eps=1)}, x, network(x).argmax(1))
        >>> [(row.source, row.target, row.white_box) for row in rates][:2]
        [('a', 'a', True), ('a', 'b', False)]
    """
    chosen = _chosen(attacks, networks, sources, "sources")
    through = _checked(networks, x, y, domains)
    x, y = _common(through, x, y, batch_size)
    crafted = [(source, through[source], through) for source in chosen]
    return _rates(attacks, crafted, x, y, seed, batch_size)


def ensemble_rates(
    networks: Mapping[str, nn.Module],
    attacks: Mapping[str, Attack],
    x: Tensor,
    y: Tensor,
    *,
    held_out: Sequence[str] | None = None,
    domains: Mapping[str, str] | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> list[TransferRate]:
    """Craft on the ensemble of all networks but one, and test on both (Xie 2020, section 3.4.3, table 3.3).

    The ensemble fuses the networks' logits with equal weights: :class:`~lightning_adv.attacks.LogitEnsemble`.

    Args:
        networks: See :func:`commonly_correct`.
        attacks: The attacks by name.
        x: See :func:`transfer_rates`.
        y: Labels (N,).
        held_out: The networks to hold out, one at a time; None takes each.
        domains: See :func:`commonly_correct`.
        seed: See :func:`transfer_rates`.
        batch_size: See :func:`transfer_rates`.

    Returns:
        For each attack and held-out network NAME two rows whose source is ``-NAME``: that of the target ``-NAME``, the
        ensemble itself (white-box), and that of the target ``NAME`` (black-box).

    Raises:
        UsageError: See :func:`transfer_rates`.

    Example:
        >>> import torch
        >>> from lightning_adv.attacks import FGSM
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> x = torch.rand(5, 3, 2, 2)
        >>> rates = ensemble_rates({"a": network, "b": network}, {"FGSM": FGSM(eps=1)}, x, network(x).argmax(1))
        >>> [(row.source, row.target) for row in rates][:2]
        [('-a', '-a'), ('-a', 'a')]
    """
    chosen = _chosen(attacks, networks, held_out, "held_out")
    through = _checked(networks, x, y, domains)
    x, y = _common(through, x, y, batch_size)
    crafted = []
    for name in chosen:
        source = f"-{name}"
        ensemble = LogitEnsemble([network for other, network in through.items() if other != name])
        crafted.append((source, ensemble, {source: ensemble, name: through[name]}))
    return _rates(attacks, crafted, x, y, seed, batch_size)


def add_rates(rates: Iterable[TransferRate]) -> list[TransferRate]:
    """Add up the rows of several chunks of images that are of one attack, source and target.

    Example:
        >>> first = TransferRate("FGSM", "a", "b", white_box=False, fooled=3, total=10)
        >>> add_rates([first, first._replace(fooled=6)])[0].rate
        0.45
    """
    sums: dict[tuple[str, str, str], TransferRate] = {}
    for row in rates:
        key = (row.attack, row.source, row.target)
        before = sums.get(key)
        if before is not None:
            row = row._replace(fooled=before.fooled + row.fooled, total=before.total + row.total)
        sums[key] = row
    return list(sums.values())


def _checked(
    networks: Mapping[str, nn.Module], x: Tensor, y: Tensor, domains: Mapping[str, str] | None
) -> dict[str, nn.Module]:
    """Return the networks through their domains, after one image has gone through each."""
    if len(networks) < 2:
        raise UsageError(f"networks must be at least two, for examples to transfer, got {len(networks)}.")
    check_images(x, y)
    if not len(x):
        raise UsageError("x must be at least one image, got none.")
    chosen = {} if domains is None else domains
    _check_names(chosen, networks, "domains")
    through = {name: in_domain(network, chosen.get(name)) for name, network in networks.items()}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, network in through.items():
        with held_still(network) as still, torch.no_grad():
            shapes[name] = tuple(still(x[:1]).shape)
        first = next(iter(shapes))
        if shapes[name] != shapes[first]:
            raise UsageError(
                "networks must give logits of one shape, got for one image "
                f"{shapes[first]} from {first!r} and {shapes[name]} from {name!r}."
            )
    return through


def _chosen(
    attacks: Mapping[str, Attack], networks: Mapping[str, nn.Module], names: Sequence[str] | None, argument: str
) -> Sequence[str]:
    if not attacks:
        raise UsageError("attacks must be at least one, got none.")
    chosen = list(networks) if names is None else names
    _check_names(chosen, networks, argument)
    return chosen


def _check_names(names: Iterable[str], networks: Mapping[str, nn.Module], argument: str) -> None:
    for name in names:
        if name not in networks:
            hint = did_you_mean(name, networks)
            raise UsageError(f"{argument} has {name!r}; the networks are {', '.join(networks)}.{hint}")


def _correct(networks: Mapping[str, nn.Module], x: Tensor, y: Tensor, batch_size: int) -> dict[str, Tensor]:
    return {name: correctly_classified(network, x, y, batch_size=batch_size) for name, network in networks.items()}


def _all(correct: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(correct.values())).all(0)


def _common(networks: Mapping[str, nn.Module], x: Tensor, y: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return the images that all networks classify correctly, and their labels."""
    correct = _correct(networks, x, y, batch_size)
    common = _all(correct)
    if not common.any():
        accuracies = ", ".join(f"{name} {100 * each.double().mean():.1f} %" for name, each in correct.items())
        raise UsageError(
            f"networks must have an image that all classify correctly, but of the {len(x)} images x there is none; "
            f"their accuracies are {accuracies}."
        )
    return x[common], y[common]


def _rates(
    attacks: Mapping[str, Attack],
    crafted: Sequence[tuple[str, nn.Module, Mapping[str, nn.Module]]],
    x: Tensor,
    y: Tensor,
    seed: int,
    batch_size: int,
) -> list[TransferRate]:
    """Attack each source, given by its name, its network and the targets that its examples are tested on."""
    rates: list[TransferRate] = []
    for attack in attacks:
        for source, attacked, targets in crafted:
            generator = torch.Generator().manual_seed(derive_seed(seed, attack, source))
            x_adv = attack_in_batches(attacks[attack], attacked, x, y, generator, batch_size)
            for target, network in targets.items():
                fooled = int((~correctly_classified(network, x_adv, y, batch_size=batch_size)).sum())
                rates.append(TransferRate(attack, source, target, source == target, fooled, len(y)))
    return rates
