"""Runs with LocalResponse, and the differences of local responses computed apart from it."""

import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from lightning_adv.attacks import PGD
from lightning_adv.callbacks import LastCheckpoint, LocalResponse
from lightning_adv.core.table import read_table
from lightning_adv.regimes import StandardTraining
from tests.regimes.toy import BACKBONE, ToyData, quiet_trainer

STRONG = PGD(eps=0.2, steps=2, step_size=0.2)


class Keeping(LocalResponse):
    """Remembers its images, which it lets go at the end."""

    def prepare(self, trainer, regime):
        super().prepare(trainer, regime)
        self.kept = list(self._images.batches)


class WideData(ToyData):
    """Trains on 32 images, and validates on 150."""

    def val_dataloader(self):
        drawn = torch.Generator().manual_seed(1)
        y = torch.randint(2, (150,), generator=drawn)
        x = 0.5 * torch.rand(150, 1, 8, 8, generator=drawn)
        x[:, :, :4] += 0.3 * (1 - y[:, None, None, None])
        return DataLoader(TensorDataset(x, y), batch_size=50)


def fit(folder, observer, module=None, data=None, callbacks=(), **kwargs):
    """Train for an epoch; return the trainer and the run folder."""
    if module is None:
        torch.manual_seed(0)
        module = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=STRONG)
    callbacks = [*callbacks, *([] if observer is None else [observer]), LastCheckpoint()]
    options = {"logger": CSVLogger(folder, name="run", version=0), "enable_checkpointing": True}
    trainer = quiet_trainer(folder, callbacks=callbacks, **options | kwargs)
    trainer.fit(module, ToyData() if data is None else data)
    return trainer, folder / "run/version_0"


def load(run, kind=StandardTraining):
    return kind.load_from_checkpoint(run / "checkpoints/last.ckpt", weights_only=True).eval()


def last_look(run):
    rows = read_table(run / "analyses/local_response.csv")
    return {(row.name, row.domain, row.statistic): row.value for row in rows if row.step == rows[-1].step}


def outputs(network, layers, x):
    """The logits and the outputs of modules, by a walk of its own."""
    seen = {}
    handles = [
        network.get_submodule(path).register_forward_hook(lambda m, i, o, n=name: seen.update({n: o.clone()}))
        for name, path in layers.items()
    ]
    with torch.no_grad():
        logits = network(x)
    for handle in handles:
        handle.remove()
    return logits, seen


def expected(network, layers, chunks, attack):
    """The rows of one domain, image by image; ``attack`` makes the examples of (x, y, generator)."""
    images, counts = [], {"": 0, "_successful": 0, "_failed": 0}
    for chunk in chunks:
        x_adv = attack(chunk.x, chunk.y, torch.Generator().manual_seed(chunk.seed))
        clean, before = outputs(network, layers, chunk.x)
        adversarial, after = outputs(network, layers, x_adv)
        for n, label in enumerate(chunk.y):
            right, still = clean[n].argmax() == label, adversarial[n].argmax() == label
            groups = ["", *(["_failed" if still else "_successful"] if right else [])]
            images.append((groups, {name: (before[name][n] - after[name][n]).abs() for name in layers}))
            for group in groups:
                counts[group] += 1
    rows = {("", f"images{group}"): count for group, count in counts.items()}
    for group, count in counts.items():
        for name in layers if count else ():
            inside = [differences[name] for groups, differences in images if group in groups]
            rows[name, f"max{group}"] = sum(difference.max().item() for difference in inside) / count
            rows[name, f"total{group}"] = sum(difference.double().sum().item() for difference in inside) / count
    return rows


def attacked(network, x, y, generator):
    return STRONG(network, x, y, generator=generator)


SMALL_CNN = {
    "conv1": "network.layer1.0",
    "m0": "network.layer1",
    "m1": "network.layer3",
    "m2": "network.layer4",
}
