"""The result of a run: one table on the terminal and ``results.json`` in the run folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from rich.console import Console
from rich.table import Table

from lightning_adv._version import __version__
from lightning_adv.analysis.intervals import wilson_interval
from lightning_adv.attacks import Attack
from lightning_adv.callbacks import Throughput
from lightning_adv.regimes import Regime


def collect_results(
    trainer: Trainer, regime: Regime, data: LightningDataModule | None, metrics: Mapping[str, float], seed: Any
) -> dict[str, Any]:
    """Gather what a reader needs to know of a run, as plain data.

    Args:
        trainer: The Trainer, after ``test``.
        regime: The module that was tested.
        data: The data module.
        metrics: What ``trainer.test`` returned for the data set.
        seed: The run's seed.

    Returns:
        See the README, "What a run leaves behind". Accuracies are fractions, intervals 95 % Wilson, times seconds.
    """
    images = round(metrics["test/images"])
    results: dict[str, Any] = {
        "dataset": getattr(data, "name", type(data).__name__),
        "network": regime.backbone.name,
        "regime": type(regime).__name__,
        "seed": seed if regime.seed is None else regime.seed,  # a resumed run has that of its checkpoint
        "test_images": images,
    }
    for kind in ("clean", "robust"):
        correct = round(metrics[f"test/{kind}_accuracy"] * images)  # the metric is a share in fp32
        results[f"{kind}_accuracy"] = correct / images
        results[f"{kind}_interval"] = list(wilson_interval(correct, images))
        results[f"{kind}_loss"] = metrics[f"test/{kind}_loss"]
    results["evaluation_attack"] = {
        "name": attack_name(regime.evaluation_attack),
        **regime.evaluation_attack.to_config(),
    }
    clocks = [callback for callback in trainer.callbacks if isinstance(callback, Throughput) and callback.images]  # type: ignore[attr-defined]
    if clocks:
        results["epochs"] = trainer.current_epoch
        results["training_seconds"] = clocks[0].training_seconds + clocks[0].validation_seconds
        results["images_per_second"] = clocks[0].images_per_second
    results["precision"] = str(trainer.precision)
    results["device"] = str(trainer.strategy.root_device.type)
    results["processes"] = trainer.world_size
    packages = ("torchvision", "lightning", "timm", "torchmetrics")
    results["versions"] = {"lightning-adv": __version__, "python": platform.python_version()}
    results["versions"]["torch"] = str(torch.__version__)  # with the build: +cpu, +cu130
    results["versions"] |= {name: version(name) for name in packages}
    return results


def attack_name(attack: Attack) -> str:
    """Return the attack's name as papers write it: PGD-20.

    Example:
        >>> from lightning_adv.attacks import PGD
        >>> attack_name(PGD(steps=20))
        'PGD-20'
    """
    steps = getattr(attack, "steps", 1)
    restarts = getattr(attack, "restarts", 1)
    name = type(attack).__name__ + (f"-{steps}" if steps > 1 else "")
    return name + (f" × {restarts} restarts" if restarts > 1 else "")


def write_results(results: Mapping[str, Any], folder: Path) -> None:
    """Write ``results.json`` whole or not at all: a reader never sees half a file."""
    unfinished = folder / "results.json.part"
    unfinished.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    unfinished.replace(folder / "results.json")


def print_results(results: Mapping[str, Any], folder: Path | None) -> None:
    """Print the table of one run."""
    table = Table(title=f"{results['regime']}: {results['network']} on {results['dataset']}", show_header=False)
    table.add_row("seed", str(results["seed"]))
    table.add_row("test images", f"{results['test_images']:,}")
    table.add_row("clean accuracy", _percent(results, "clean"))
    attack, config = results["evaluation_attack"], results["evaluation_attack"]["init_args"]
    threat = f"{config['norm']['class_path'].rpartition('.')[2]}, eps {config['eps']:.4g}" if "norm" in config else ""
    table.add_row(f"{attack['name']} robust accuracy", _percent(results, "robust"))
    table.add_row("threat model", threat)
    if "training_seconds" in results:
        table.add_row("training time", f"{results['training_seconds']:.1f} s")
        table.add_row("training speed", f"{results['images_per_second']:,.0f} images/s")
    versions = results["versions"]
    table.add_row("versions", ", ".join(f"{name} {versions[name]}" for name in ("lightning-adv", "torch", "lightning")))
    if folder is not None:
        table.add_row("run folder", str(folder))
    Console().print(table)


def _percent(results: Mapping[str, Any], kind: str) -> str:
    low, high = results[f"{kind}_interval"]
    return f"{100 * results[f'{kind}_accuracy']:.1f} %  (95 %: {100 * low:.1f} to {100 * high:.1f} %)"
