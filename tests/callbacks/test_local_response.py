"""LocalResponse in a Trainer: its table is what the checkpoints' networks give, computed apart from it."""

from functools import partial

import pytest
import torch
from torch import nn

from lightning_adv.attacks import FGSM, Attack
from lightning_adv.callbacks import LocalResponse
from lightning_adv.core.table import read_table
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import export_plain
from lightning_adv.regimes import MadryTraining, StandardTraining
from tests.callbacks.responses import (
    SMALL_CNN,
    STRONG,
    Keeping,
    WideData,
    attacked,
    expected,
    fit,
    last_look,
    load,
    outputs,
)
from tests.regimes.every_regime import make
from tests.regimes.toy import ATTACK, BACKBONE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["madry", "mixture_bn"])
def test_the_table_is_that_of_the_checkpoint(tmp_path, name):
    observer = Keeping(images=100)
    module = make(
        name, tmp_path / "weights", evaluation_attack=STRONG, optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    )
    for submodule in module.network.modules():
        if isinstance(submodule, nn.BatchNorm2d):
            submodule.momentum = 0.5  # after a few steps the running statistics are those of the images
    trainer, run = fit(tmp_path, observer, module, WideData(), max_epochs=2)
    assert [len(chunk.y) for chunk in observer.kept] == [64, 36]
    trained, table = load(run, type(module)), last_look(run)
    assert {key[1] for key in table} == set(trained.domains or [""])
    for domain in trained.domains or [None]:
        network = trained.network if domain is None else export_plain(trained.network, domain)
        rows = expected(network, SMALL_CNN, observer.kept, partial(attacked, network))
        column = "" if domain is None else domain
        ours = {(layer, statistic): value for (layer, through, statistic), value in table.items() if through == column}
        assert ours == pytest.approx(rows, rel=1e-4)
        assert rows["", "images_successful"] > 2 < rows["", "images_failed"]
    headline = trained.inference_domain if trained.domains else ""
    logged = {n: v.item() for n, v in trainer.callback_metrics.items() if n.startswith("local_response/")}
    assert logged == pytest.approx(
        {
            f"local_response/{layer}/{statistic}": table[layer, headline, statistic]
            for layer in SMALL_CNN
            for statistic in ("max", "total")
        }
    )


# What is looked at ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_layers_by_pattern_have_their_own_names(tmp_path):
    backbone = Backbone("torchvision/resnet18", stem="cifar", in_channels=1, mean=[0.5], std=[0.5])
    torch.manual_seed(0)
    module = StandardTraining(backbone, num_classes=2, evaluation_attack=FGSM(eps=0.1))
    _, run = fit(tmp_path, LocalResponse(layers=["layer*", "layer1.0.relu"], images=4), module, limit_train_batches=1)
    names = list(dict.fromkeys(key[0] for key in last_look(run) if key[0]))
    assert names == ["layer1", "layer1.0.relu", "layer2", "layer3", "layer4"]


@pytest.mark.slow
def test_every_look_is_at_the_same_images_with_the_same_noise(tmp_path):
    torch.manual_seed(0)
    module = MadryTraining(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK)
    module.network.requires_grad_(False)
    module.network.network.fc.weight.requires_grad_(True)
    for submodule in module.network.modules():  # nothing moves but the last layer, behind all that is looked at
        if isinstance(submodule, nn.BatchNorm2d):
            submodule.momentum = 0.0
    _, run = fit(tmp_path, LocalResponse(images=20, attack=Noise(eps=0.1)), module, max_epochs=2)
    rows = read_table(run / "analyses/local_response.csv")
    first, second = ([row[2:] for row in rows if row.epoch == epoch and row.statistic == "total"] for epoch in (0, 1))
    assert first == second
    assert all(row[-1] > 0 for row in first)


class Noise(Attack):
    """Random noise: an attack that does not depend on the network."""

    norm = "linf"

    def __init__(self, eps):
        self.eps = eps

    def __call__(self, model, x, y, *, domain=None, generator=None):
        noise = torch.rand(x.shape, generator=generator) - 0.5
        return (x + 2 * self.eps * noise).clamp(0, 1)


@pytest.mark.slow
def test_mixed_precision(tmp_path):
    """The responses are those of the rounded network, the numbers about them are not rounded again."""
    torch.manual_seed(0)
    module = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=STRONG)
    observer = Keeping(images=20)
    _, run = fit(tmp_path, observer, module, precision="bf16-mixed")
    network, table = load(run).network, last_look(run)
    rounded = {name: value for (name, _, statistic), value in table.items() if name and statistic == "total"}

    def totals(autocast):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            x, y, noise = observer.kept[0].to(torch.device("cpu"))
            x_adv = STRONG(network, x, y, generator=noise)
            before, after = (outputs(network, SMALL_CNN, images)[1] for images in (x, x_adv))
        return {name: (before[name].double() - after[name].double()).abs().sum().item() / 20 for name in SMALL_CNN}

    assert rounded == pytest.approx(totals(True), rel=1e-4)
    assert rounded != pytest.approx(totals(False), rel=1e-4)


# Bad input ------------------------------------------------------------------------------------------------------------


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match=r"local_response.images must be an integer of at least 1, got 0"):
        LocalResponse(images=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": "stage*"}, r"local_response.layers has the pattern 'stage\*', .* There are layer1, layer1.0, "),
        ({"images": 33}, "local_response.images is 33, but the validation set has 32 images"),
        ({"source": "nowhere.ckpt"}, "local_response.source: there is no file nowhere.ckpt"),
    ],
)
def test_what_cannot_be_looked_at(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, LocalResponse(**arguments))


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(64, 64)
        self.last = nn.Linear(64, 2)

    def forward(self, x):
        return self.last(x.flatten(1))


def test_a_layer_that_does_not_run(tmp_path):
    module = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=ATTACK)
    module.network = Unused()
    with pytest.raises(ValueError, match=r"^local_response.layers: layer spare does not run in a forward pass"):
        fit(tmp_path, LocalResponse(layers="*"), module)
