"""Whether networks that were trained against attacks on a view are as robust as those attacked themselves.

README.md beside this file says what is trained and measured.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_adv.attacks import PGD, Attack
from lightning_adv.attacks.external.autoattack import AutoAttack
from lightning_adv.cli import main as lightning_adv
from lightning_adv.data import DigitsDataModule
from lightning_adv.nn.batchnorm import domain
from lightning_adv.nn.view.attack_view import attack_view

# The configuration, the radius in which its networks are attacked (that of their training), and through what.
STUDIES: dict[str, tuple[str, float, tuple[str | None, ...]]] = {
    "madry": ("digits/madry", 0.2, (None,)),
    "advprop": ("digits/advprop", 0.1, ("adversarial", "main")),
}
VIEWS = {"off": ["off", "same"], "fp32": ["auto", "same"], "bf16": ["auto", "bf16"]}
Row = dict[str, Any]


def train(config: str, view: str, seed: int, folder: Path) -> Path:
    """Train, unless that was done, and return the checkpoint that the command itself tests."""
    mode, precision = VIEWS[view]
    name = f"{config.replace('/', '-')}-{view}-{seed}"
    checkpoint = folder / name / "version_0" / "checkpoints" / "best.ckpt"
    if not (folder / name / "version_0" / "results.json").exists():
        lightning_adv(
            [
                *("fit", "--config", config, "--seed_everything", str(seed), "--trainer.enable_progress_bar", "false"),
                *("--trainer.logger.init_args.save_dir", str(folder), "--trainer.logger.init_args.name", name),
                *("--model.init_args.view", mode, "--model.init_args.attack_precision", precision),
            ]
        )
    return checkpoint


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, y: Tensor, through: str | None) -> float:
    """Share of the images that the plain network gets right, in fp32 and in per cent."""
    if through is None:
        logits = network(images)
    else:
        with domain(network, through):
            logits = network(images)
    return 100 * float((logits.argmax(1) == y).float().mean())


def signs(network: nn.Module, x: Tensor, y: Tensor, eps: float, through: str | None) -> dict[str, float]:
    """Per cent of the pixels in which the first step of an attack on a view goes another way than on the network."""
    one_step = PGD(eps, steps=1, step_size=eps / 4, start="zero")
    plain = one_step(network, x, y, domain=through)
    views = {
        "fp32": attack_view(network, domain=through),
        "bf16": attack_view(network, domain=through, dtype=torch.bfloat16),
    }
    return {name: 100 * float((one_step(view, x, y) != plain).float().mean()) for name, view in views.items()}


def measure(checkpoint: Path, eps: float, through: str | None, x: Tensor, y: Tensor) -> Row:
    """Clean and robust accuracy (%) on the plain network in fp32, and the share of signs that differ (%)."""
    regime = LightningModule.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    network = cast(nn.Module, regime.network).eval()
    attacks: dict[str, Attack] = {"pgd": PGD(eps, steps=20, step_size=eps / 10), "autoattack": AutoAttack(eps)}
    row: Row = {"clean": accuracy(network, x, y, through), "signs": signs(network, x, y, eps, through)}
    for name, attack in attacks.items():
        x_adv = attack(network, x, y, domain=through, generator=torch.Generator().manual_seed(0))
        row[name] = accuracy(network, x_adv, y, through)
    return row


def test_images() -> tuple[Tensor, Tensor]:
    data = DigitsDataModule()
    data.prepare_data()
    data.setup("test")
    batches = list(data.test_dataloader())
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def table(rows: dict[str, Row]) -> str:
    """One line for each study, BatchNorm domain and view: mean and standard deviation over the seeds."""
    lines = ["| configuration, through | view | clean (%) | PGD-20 (%) | AutoAttack (%) | signs that differ (%) |"]
    lines.append("|---|---|---:|---:|---:|---:|")
    for study, (config, _, domains) in STUDIES.items():
        for through in domains:
            for view in VIEWS:
                own = [row for key, row in rows.items() if key.startswith(f"{study} {view} {through} ")]
                if own:
                    figures = [_spread([row[name] for row in own]) for name in ("clean", "pgd", "autoattack")]
                    other = "" if view == "off" else f"{mean(row['signs'][view] for row in own):.2f}"
                    place = config if through is None else f"{config}, {through}"
                    lines.append(f"| {place} | {view} | {' | '.join(figures)} | {other} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", nargs="+", choices=list(STUDIES), default=list(STUDIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--folder", type=Path, default=Path("runs/views"), help="what is there is not trained again")
    args = parser.parse_args()
    torch.set_num_threads(1)
    x, y = test_images()
    args.folder.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for study in args.studies:
            config, eps, domains = STUDIES[study]
            for view in VIEWS:
                checkpoint = train(config, view, seed, args.folder)
                for through in domains:
                    file = args.folder / f"{study} {view} {through} {seed}.json"
                    if not file.exists():
                        file.write_text(json.dumps(measure(checkpoint, eps, through, x, y)))
    files = sorted(args.folder.glob("*.json"))
    print(table({file.stem: json.loads(file.read_text()) for file in files}))


if __name__ == "__main__":
    main()
