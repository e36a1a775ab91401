"""The result of a run: one table on the terminal and ``results.json`` in the run folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer
from rich.table import Table

from lightning_adv.attacks import Attack
from lightning_adv.attacks.describe import attack_name
from lightning_adv.callbacks import Throughput
from lightning_adv.callbacks.observer import Observer
from lightning_adv.commands.shared.plugin_parts import taking_part
from lightning_adv.commands.shared.printing import plain_console
from lightning_adv.core.distances import tell_distance
from lightning_adv.core.files import to_json, write_whole
from lightning_adv.core.shares import Share
from lightning_adv.core.versions import versions
from lightning_adv.regimes import Regime
from lightning_adv.regimes.metrics import KINDS, length_of
from lightning_adv.regimes.training_data import dataset_name

_WEIGHTS = {
    "last": "none: the last weights, since there is no best checkpoint",
    "untrained": "none: the weights were not trained in this run",
}


def collect_results(
    trainer: Trainer,
    regime: Regime,
    data: LightningDataModule | None,
    metrics: Mapping[str, float],
    *,
    seed: Any,
    checkpoint: Mapping[str, Any] | None = None,
    weights: str = "last",
    given: Any = None,
) -> dict[str, Any]:
    """Gather what a reader needs to know of a run, as plain data.

    Args:
        trainer: The Trainer, after ``test``.
        regime: The module that was tested.
        data: The data module.
        metrics: What ``trainer.test`` returned for the data set.
        seed: The run's seed.
        checkpoint: The one whose weights were tested, by :func:`describe_checkpoint`; None if they come from none.
        weights: Which weights they are: ``"best"``, ``"last"``, ``"untrained"`` or ``"checkpoint"``.
        given: The configuration of the run.

    Returns:
        See docs/files.md. Accuracies are fractions, intervals 95 % Wilson, times seconds.
    """
    images = round(metrics["test/images"])
    results: dict[str, Any] = {
        "dataset": dataset_name(data),
        "network": regime.backbone.name,
        "regime": type(regime).__name__,
        "seed": seed if regime.seed is None else regime.seed,  # a resumed run has that of its checkpoint
        "data_seed": getattr(data, "seed", None),
        "checkpoint": None if checkpoint is None else dict(checkpoint),
        "weights": weights,
        "test_images": images,
        **_measured(metrics, images),
    }
    results["coverage"] = describe_coverage(trainer, regime, metrics)
    if regime.domains:
        results["inference_domain"] = regime.inference_domain
        results["domains"] = {domain: _measured(metrics, images, f"_{domain}") for domain in regime.domains}
    results["evaluation_attack"] = _describe_attack(regime.evaluation_attack)
    results["threat_model"] = regime.evaluation_attack.threat_model.to_plain()
    results["training"] = describe_training(regime)
    results["backbone"] = regime.backbone.to_config()["init_args"]
    clocks = [callback for callback in trainer.callbacks if isinstance(callback, Throughput) and callback.images]  # type: ignore[attr-defined]
    if clocks:
        results["epochs"] = trainer.current_epoch
        results["training_seconds"] = clocks[0].training_seconds + clocks[0].validation_seconds
        results["images_per_second"] = clocks[0].images_per_second
    observers = [callback for callback in trainer.callbacks if isinstance(callback, Observer)]  # type: ignore[attr-defined]
    if observers:
        results["observer_seconds"] = {each.name or type(each).__name__: each.seconds for each in observers}
    if regime.changes:
        results["changes"] = regime.changes
    results["precision"] = str(trainer.precision)
    results["device"] = str(trainer.strategy.root_device.type)
    results["processes"] = trainer.world_size
    results["versions"] = versions("torchvision", "lightning", "timm", "torchmetrics")
    objects = [*regime.modules(), data, *trainer.callbacks, *trainer.loggers]  # type: ignore[attr-defined]
    if plugins := taking_part(objects, given, regime.backbone.architecture()):
        results["plugins"] = plugins
    return results


def _measured(metrics: Mapping[str, float], images: int, suffix: str = "") -> dict[str, Any]:
    """The accuracies, their intervals and the losses, of the network or of one of its BatchNorm domains."""
    measured: dict[str, Any] = {}
    for kind in KINDS:
        # the metric is a share in fp32
        share = Share(round(metrics[f"test/{kind}_accuracy{suffix}"] * images), images)
        measured[f"{kind}_accuracy"], measured[f"{kind}_interval"] = share.accuracy, list(share.interval)
        measured[f"{kind}_loss"] = metrics[f"test/{kind}_loss{suffix}"]
    return measured


def describe_checkpoint(path: str | Path, content: Mapping[str, Any], folder: str | None) -> dict[str, Any]:
    """Say which checkpoint was tested.

    Args:
        path: The file.
        content: What is in it.
        folder: The run folder, from which the path is written down; None leaves it as it is.
    """
    relative = Path(path) if folder is None else Path(os.path.relpath(Path(path).resolve(), Path(folder).resolve()))
    return {"path": relative.as_posix(), "epoch": content["epoch"], "step": content["global_step"]}


def describe_coverage(trainer: Trainer, regime: Regime, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Say how much of the data the numbers are of: ``{"used": int, "available": int or None}`` for each part.

    Args:
        trainer: The Trainer, after ``test``, and after ``fit`` if the regime was trained.
        regime: The module that was tested.
        metrics: What ``trainer.test`` returned.
    """
    available = length_of(getattr(trainer.test_dataloaders, "dataset", None))
    told = {"test_images": (round(metrics["test/images"]), available)}
    if "test/classes" in metrics:
        told["test_classes"] = (round(metrics["test/classes"]), regime.num_classes)
    if trainer.global_step:
        told |= {"validation_images": (0, None)} | regime.coverage
    return {name: {"used": used, "available": available} for name, (used, available) in told.items()}


def _describe_attack(attack: Attack) -> dict[str, Any]:
    return {"name": attack_name(attack), **attack.to_config()}


def describe_training(regime: Regime) -> dict[str, Any]:
    """Return how a regime trains, as plain data: its attack, and every argument that is its own.

    Args:
        regime: The regime. ``retrained_blocks`` is there if blocks were chosen, that is after training, and
            ``reinitialized`` if they began with other than their pretrained values: which, and from which file.
    """
    attack = getattr(regime, "attack", None) if regime.adversarial else None
    described: dict[str, Any] = {"attack": None if attack is None else _describe_attack(attack)}
    objective = getattr(regime, "objective", None)
    if objective is not None and regime.adversarial:
        described["objective"] = objective.to_config()
    described["activation"] = regime.backbone.activation
    if blocks := getattr(regime, "retrained", None):
        described["retrained_blocks"] = [block.name for block in blocks]
    if (reinitialized := getattr(regime, "reinitialized", None)) is not None:
        described["reinitialized"] = reinitialized
    told = (
        *described,
        "backbone",
        "evaluation_attack",
        "num_classes",
        "compile",
        "compile_view",
        "channels_last",
        "objective",
        "activation",
    )
    settings = {name: value for name, value in regime.hparams.items() if name not in told and name[0] != "_"}
    return described | settings


def write_results(results: Mapping[str, Any], folder: Path) -> None:
    """Write ``results.json`` whole or not at all: a reader never sees half a file."""
    write_whole(folder / "results.json", to_json(results))


def print_results(results: Mapping[str, Any], folder: Path | None) -> None:
    """Print the table of one run."""
    table = Table(title=f"{results['regime']}: {results['network']} on {results['dataset']}", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # a path that is cut cannot be used
    table.add_row("seed", str(results["seed"]))
    for row in _coverage_rows(results):
        table.add_row(*row)
    name, comma, label = results["evaluation_attack"]["name"].partition(",")
    robust = f"{name} robust accuracy{comma}{label}"
    domains = results.get("domains", {})
    for domain, measured in domains.items():
        used = " (inference)" if domain == results["inference_domain"] else ""
        table.add_row(f"{domain} BatchNorm{used}", "")
        table.add_row("  clean accuracy", _percent(measured, "clean"))
        table.add_row(f"  {robust}", _percent(measured, "robust"))
    if not domains:
        table.add_row("clean accuracy", _percent(results, "clean"))
        table.add_row(robust, _percent(results, "robust"))
    threat = results["threat_model"]
    table.add_row(
        "threat model",
        "no ball of a norm" if threat is None else f"{threat['norm']}, eps {tell_distance(threat['eps'])}",
    )
    if tested := results["checkpoint"]:
        table.add_row("checkpoint", f"{tested['path']}, epoch {tested['epoch']}, step {tested['step']}")
    elif results.get("weights") in _WEIGHTS:
        table.add_row("checkpoint", _WEIGHTS[results["weights"]])
    if "training_seconds" in results:
        table.add_row("training time", f"{results['training_seconds']:.1f} s")
        table.add_row("training speed", f"{results['images_per_second']:,.0f} images/s")
    versions = results["versions"]
    table.add_row("versions", ", ".join(f"{name} {versions[name]}" for name in ("lightning-adv", "torch", "lightning")))
    if folder is not None:
        table.add_row("run folder", str(folder))
    plain_console().print(table)


def _coverage_rows(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the numbers are of: the test images, and what else was not looked at in full."""
    coverage = results.get("coverage", {})
    for name in ("test_images", "test_classes", "validation_images", "training_batches"):
        used, available = (coverage.get(name, {}).get(key) for key in ("used", "available"))
        part = used is not None and available is not None and used < available
        if name == "test_images" and not part:
            yield "test images", f"{results['test_images']:,}"
        elif part:
            yield name.replace("_", " "), f"{used:,} of {available:,}"


def _percent(measured: Mapping[str, Any], kind: str) -> str:
    low, high = measured[f"{kind}_interval"]
    return f"{100 * measured[f'{kind}_accuracy']:.1f} %  (95 %: {100 * low:.1f} to {100 * high:.1f} %)"
