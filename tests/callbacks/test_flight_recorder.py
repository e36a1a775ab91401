"""FlightRecorder: its numbers are those of its images, computed apart from it; signals are parts of anybody's."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger

from lightning_adv.analysis.flight_recorder_figures import plot_signals
from lightning_adv.attacks import PGD
from lightning_adv.attacks.carlini_wagner import CarliniWagner
from lightning_adv.callbacks import (
    CleanAdversarialSimilarity,
    FlightRecorder,
    HessianEigenvalue,
    LocalLinearity,
    LossAlongLine,
    Record,
    Signal,
)
from lightning_adv.cli import main
from lightning_adv.core.errors import UsageError
from lightning_adv.core.table import Row, read_table
from lightning_adv.regimes import AdvPropTraining, MadryTraining
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer

STRONG = PGD(eps=0.2, steps=2, step_size=0.1)


class Kept(Signal):
    """A signal of somebody's: it keeps what it is given, and one of its numbers cannot be told."""

    def measure(self, probe):
        self.x, self.y, self.x_adv, self.x_fgsm = probe.x, probe.y, probe.x_adv, probe.x_fgsm
        yield Record("", "", "confidence", probe.logits.softmax(1).amax(1).mean())
        yield Record("layer1", "", "height", 3.0)
        yield Record("", "", "nothing", math.nan)


def train(folder, observer, kind=MadryTraining, **options):
    torch.manual_seed(0)
    module = kind(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=STRONG)
    logger = CSVLogger(folder, name="run", version=0)
    options = {"max_epochs": 1, "logger": logger, "callbacks": [observer]} | options
    trainer = quiet_trainer(folder, **options)
    trainer.fit(module, ToyData())
    return trainer, module.eval()


def test_the_numbers_are_those_of_the_network(tmp_path):
    kept = Kept()
    observer = FlightRecorder(images=20)
    observer.signals.append(kept)
    trainer, module = train(tmp_path, observer)
    rows = read_table(tmp_path / "run/version_0/analyses/flight_recorder.csv")
    found = {(row.name, row.statistic): row.value for row in rows}
    logged = {name: value.item() for name, value in trainer.callback_metrics.items() if "flight_recorder" in name}
    assert logged == pytest.approx({f"flight_recorder/{s}": value for (name, s), value in found.items() if not name})
    assert ("", "nothing") not in found
    assert found["layer1", "height"] == 3

    x, y = kept.x.clone().requires_grad_(), kept.y
    assert len(x) == 20
    logits = module.network(x)
    gradient = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), x)[0]
    x_fgsm = (kept.x + 0.2 * gradient.sign()).clamp(0, 1)
    assert torch.allclose(kept.x_fgsm, x_fgsm)
    expected = {
        f"{kind}_accuracy": (module.network(images).argmax(1) == y).double().mean().item()
        for kind, images in (("clean", kept.x), ("fgsm", x_fgsm), ("robust", kept.x_adv))
    }
    expected["confidence"] = logits.softmax(1).amax(1).mean().item()
    expected["input_gradient_norm"] = gradient.flatten(1).norm(dim=1).mean().item()
    moved = [(images - kept.x).flatten(1) for images in (x_fgsm, kept.x_adv)]
    expected["direction_agreement"] = F.cosine_similarity(*moved).mean().item()
    for name, value in expected.items():
        assert found["", name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert {statistic for _, statistic in found} >= {
        "gradient_alignment", "elle", "loss_line_excess", "loss_line_peaks_inside",
        "clean_calibration_error", "robust_calibration_error", "gradient_norm", "dead_units", "lowest_cka",
    }  # fmt: skip
    weights = torch.autograd.grad(F.cross_entropy(module.network(kept.x_adv), y), list(module.network.parameters()))
    norm = torch.cat([each.flatten() for each in weights]).norm().item()
    assert found["", "gradient_norm"] == pytest.approx(norm, rel=1e-4)
    by_layer = {statistic: [n for n, s in found if n and s == statistic] for statistic in ("dead_units", "cka")}
    assert all(len(layers) >= 3 for layers in by_layer.values())
    assert found["", "lowest_cka"] == min(found[layer, "cka"] for layer in by_layer["cka"])
    assert (tmp_path / "run/version_0/figures/flight_recorder_signals.png").is_file()


def test_each_look_has_the_same_images_and_noise(tmp_path):
    """The network stands still, so that nothing but the images and the noise could differ."""
    observer = FlightRecorder(images=20, split="training", every_n_steps=2)
    torch.manual_seed(0)
    module = MadryTraining(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=STRONG)
    module.configure_optimizers = lambda: None
    module.held_in_eval = lambda: [each for each in module.network.modules() if hasattr(each, "running_mean")]
    logger = CSVLogger(tmp_path, name="run", version=0)
    quiet_trainer(tmp_path, max_epochs=1, logger=logger, callbacks=[observer]).fit(module, ToyData())
    rows = read_table(observer.table)
    first, last = ([row[2:] for row in rows if row.step == step] for step in (rows[0].step, rows[-1].step))
    assert rows[0].step < rows[-1].step
    assert first == last


def test_a_network_with_domains_is_seen_through_that_of_inference(tmp_path):
    observer = FlightRecorder(signals=[LocalLinearity(), HessianEigenvalue(images=4)], images=8)
    train(tmp_path, observer, AdvPropTraining)
    rows = read_table(observer.table)
    assert {row.domain for row in rows} == {"main"}
    assert [row.statistic for row in rows][3:] == ["elle", "largest_hessian_eigenvalue"]


def test_signals_are_named_on_the_command_line(tmp_path, capsys):
    folder = f"--trainer.logger.init_args.save_dir={tmp_path}"
    short = ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--trainer.max_epochs=1", folder]
    own = f"{__name__}.Kept"
    recorder = (
        "[{class_path: FlightRecorder, init_args: {images: 8, signals: [LocalLinearity, "
        f"{{class_path: LossAlongLine, init_args: {{points: 3}}}}, {own}]}}}}]"
    )
    main(["fit", "--config", "digits/standard", f"--trainer.callbacks={recorder}", *short])
    (table,) = tmp_path.glob("**/analyses/flight_recorder.csv")
    found = {row.statistic for row in read_table(table)}
    assert found > {"elle", "loss_line_excess", "confidence", "height"}
    assert "gradient_alignment" not in found
    wrong = recorder.replace("LocalLinearity", "LocalLinearly")
    with pytest.raises(SystemExit):
        main(["fit", "--config", "digits/standard", f"--trainer.callbacks={wrong}", *short])
    assert "LocalLinearly" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"signals": [LossAlongLine(), LossAlongLine(points=5)]}, "flight_recorder.signals has LossAlongLine twice"),
        ({"images": 0}, "flight_recorder.images must be an integer of at least 1, got 0"),
        ({"split": "trainig"}, "flight_recorder.split must be one of .*got 'trainig'"),
        ({"signals": ["LocalLinearity"]}, "Expected a Signal or its class_path and init_args, got 'LocalLinearity'"),
    ],
)
def test_arguments(arguments, told):
    with pytest.raises(UsageError, match=told):
        FlightRecorder(**arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"images": 1000}, "flight_recorder.images is 1000, but the validation set has 32 images"),
        ({"signals": [CleanAdversarialSimilarity(layers="lier*")]}, "clean_adversarial_similarity.layers.*'lier.*'"),
        ({"attack": CarliniWagner()}, "flight_recorder.attack must stay in a ball of a norm"),
    ],
)
def test_what_cannot_be_looked_at(tmp_path, arguments, told):
    with pytest.raises(UsageError, match=told):
        train(tmp_path, FlightRecorder(**arguments))


def test_the_figure_has_the_accuracies_above_each_column():
    rows = [
        Row(epoch, 10 * epoch, "", "", statistic, 0.1 * epoch)
        for epoch in range(3)
        for statistic in ("clean_accuracy", "robust_accuracy", "fgsm_accuracy", "a", "b", "c", "d")
    ]
    panels = {}
    for axes in plot_signals(rows).axes:
        panels.setdefault(axes.get_title(), []).append([line.get_ydata().tolist() for line in axes.lines])
    assert list(panels) == ["Accuracy", "A", "B", "C", "D"]
    assert len(panels["Accuracy"]) == 3
    assert panels["Accuracy"][0][2] == pytest.approx([0, 10, 20])
    assert panels["D"] == [[pytest.approx([0, 0.1, 0.2])]]
    assert len(plot_signals(rows[:3]).axes) == 1  # without any signal
