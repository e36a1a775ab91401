"""The command: checks first, then suspicions, then the attacks, chunk by chunk, then what they come to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from lightning_adv.attacks import Attack
from lightning_adv.commands.evaluate.corruptions import check_corruptible, read_baseline
from lightning_adv.commands.evaluate.folder import EvaluationFolder
from lightning_adv.commands.evaluate.output import print_summary, to_plain, write_figures, write_verdicts
from lightning_adv.commands.evaluate.settings import Settings, parse_settings
from lightning_adv.commands.evaluate.suspicions import is_suspicion, look, look_at_verdicts, print_suspicions
from lightning_adv.commands.shared.devices import make_fabric
from lightning_adv.commands.shared.images import TestImages, in_precision_of
from lightning_adv.commands.shared.networks import LoadedNetwork, check_takes, load_network
from lightning_adv.commands.shared.plugin_parts import taking_part
from lightning_adv.commands.shared.processes import keep_together
from lightning_adv.commands.shared.progress import shown_progress
from lightning_adv.commands.shared.run_folder import writing_alone
from lightning_adv.commands.shared.stopping import stoppable
from lightning_adv.commands.shared.telling import told_in_one_line
from lightning_adv.core.errors import UsageError
from lightning_adv.core.recipe import NotImportedError
from lightning_adv.core.versions import versions
from lightning_adv.evaluation import ChunkVerdicts, Plan, evaluate_chunk, make_plan, summarise
from lightning_adv.evaluation.fitting import leave_out_unfit
from lightning_adv.evaluation.plan import BATCHES
from lightning_adv.nn.weights.repositories import HUB
from lightning_adv.regimes.checks import check_precision
from lightning_adv.regimes.training_data import dataset_name, num_classes_of

_NOT_COMPARED = ("accelerator", "devices", "output", "name", "overwrite", "config", "checkpoint", "trust")
"""Settings that no number depends on; the checkpoint is told by its checksum."""


def run_evaluate(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: The command line after ``evaluate``.

    Raises:
        SystemExit: With status 1 for something that cannot be evaluated, told in one line; 2 where the arguments do
            not parse; 130 after Ctrl-C.
    """
    with (
        told_in_one_line("lightning-adv evaluate"),
        stoppable("Stopped. The same command again goes on from here."),
        ExitStack() as held,
    ):
        settings, plain = parse_settings(arguments)
        _evaluate(settings, plain, held)


def _evaluate(settings: Settings, plain: dict[str, Any], held: ExitStack) -> None:
    loaded, images = _load(settings)
    plan, baseline = _plan(settings, loaded, images), read_baseline(settings.corruptions)
    folder = EvaluationFolder(settings.folder())
    told = {name: value for name, value in plain.items() if name not in _NOT_COMPARED}
    network = {name: value for name, value in loaded.facts.items() if name != "checkpoint"}  # a path, told by its sum
    told |= {"eps": _radii(plan), "network": network, "images": images.count}
    told["versions"] = versions("torchvision", "lightning", "timm")
    if plugins := taking_part([settings.data, *loaded.network.modules()], plain, loaded.facts, loaded.regime):
        told["plugins"] = plugins
    fabric = make_fabric(settings.accelerator, settings.devices, settings.precision)
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        held.enter_context(writing_alone(folder.path))
        if folder.begin(told, overwrite=settings.overwrite):
            print(f"Going on with the evaluation in {folder.path}", flush=True)
    fabric.launch()
    if fabric.world_size > 1:
        launched = getattr(fabric.strategy.launcher, "procs", [])
        keep_together(launched, lambda: " The same command again goes on from here.")
    loaded.network.to(fabric.device)
    suspicions: list[dict[str, Any]] = []
    if fabric.is_global_zero:
        count = settings.suspicion_images
        with fabric.autocast():
            suspicions = folder.remember(
                "suspicions", lambda: look(loaded.network, images, plan, count, fabric.device), is_suspicion
            )
        print_suspicions(suspicions, looked=False)  # before the attacks, which may take hours
    _run_chunks(fabric, loaded, images, plan, folder, settings.batch_size)
    fabric.barrier()
    if not fabric.is_global_zero:
        return
    chunks = folder.read_all(len(images))
    summary = summarise(plan, chunks)
    write_verdicts(plan, chunks, folder.path / "verdicts.csv")
    write_figures(loaded.name, summary, folder.path)
    suspicions += look_at_verdicts(plan, chunks)
    told["network"] = loaded.facts
    told = {"suspicions": suspicions, "settings": told, "device": fabric.device.type, "processes": fabric.world_size}
    folder.finish({"name": settings.name, **to_plain(plan, summary, baseline), **told})
    print_summary(f"{loaded.name} on {_dataset(settings)}", plan, summary, baseline, folder.path)
    print_suspicions(suspicions, looked=bool(settings.suspicion_images and _radii(plan)))


def _load(settings: Settings) -> tuple[LoadedNetwork, TestImages]:
    """Read the network and the data, and check that they fit.

    Raises:
        UsageError: They do not, or an argument is not allowed.
    """
    check_precision(settings.precision, argument="precision")
    for name in ("batch_size", "images"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}.")
    if settings.suspicion_images < 0:
        raise UsageError(f"suspicion_images must be at least 0, got {settings.suspicion_images}.")
    named = settings.checkpoint
    if named is not None and not named.startswith(HUB) and not os.path.exists(Path(named).expanduser()):
        raise UsageError(f"checkpoint: there is no file {named}.")
    if settings.data is None:
        raise UsageError("data must be given: the checkpoint does not lie in the folder of a run that names its data.")
    images = TestImages(settings.data, BATCHES * settings.batch_size, settings.images)
    classes = num_classes_of(settings.data)
    loaded = load_network(settings.checkpoint, settings.backbone, num_classes=classes, domain=settings.domain)
    check_takes(loaded, images)
    if settings.precision.startswith("64"):
        loaded = replace(loaded, network=loaded.network.double())
    return loaded, images


def _plan(settings: Settings, loaded: LoadedNetwork, images: TestImages) -> Plan:
    """Return what to run, after a look at whether these images and classes allow it.

    Raises:
        UsageError: They do not, or an argument is not allowed.
    """
    check_corruptible(settings.corruptions, images.shape, settings.seed)
    plan = make_plan(
        settings.attacks,
        _eps(settings, loaded),
        steps_curve=settings.steps_curve,
        corruptions=settings.corruptions,
        exhaustive=settings.exhaustive,
        seed=settings.seed,
    )
    if not plan.cases:
        return plan
    x, y = in_precision_of(loaded.network, torch.zeros(1, *images.shape)), torch.zeros(1, dtype=torch.long)
    return leave_out_unfit(plan, loaded.network, x, y, num_classes=loaded.num_classes)


def _eps(settings: Settings, loaded: LoadedNetwork) -> dict[str, list[float | str]]:
    """Return the radii that are given, or the one that the checkpoint's run was tested at.

    Raises:
        UsageError: It was tested at none.
    """
    if settings.eps is not None or not settings.attacks:
        return {} if settings.eps is None else settings.eps
    attack = loaded.evaluation_attack
    try:
        threat = None if attack is None else Attack.from_config(attack).threat_model
    except NotImportedError as error:
        raise UsageError(
            f"eps must be given, as in --eps.linf [4/255,8/255]. Of the checkpoint's attack: {error}"
        ) from None
    if threat is None or threat.norm is None or threat.eps is None:
        raise UsageError("eps must be given, as in --eps.linf [4/255,8/255]: the checkpoint names no radius.")
    return {threat.norm: [threat.eps]}


def _radii(plan: Plan) -> dict[str, list[float]]:
    radii: dict[str, list[float]] = {}
    for threat in plan.threats:
        if threat.norm is not None and threat.eps is not None:
            radii.setdefault(threat.norm, []).append(threat.eps)
    return radii


def _dataset(settings: Settings) -> str:
    return str(dataset_name(settings.data))


def _run_chunks(
    fabric: Fabric,
    loaded: LoadedNetwork,
    images: TestImages,
    plan: Plan,
    folder: EvaluationFolder,
    batch_size: int,
) -> None:
    """Evaluate the chunks of this process; what is known of them is written after each attack."""
    network = loaded.network
    numbers = range(fabric.global_rank, len(images), fabric.world_size)
    curve = [min(max(plan.curve_images - number * images.size(0), 0), images.size(number)) for number in numbers]
    passes = len(plan.cases) + (0 if plan.corruptions is None else len(plan.corruptions.chosen))
    work = passes * sum(images.size(number) for number in numbers) + len(plan.curves) * sum(curve)
    with shown_progress("attacking", work, shown=fabric.is_global_zero) as advance:

        def after_case(chunk: ChunkVerdicts, samples: int) -> None:
            folder.write(chunk)
            advance(samples)

        for chunk in images.read(numbers):
            x, y = in_precision_of(network, chunk.x).to(fabric.device), chunk.y.to(fabric.device)
            with fabric.autocast():
                evaluate_chunk(
                    network,
                    x,
                    y,
                    plan,
                    number=chunk.number,
                    first=chunk.first,
                    index=chunk.indices,
                    batch_size=batch_size,
                    known=folder.read(chunk.number),
                    after_case=after_case,
                )
