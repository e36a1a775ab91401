"""Run folders as training leaves them, in a second: the names and files are real, the numbers follow plain formulas."""

from __future__ import annotations

import json
import math
import random
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import yaml

from lightning_adv.core.shares import wilson_interval
from lightning_adv.core.table import Row, append_rows

RESNET18 = ["bn1", *(f"layer{k}.{b}.bn{n}" for k in range(1, 5) for b in range(2) for n in (1, 2))]
RESNET18 += [f"layer{k}.0.downsample.1" for k in range(2, 5)]
STEPS = 50  # of an epoch
TABLES = ("bn_drift", "bn_gap", "smoothness", "local_response")


def write_run(
    folder: Path,
    *,
    seed: int = 0,
    epochs: int = 6,
    of: int | None = None,
    domains: Sequence[str] = (),
    weight_decay: float = 5e-4,
    layers: Sequence[str] = ("bn1", "layer1.0.bn1", "layer2.0.bn1"),
    channels: int = 5,
    analyses: Sequence[str] = TABLES,
) -> Path:
    """Write a run of `epochs` epochs. With `of` it goes on: it has no results, and its tables end in half a line."""
    folder.mkdir(parents=True)
    chance = random.Random(seed)
    _write_config(folder, seed, epochs if of is None else of, domains, weight_decay)
    write_metrics(folder, epochs, domains, weight_decay, chance)
    if of is None:
        _write_results(folder, seed, epochs, domains, weight_decay)
    writers = {"bn_drift": _drift, "bn_gap": _gap, "smoothness": _smoothness, "local_response": _response}
    for name in analyses:
        rows: list[Row] = []
        for epoch in range(epochs):
            found = writers[name](
                epoch / max(1, epochs - 1), list(domains) or [""], layers, channels, weight_decay, seed
            )
            rows += [Row(epoch, STEPS * (epoch + 1) - 1, *key, value) for key, value in found]
        append_rows(folder / "analyses" / f"{name}.csv", rows)
        if of is not None:
            with (folder / "analyses" / f"{name}.csv").open("a") as file:
                file.write(f"{epochs},{STEPS * (epochs + 1) - 1},bn1")
    (folder / "figures").mkdir()
    (folder / "figures" / "training_curves.png").write_bytes(png(shade=40 * (seed % 6)))
    return folder


def png(shade: int = 0, width: int = 60, height: int = 20) -> bytes:
    """Return a grey picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = (b"\x00" + bytes([shade]) * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def _write_config(folder: Path, seed: int, epochs: int, domains: Sequence[str], weight_decay: float) -> None:
    pgd = {"class_path": "lightning_adv.attacks.PGD", "init_args": {"eps": 0.2, "steps": 7, "step_size": 0.05}}
    regime = "AdvPropTraining" if domains else "MadryTraining"
    config = {
        "seed_everything": seed,
        "trainer": {
            "max_epochs": epochs,
            "precision": None,
            "logger": [{"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"name": folder.name}}],
            "callbacks": [{"class_path": "lightning_adv.callbacks.BatchNormDrift", "init_args": {"channels": 5}}],
        },
        "model": {
            "class_path": f"lightning_adv.regimes.{regime}",
            "init_args": {
                "backbone": {"class_path": "Backbone", "init_args": {"name": "resnet18", "mean": [0.3053]}},
                "attack": pgd,
                "evaluation_attack": {**pgd, "init_args": {**pgd["init_args"], "steps": 20}},
                "optimizer": {
                    "class_path": "torch.optim.SGD",
                    "init_args": {"lr": 0.05, "weight_decay": weight_decay, "nesterov": False},
                },
            },
        },
        "data": {"class_path": "lightning_adv.data.DigitsDataModule", "init_args": {"batch_size": 64}},
        "ckpt_path": None,
    }
    (folder / "config.yaml").write_text("# lightning.pytorch==2.6.6\n" + yaml.safe_dump(config, sort_keys=False))


def _accuracies(t: float, domains: Sequence[str], weight_decay: float) -> dict[str, float]:
    decay = math.log10(weight_decay / 1e-4)
    clean, robust = 0.9 - 0.5 * math.exp(-5 * t), (0.45 + 0.1 * decay) * (1 - math.exp(-4 * t))
    if not domains:
        return {"clean": clean, "robust": robust}
    found = {"clean": clean + 0.04, "robust": robust / 4}
    for k, domain in enumerate(domains):
        found |= {f"clean_{domain}": clean + 0.04 - 0.05 * k, f"robust_{domain}": robust / (4 - 2.5 * k)}
    return found


def write_metrics(folder: Path, epochs: int, domains: Sequence[str], decay: float, chance: random.Random) -> None:
    kinds = list(_accuracies(0, domains, decay))
    names = ["lr-SGD", "train/loss", *(_metric(kind, what) for kind in kinds for what in ("accuracy", "loss"))]
    lines = [",".join(["epoch", "step", *names])]
    for epoch in range(epochs):
        rate = 0.05 * (0.1 if epoch >= 0.75 * epochs else 1)
        lines.append(",".join(["", str(STEPS * epoch), str(rate), *[""] * (len(names) - 1)]))
        found = _accuracies(epoch / max(1, epochs - 1), domains, decay)
        values = [f"{2.3 - 1.8 * found['robust'] + chance.gauss(0, 0.02):.6f}"]
        for kind in kinds:
            accuracy = min(1.0, max(0.0, found[kind] + chance.gauss(0, 0.01)))
            values += [f"{accuracy:.6f}", f"{-math.log(max(accuracy, 0.01)):.6f}"]
        lines.append(",".join([str(epoch), str(STEPS * (epoch + 1) - 1), "", *values]))
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def _metric(kind: str, what: str) -> str:
    image, _, domain = kind.partition("_")
    return f"val/{image}_{what}" + (f"_{domain}" if domain else "")


def _write_results(folder: Path, seed: int, epochs: int, domains: Sequence[str], weight_decay: float) -> None:
    found = _accuracies(1, domains, weight_decay)

    def measured(suffix: str) -> dict:
        part: dict = {}
        for kind in ("clean", "robust"):
            correct = round(1000 * found[f"{kind}{suffix}"])
            part |= {f"{kind}_accuracy": correct / 1000, f"{kind}_interval": list(wilson_interval(correct, 1000))}
        return part

    results = {"dataset": "digits", "network": "resnet18", "seed": seed, "test_images": 1000, **measured("")}
    results["regime"] = "AdvPropTraining" if domains else "MadryTraining"
    if domains:
        results |= {"inference_domain": domains[0], "domains": {name: measured(f"_{name}") for name in domains}}
    results |= {"evaluation_attack": {"name": "PGD-20"}, "threat_model": {"norm": "Linf", "eps": 0.2}, "epochs": epochs}
    results |= {"training_seconds": 75.0 * epochs, "images_per_second": 1840.3 + 11 * seed, "precision": "bf16-mixed"}
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")


def _number(*key: object) -> float:
    """Return a number in [0, 1) that follows from what it is of."""
    return zlib.crc32(repr(key).encode()) / 2**32


def _moments(t: float, k: int, layer: str, channel: int, seed: int) -> tuple[float, float]:
    """Running mean and variance of a channel: those of the domains after the first grow larger."""
    mean = (_number(layer, channel, seed) - 0.6) * (0.3 + t) * (1 + 0.35 * k * t)
    return mean, (0.2 + _number(channel, layer, seed)) * (1 + 1.5 * t) * (1 + 0.8 * k * t)


def _drift(t, domains, layers, channels, weight_decay, seed):
    for depth, layer in enumerate(layers):
        for k, domain in enumerate(domains):
            size = (0.02 + t) * (1 + 0.15 * depth) * (1 + 0.4 * k) * (0.8 + 0.4 * _number(layer, seed))
            yield (layer, domain, "running_mean"), -0.1 - 0.1 * size
            yield (layer, domain, "running_variance"), 0.5 + size
            origins = {"start": size, "last": 0.2 * size * (1.1 - t), **({domains[0]: 0.4 * t * size} if k else {})}
            for origin, value in origins.items():
                yield (layer, domain, f"mean_from_{origin}"), 0.3 * value
                yield (layer, domain, f"variance_from_{origin}"), 0.7 * value
                yield (layer, domain, f"kl_from_{origin}"), 0.5 * value**2
            if k:
                yield (layer, domain, f"signed_mean_from_{domains[0]}"), 0.05 * t * (depth - 2)
                yield (layer, domain, f"signed_variance_from_{domains[0]}"), 0.2 * t * depth
            if layer == layers[len(layers) // 2]:
                for channel in range(3, 3 + 7 * channels, 7):
                    mean, variance = _moments(t, k, layer, channel, seed)
                    yield (layer, domain, f"running_mean[{channel}]"), mean
                    yield (layer, domain, f"running_variance[{channel}]"), variance


def _gap(t, domains, layers, channels, weight_decay, seed):
    for depth, layer in enumerate(layers):
        for k, domain in enumerate(domains):
            for kind, factor in (("clean", 1 + k), ("adversarial", 2 - k)):
                mean, variance = factor * (0.05 + 0.3 * math.exp(-4 * t)), factor * (0.25 + 0.02 * depth)
                yield (layer, domain, f"{kind}_mean_gap"), 0.5 * mean
                yield (layer, domain, f"{kind}_variance_gap"), 0.4 * variance
                yield (layer, domain, f"{kind}_relative_mean_gap"), mean
                yield (layer, domain, f"{kind}_relative_variance_gap"), variance
            if layer == layers[len(layers) // 2]:
                for channel in range(3, 3 + 7 * channels, 7):
                    mean, variance = _moments(t, k, layer, channel, seed)
                    yield (layer, domain, f"running_mean[{channel}]"), mean
                    yield (layer, domain, f"running_variance[{channel}]"), variance
                    for kind in ("clean", "adversarial"):
                        for batch in range(2):
                            noise = _number(kind, batch, channel) - 0.5
                            yield (layer, domain, f"{kind}_mean_batch{batch}[{channel}]"), mean + 0.1 * noise
                            yield (layer, domain, f"{kind}_variance_batch{batch}[{channel}]"), variance * (1 + noise)


def _smoothness(t, domains, layers, channels, weight_decay, seed):
    decay = weight_decay / 1e-3
    for domain in domains:
        yield ("", domain, "quadratic_sum"), 2000 * (1 + t * (1 - decay))
    convolutions = [layer.replace("bn", "conv") for layer in layers if "downsample" not in layer]
    for measure, size in (
        ("relative_kernel_variance", 0.8),
        ("relative_total_variation", 1.3),
        ("high_frequency_share", 0.6),
    ):
        yield ("", "", measure), size * (1 - 0.4 * t * (0.3 + decay))
        for layer in convolutions:
            yield (layer, "", measure), size * (1 - 0.4 * t * (0.3 + decay)) * (0.8 + 0.4 * _number(layer))
    for depth, layer in enumerate(convolutions):
        yield (layer, "", "kernel_variance"), 1e-3 * (1 - 0.5 * t * decay) / (1 + depth)
        yield (layer, "", "total_variation"), 2e-1 * (1 - 0.5 * t * decay) / (1 + depth)
        yield (layer, "", "norm"), (5 + depth) * (1 - 0.3 * t * decay)
        yield (layer, "", "effective_learning_rate"), 0.05 / (5 + depth) ** 2
        yield (layer, "", "decay_rate"), 0.5 * weight_decay


def _response(t, domains, layers, channels, weight_decay, seed):
    for k, domain in enumerate(domains):
        successful = round(200 * (0.9 - 0.4 * t))
        yield ("", domain, "images_successful"), successful
        yield ("", domain, "images_failed"), 200 - successful
        for depth, layer in enumerate(["conv1", "layer0", "layer1", "layer2", "layer3", "layer4"]):
            size = (1 + 2.5 * depth * (1 - 0.5 * t)) / (1 + k) / (1 + 400 * weight_decay)
            for prefix, less in (("", 1.0), ("transferred_", 0.4)):
                for suffix, more in (("", 1.0), ("_successful", 1.3), ("_failed", 0.7)):
                    yield (layer, domain, f"{prefix}max{suffix}"), 0.5 * size * less * more
                    yield (layer, domain, f"{prefix}total{suffix}"), 900 * size * less * more / (1 + depth)
