"""``lightning-adv transfer``: do adversarial examples of one network fool another?"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from rich.table import Table
from torch import nn

from lightning_adv.attacks import Attack
from lightning_adv.attacks.distance import parse_distance
from lightning_adv.commands.evaluate.output import save_figure
from lightning_adv.commands.shared.devices import make_fabric
from lightning_adv.commands.shared.images import TestImages
from lightning_adv.commands.shared.networks import load_networks
from lightning_adv.commands.shared.plugin_parts import taking_part
from lightning_adv.commands.shared.presets import PresetCommand
from lightning_adv.commands.shared.printing import plain_console
from lightning_adv.commands.shared.progress import tracked
from lightning_adv.commands.shared.run_folder import writing_alone
from lightning_adv.commands.shared.stopping import stoppable
from lightning_adv.commands.shared.telling import told_in_one_line
from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import clear_unfinished, to_json, write_whole
from lightning_adv.core.seeds import derive_seed
from lightning_adv.core.versions import versions
from lightning_adv.evaluation import Plan, make_plan
from lightning_adv.evaluation.transfer.figures import plot_ensemble_transfer, plot_transfer
from lightning_adv.evaluation.transfer.rates import (
    TransferRate,
    add_rates,
    commonly_correct,
    ensemble_rates,
    transfer_rates,
)
from lightning_adv.regimes.training_data import num_classes_of

_RESULT = "transfer.json"
NONE_IN_COMMON = "there is no image that all of them classify correctly."
"""What is told where nothing can be attacked, though the settings, the networks and the images fit."""


@dataclass
class TransferSettings:
    """Which networks are attacked and tested, and how.

    Args:
        networks: The networks by name, as in {standard: FILE, madry: FILE}: checkpoints of runs, or what
            ``lightning-adv export`` wrote. Each is a source and a target.
        eps: Radius of the attacks' ball.
        norm: Its norm.
        data: The data set, whose test images are attacked; that of the first network's run if it is not given.
        attacks: The attacks. They are given at any eps, and moved to the one above.
        ensembles: Also attack the ensemble of all networks but one, for each.
        domains: The BatchNorm domain by network; the one that the regime predicts with where none is given.
        images: How many images of the test set, drawn once for all; all if it is not given.
        batch_size: Images that are attacked at a time. The attacks' noise depends on it.
        seed: Seed of the attacks' noise.
        accelerator: What to compute on: auto, cpu, gpu, ...
        output: The folder to write; ``-o`` for short.
        overwrite: Replace what is there.
    """

    networks: dict[str, str]
    eps: float | str
    norm: str = "linf"
    data: LightningDataModule | None = None
    attacks: list[Attack] = field(default_factory=list)
    ensembles: bool = True
    domains: dict[str, str] = field(default_factory=dict)
    images: int | None = None
    batch_size: int = 256
    seed: int = 0
    accelerator: str = "auto"
    output: str = "transfer"
    overwrite: bool = False


TRANSFER = PresetCommand(
    TransferSettings,
    "transfer",
    "Craft adversarial examples on each network, and on the ensemble of all but one, and test them on the others.",
    default="transfer/fgsm_family",
    what=("attacks",),
    checkpoint=lambda parsed: next(iter(parsed.networks.values()), None),
)


def run_transfer(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: The command line after ``transfer``.

    Raises:
        SystemExit: With status 1 for something that cannot be measured, told in one line; 2 where the arguments do not
            parse; 130 after Ctrl-C.
    """
    with (
        told_in_one_line("lightning-adv transfer"),
        stoppable("Stopped. The same command again starts from the beginning."),
        ExitStack() as held,
    ):
        _transfer(*TRANSFER.settings(arguments), held)


def _transfer(settings: TransferSettings, plain: dict[str, Any], held: ExitStack) -> None:
    _check(settings)
    folder = Path(settings.output)
    held.enter_context(writing_alone(folder))
    result = folder / _RESULT
    if result.exists() and not settings.overwrite:
        raise UsageError(f"output: {result} is there already: give another --output, or --overwrite.")
    clear_unfinished(folder)
    plan = make_plan(settings.attacks, {settings.norm: [settings.eps]}, seed=settings.seed)
    attacks = _named(plan)
    images, networks, facts = _load(settings, attacks)
    device = make_fabric(settings.accelerator, 1).device
    for network in networks.values():
        network.to(device)
    singles, ensembles, common = _rates(settings, images, networks, attacks, device)
    _write(folder, singles, ensembles)
    results = {
        "images": images.count,
        "classified_correctly_by_all": common,
        "norm": settings.norm,
        "eps": parse_distance(settings.eps, "eps"),
        "attacks": {name: attack.to_config() for name, attack in attacks.items()},
        "left_out": list(plan.left_out),
        "networks": facts,
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "rates": [_plain(row) for row in singles],
        "ensemble_rates": [_plain(row) for row in ensembles],
        "versions": versions("torchvision", "lightning", "timm"),
    }
    objects = [settings.data, *(module for network in networks.values() for module in network.modules())]
    if plugins := taking_part(objects, plain, facts):
        results["plugins"] = plugins
    write_whole(folder / _RESULT, to_json(results))
    _print(singles, ensembles, list(networks), common, images.count)
    for name in plan.left_out:
        plain_console().print(f"Left out, since eps is of another norm: {name}")
    plain_console().print(f"Everything is in {os.path.relpath(folder)}")


def _named(plan: Plan) -> dict[str, Attack]:
    """Return the attacks by name: in the ball, and those without one under names of their own."""
    attacks: dict[str, Attack] = {}
    for case in plan.cases:
        attacks[f"{case.name} ({case.threat})" if case.name in attacks else case.name] = case.attack
    return attacks


def _check(settings: TransferSettings) -> None:
    if len(settings.networks) < 2:
        raise UsageError(f"networks must be at least two, for examples to transfer, got {len(settings.networks)}.")
    ensembles = [name for name in settings.networks if name.startswith("-")]
    if ensembles:
        raise UsageError(f"networks has {ensembles[0]!r}: names with a - in front are those of ensembles.")
    if settings.batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, got {settings.batch_size}.")
    unknown = [name for name in settings.domains if name not in settings.networks]
    if unknown:
        raise UsageError(f"domains has {unknown[0]!r}; the networks are {', '.join(settings.networks)}.")
    if settings.data is None:
        raise UsageError(
            "data must be given: the first network does not lie in the folder of a run that names its data."
        )


def _load(
    settings: TransferSettings, attacks: Mapping[str, Attack]
) -> tuple[TestImages, dict[str, nn.Module], dict[str, dict[str, object]]]:
    """Read the data and the networks, and check that they and the attacks fit.

    Raises:
        UsageError: They do not.
    """
    if settings.data is None:  # _check has seen it
        raise UsageError("data must be given.")
    images = TestImages(settings.data, settings.batch_size, settings.images)
    loaded = load_networks(
        settings.networks,
        images,
        num_classes=num_classes_of(settings.data),
        domains=settings.domains,
        attacks=attacks.values(),
    )
    networks = {name: each.network for name, each in loaded.items()}
    facts = {name: each.facts for name, each in loaded.items()}
    return images, networks, facts


def _rates(
    settings: TransferSettings,
    images: TestImages,
    networks: dict[str, nn.Module],
    attacks: dict[str, Attack],
    device: torch.device,
) -> tuple[list[TransferRate], list[TransferRate], int]:
    """Return the rates of single sources and of ensembles, and how many images all networks classify correctly."""
    singles: list[TransferRate] = []
    ensembles: list[TransferRate] = []
    common = 0
    for chunk in tracked(images.read(range(len(images))), "attacking", len(images)):
        x, y = chunk.x.float().to(device), chunk.y.to(device)
        chosen = commonly_correct(networks, x, y)
        if not chosen.any():
            continue
        common += int(chosen.sum())
        x, y, seed = x[chosen], y[chosen], derive_seed(settings.seed, chunk.number)
        singles += transfer_rates(networks, attacks, x, y, seed=seed, batch_size=settings.batch_size)
        if settings.ensembles:
            ensembles += ensemble_rates(networks, attacks, x, y, seed=seed, batch_size=settings.batch_size)
    if not common:
        raise UsageError(f"networks: {NONE_IN_COMMON}")
    return add_rates(singles), add_rates(ensembles), common


def _plain(row: TransferRate) -> dict[str, object]:
    return {**row._asdict(), "rate": row.rate, "interval": list(row.interval)}


def _write(folder: Path, singles: Sequence[TransferRate], ensembles: Sequence[TransferRate]) -> None:
    """Write the table and the heat maps."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*TransferRate._fields, "rate", "low", "high"])
    rows.writerows([*row, row.rate, *row.interval] for row in [*singles, *ensembles])
    write_whole(folder / "transfer.csv", text.getvalue())
    figures = {"transfer.png": plot_transfer(singles)}
    if ensembles:
        figures["transfer_ensembles.png"] = plot_ensemble_transfer(ensembles)
    for name, figure in figures.items():
        save_figure(figure, folder / name)
    if not ensembles:  # of the results that these replace
        (folder / "transfer_ensembles.png").unlink(missing_ok=True)


def _print(
    singles: Sequence[TransferRate], ensembles: Sequence[TransferRate], names: Sequence[str], common: int, count: int
) -> None:
    table = Table(title=f"Success rates (%) on {common:,} of {count:,} images, which all networks classify correctly")
    for column in ("crafted on", "attack"):
        table.add_column(column)
    for name in names:
        table.add_column(f"fools {name}", justify="right")
    if ensembles:
        table.add_column("fools the ensemble", justify="right")
    for rows in (singles, ensembles):
        table.add_section()
        for source in dict.fromkeys(row.source for row in rows):
            for attack in dict.fromkeys(row.attack for row in rows):
                cells = {row.target: row for row in rows if (row.source, row.attack) == (source, attack)}
                shown = [_cell(cells.get(name)) for name in names]
                if ensembles:
                    shown.append(_cell(cells.get(source) if source not in names else None))
                crafted = f"all but {source[1:]}" if source not in names else source
                table.add_row(crafted, attack, *shown)
    console = plain_console()
    console.print(table)
    console.print("* white-box: crafted on that network itself")


def _cell(row: TransferRate | None) -> str:
    return "" if row is None else f"{100 * row.rate:.1f}{'*' if row.white_box else ' '}"
