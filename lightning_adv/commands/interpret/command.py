"""The command: checks first, then section after section, then the files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from rich.console import Console

from lightning_adv.attacks import Attack
from lightning_adv.attacks.distance import parse_distance
from lightning_adv.commands.interpret.settings import INTERPRET, InterpretSettings
from lightning_adv.commands.shared.devices import make_fabric
from lightning_adv.commands.shared.images import TestImages
from lightning_adv.commands.shared.networks import LoadedNetwork, load_networks
from lightning_adv.commands.shared.plugin_parts import taking_part
from lightning_adv.commands.shared.progress import shown_progress
from lightning_adv.commands.shared.run_folder import writing_alone
from lightning_adv.commands.shared.stopping import stoppable
from lightning_adv.commands.shared.telling import told_in_one_line
from lightning_adv.core.distances import tell_distance
from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import clear_unfinished, to_json, write_whole
from lightning_adv.core.reading import read_json
from lightning_adv.core.threat_model import ThreatModel
from lightning_adv.core.versions import versions
from lightning_adv.evaluation.plan import fit_attack
from lightning_adv.interpretation.interpreting import SectionResult, check_names, interpret
from lightning_adv.interpretation.written import FIGURES, write_sections
from lightning_adv.nn.weights.load import say
from lightning_adv.regimes.training_data import class_names_of, num_classes_of

RESULT = "interpretation.json"

_AT_MOST = 1000
"""Test images where their number is not given: the examples of all networks and attacks are kept at hand."""
_NOT_COMPARED = ("accelerator", "output", "overwrite", "config", "trust")
_WRITTEN = re.compile(rf"(\w+\.csv|{FIGURES}/\w[^/\\]*\.png)")
_LIBRARIES = ("torchvision", "lightning", "timm", "scikit-learn", "captum")


def run_interpret(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: The command line after ``interpret``.

    Raises:
        SystemExit: With status 1 for something that cannot be looked at, told in one line; 2 where the arguments do not
            parse; 130 after Ctrl-C.
    """
    with (
        told_in_one_line("lightning-adv interpret"),
        stoppable("Stopped. The same command again starts from the beginning."),
        ExitStack() as held,
    ):
        _interpret(*INTERPRET.settings(arguments), held)


def _interpret(settings: InterpretSettings, plain: dict[str, Any], held: ExitStack) -> None:
    attacks = _check(settings)
    folder = Path(settings.output)
    held.enter_context(writing_alone(folder))
    result = folder / RESULT
    if result.exists() and not settings.overwrite:
        raise UsageError(f"output: {result} is there already: give another --output, or --overwrite.")
    for table in (folder / f"{section.name}.csv" for section in settings.sections):
        if table.exists() and not result.exists() and not settings.overwrite:
            raise UsageError(
                f"output: {table} is there, and no {RESULT} that says of what: give another --output, or --overwrite."
            )
    clear_unfinished(folder)
    images, loaded = _load(settings, attacks)
    device = make_fabric(settings.accelerator, 1).device
    x, y = images.first(images.count)
    found = interpret(
        {name: each.network.to(device) for name, each in loaded.items()},
        x.float(),
        y,
        attacks,
        settings.sections,
        seed=settings.seed,
        batch_size=settings.batch_size,
        files=images.names(images.indices, y),
        class_names=class_names_of(settings.data),
        progress=shown_progress,
    )
    told = {
        "images": images.count,
        "image_shape": list(images.shape),
        "attacks": {name: attack.to_config() for name, attack in attacks.items()},
        "networks": {name: each.facts for name, each in loaded.items()},
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "device": device.type,
        "settings": {name: value for name, value in plain.items() if name not in _NOT_COMPARED},
        "versions": _versions(),
    }
    objects = [
        settings.data,
        *settings.sections,
        *(part for each in loaded.values() for part in each.network.modules()),
    ]
    if plugins := taking_part(objects, plain, told["networks"]):
        told["plugins"] = plugins
    if settings.overwrite:
        _clear(folder, result)
    told["sections"] = write_sections(found, folder)
    write_whole(result, to_json(told))
    _print(found, folder)


def _check(settings: InterpretSettings) -> dict[str, Attack]:
    """Check the settings, and return the attacks as they are run.

    Raises:
        UsageError: An argument is not allowed.
    """
    for name in ("batch_size", "images"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}.")
    check_names(_sources(settings), settings.attacks, settings.sections, settings.domains)
    if settings.data is None:
        raise UsageError(
            "data must be given: the first network does not lie in the folder of a run that names its data."
        )
    for attack in settings.attacks.values():
        attack.check_available()
    if settings.eps is None:
        return settings.attacks
    eps = parse_distance(settings.eps, "eps")
    return {
        name: fit_attack(attack, ThreatModel(norm, eps) if (norm := attack.threat_model.norm) else attack.threat_model)
        for name, attack in settings.attacks.items()
    }


def _sources(settings: InterpretSettings) -> dict[str, str | None]:
    """Return the checkpoints by network; None for one whose backbone brings its weights."""
    return {**settings.networks, **{name: None for name in settings.backbones if name not in settings.networks}}


def _load(settings: InterpretSettings, attacks: Mapping[str, Attack]) -> tuple[TestImages, dict[str, LoadedNetwork]]:
    """Read the data and the networks, and check that they and the attacks fit.

    Raises:
        UsageError: They do not.
    """
    if settings.data is None:  # _check has seen it
        raise UsageError("data must be given.")
    images = TestImages(settings.data, settings.batch_size, settings.images, at_most=_AT_MOST)
    loaded = load_networks(
        _sources(settings),
        images,
        num_classes=num_classes_of(settings.data),
        domains=settings.domains,
        backbones=settings.backbones,
        attacks=attacks.values(),
    )
    for name, attack in attacks.items():
        _tell_other_radius(name, attack, loaded)
    return images, loaded


def _tell_other_radius(name: str, attack: Attack, loaded: Mapping[str, LoadedNetwork]) -> None:
    """Say where an attack has another radius than a network's run was tested at: that of another data set, mostly."""
    threat = attack.threat_model
    for network, each in loaded.items():
        with suppress(UsageError):  # an attack of a package that nobody has imported: its radius is not known
            tested = Attack.from_config(each.evaluation_attack).threat_model if each.evaluation_attack else None
            if tested is None or tested.norm != threat.norm or None in (tested.eps, threat.eps):
                continue
            own, given = (tell_distance(float(eps)) for eps in (tested.eps or 0, threat.eps or 0))
            if own != given:
                say(f"attacks: {name} has eps {given}, and {network} was tested at {own}: --eps moves all.", warn=True)


def _clear(folder: Path, result: Path) -> None:
    """Remove the tables and pictures of the interpretation that this one replaces."""
    if not result.exists():
        return
    # a file that somebody else has changed: then nothing is known of them
    with suppress(UsageError, AttributeError, KeyError, TypeError):
        for section in read_json(result)["sections"].values():
            for path in (section["table"], *section["figures"].values()):
                if _WRITTEN.fullmatch(path):
                    (folder / path).unlink(missing_ok=True)
    result.unlink()  # or after a kill it would describe tables of other settings


def _versions() -> dict[str, str]:
    told: dict[str, str] = {}
    for library in _LIBRARIES:
        with suppress(PackageNotFoundError):  # those of the extra
            told |= versions(library)
    return told


def _print(found: Mapping[str, SectionResult], folder: Path) -> None:
    console = Console(markup=False, emoji=False, highlight=False)
    for name, result in found.items():
        pictures = f", {len(result.figures)} pictures" if result.figures else ""
        console.print(f"{name}: {len(result.findings):,} numbers{pictures}")
    console.print(f"Everything is in {os.path.relpath(folder)}; lightning-adv report shows it.")
