"""WeightSmoothness in a Trainer: its table is what the pure functions say of the checkpoints."""

from functools import partial

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from lightning_adv.analysis.training_curves import read_metrics
from lightning_adv.analysis.weight_smoothness import MEANS, kernel_smoothness
from lightning_adv.callbacks import LastCheckpoint, WeightSmoothness
from lightning_adv.core.table import read_table
from lightning_adv.nn.batchnorm import export_plain
from lightning_adv.nn.layers import named_layers
from lightning_adv.regimes import MadryTraining, StandardTraining
from tests.regimes.every_regime import make
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer


def fit(folder, observer, module=None, **kwargs):
    """Train for two epochs; return the trainer and the run folder."""
    if module is None:
        torch.manual_seed(0)
        module = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=ATTACK)
    callbacks = [observer, LastCheckpoint()]
    options = {"logger": CSVLogger(folder, name="run", version=0), "enable_checkpointing": True, "max_epochs": 2}
    trainer = quiet_trainer(folder, callbacks=callbacks, **options | kwargs)
    trainer.fit(module, ToyData())
    return trainer, folder / "run/version_0"


def last_look(run):
    rows = read_table(run / "analyses/smoothness.csv")
    return {(row.name, row.domain, row.statistic): row.value for row in rows if row.step == rows[-1].step}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixture_bn", "blockwise"])
def test_the_table_is_that_of_the_checkpoint(tmp_path, name):
    trainer, run = fit(tmp_path, WeightSmoothness(), make(name, tmp_path / "weights"))
    kind = type(trainer.lightning_module)
    module = kind.load_from_checkpoint(run / "checkpoints/last.ckpt", weights_only=True)
    table = last_look(run)
    layers = named_layers(module.network)
    convolutions = [n for n, m in layers.items() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    assert [key[0] for key in table if key[2] == "norm"] == convolutions
    for layer in convolutions:
        weight = layers[layer].weight
        for measure, value in kernel_smoothness(weight)._asdict().items():
            assert table[layer, "", measure] == pytest.approx(value, rel=1e-6)
        assert table[layer, "", "norm"] == pytest.approx(weight.norm().item(), rel=1e-6)
    for domain in module.domains:
        plain = export_plain(module.network, domain)
        squares = sum(p.detach().double().square().sum().item() for p in plain.parameters())
        assert table["", domain, "quadratic_sum"] == pytest.approx(squares)
    if not module.domains:
        squares = sum(p.detach().double().square().sum().item() for p in module.network.parameters())
        assert table["", "", "quadratic_sum"] == pytest.approx(squares)
    headline = module.inference_domain if module.domains else ""
    logged = trainer.callback_metrics
    assert logged["smoothness/quadratic_sum"].item() == pytest.approx(table["", headline, "quadratic_sum"])
    for measure in MEANS:
        mean = sum(table[layer, "", measure] for layer in convolutions) / len(convolutions)
        assert logged[f"smoothness/{measure}"].item() == pytest.approx(mean, rel=1e-6)
    trained = {n for n in convolutions if f"{n}.weight" in _trained(trainer, module)}
    assert {key[0] for key in table if key[2] == "decay_rate"} == trained
    assert all(table[n, "", "decay_rate"] == pytest.approx(0.05 * 1e-3 / 0.1) for n in trained)
    assert all(
        table[n, "", "effective_learning_rate"] == pytest.approx(0.05 / table[n, "", "norm"] ** 2) for n in trained
    )
    if name == "blockwise":
        assert 0 < len(trained) < len(convolutions)


def _trained(trainer, module):
    """The names, in the plain network, of what the run's optimizer has."""
    network = trainer.lightning_module.network
    held = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    return {name.removeprefix("network.") for name, parameter in network.named_parameters() if id(parameter) in held}


@pytest.mark.slow
def test_what_a_run_leaves(tmp_path):
    _, run = fit(tmp_path, WeightSmoothness(every_n_steps=3))
    steps = [2, 5]  # of 4 batches in each of 2 epochs
    rows = read_table(run / "analyses/smoothness.csv")
    assert list(dict.fromkeys((row.epoch, row.step) for row in rows)) == [(0, 2), (1, 5)]
    logged = read_metrics(run / "metrics.csv")["smoothness/quadratic_sum"]
    told = [row.value for row in rows if row.statistic == "quadratic_sum"]
    assert [value for _, value in logged] == pytest.approx(told)
    assert len(told) == len(steps)
    figures = {path.name for path in (run / "figures").iterdir()}
    assert figures == {"smoothness_curves.png", "smoothness_high_frequency_share.png"}


@pytest.mark.slow
def test_the_rates_follow_the_schedule(tmp_path):
    module = StandardTraining(
        BACKBONE,
        num_classes=2,
        evaluation_attack=ATTACK,
        optimizer=partial(torch.optim.AdamW, lr=0.5, weight_decay=0.1),
        scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.1),
        scheduler_interval="step",
    )
    _, run = fit(tmp_path, WeightSmoothness(every_n_steps=1), module, max_epochs=1)
    rows = read_table(run / "analyses/smoothness.csv")
    rates = {row.step: row.value for row in rows if row.statistic == "decay_rate"}
    assert rates == pytest.approx({0: 0.005, 1: 0.0005, 2: 0.00005, 3: 0.000005})


@pytest.mark.slow
def test_adam_has_no_decay_rate(tmp_path):
    optimizer = partial(torch.optim.Adam, lr=0.01, weight_decay=0.1)
    module = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=ATTACK, optimizer=optimizer)
    _, run = fit(tmp_path, WeightSmoothness(), module, max_epochs=1)
    statistics = {key[2] for key in last_look(run)}
    assert "decay_rate" not in statistics
    assert "effective_learning_rate" in statistics


@pytest.mark.slow
def test_layers_by_pattern(tmp_path):
    every = fit(tmp_path / "all", WeightSmoothness(), max_epochs=1)[1]
    some = fit(tmp_path / "some", WeightSmoothness(layers=["layer1.**", "layer3.*"]), max_epochs=1)[1]
    chosen = {key: value for key, value in last_look(every).items() if key[0].startswith(("layer1", "layer3"))}
    found = last_look(some)
    assert {key: value for key, value in found.items() if key[0]} == chosen
    shares = [value for key, value in chosen.items() if key[2] == "high_frequency_share"]
    assert 1 < len(shares) < 6
    assert found["", "", "high_frequency_share"] == pytest.approx(sum(shares) / len(shares), rel=1e-6)


@pytest.mark.slow
def test_mixed_precision_rounds_no_weight(tmp_path):
    torch.manual_seed(0)
    module = MadryTraining(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK)
    _, run = fit(tmp_path, WeightSmoothness(), module, precision="bf16-mixed", max_epochs=1)
    for name, layer in named_layers(module.network).items():
        if isinstance(layer, nn.Conv2d):
            numbers = kernel_smoothness(layer.weight)._asdict()
            assert {measure: last_look(run)[name, "", measure] for measure in numbers} == pytest.approx(
                numbers, rel=1e-6
            )


def test_a_network_without_kernels(tmp_path):
    module = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=ATTACK)
    module.network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(128, 2))
    with pytest.raises(ValueError, match="no convolution with a kernel of more than one pixel"):
        fit(tmp_path, WeightSmoothness(), module)
