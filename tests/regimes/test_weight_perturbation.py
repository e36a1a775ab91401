"""Adversarial weight perturbation against the authors' way: a copy that is stepped, added and taken away."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from lightning_adv.attacks import FGSM, PGD
from lightning_adv.regimes import MadryTraining, WeightPerturbation
from tests.regimes.toy import BACKBONE, ToyData, assert_same, attacked_by_hand, quiet_trainer


def fit(folder, **arguments):
    torch.manual_seed(0)
    sgd = partial(torch.optim.SGD, lr=0.1)
    module = MadryTraining(BACKBONE, num_classes=2, attack=FGSM(eps=0.1), optimizer=sgd, **arguments)
    start = copy.deepcopy(module.network)
    quiet_trainer(folder, limit_val_batches=0).fit(module, ToyData())
    return start, module.network


def test_one_epoch_against_a_proxy_network(tmp_path):
    network, trained = fit(tmp_path, weight_perturbation=WeightPerturbation(gamma=0.05))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for x, y in ToyData().train_dataloader():
        x_adv = attacked_by_hand(network, x, y)
        proxy = copy.deepcopy(network)
        proxy.zero_grad()
        F.cross_entropy(proxy(x_adv), y).backward()
        step = {
            name: 0.05 * w.detach().norm() / w.grad.norm() * w.grad
            for name, w in proxy.named_parameters()
            if w.ndim > 1
        }
        with torch.no_grad():
            for name, weight in network.named_parameters():
                weight += step.get(name, 0)
        optimizer.zero_grad()
        F.cross_entropy(network(x_adv), y).backward()
        optimizer.step()
        with torch.no_grad():
            for name, weight in network.named_parameters():
                weight -= step.get(name, 0)
    assert_same(trained, network)


@pytest.mark.slow
def test_it_raises_the_loss(tmp_path):
    """Of all perturbations of its length, none that is drawn at random raises the loss more."""
    module = MadryTraining(BACKBONE, num_classes=2)
    quiet_trainer(tmp_path, limit_val_batches=0).fit(module, ToyData())
    x, y = next(iter(ToyData().train_dataloader()))

    def loss(forward):
        return F.cross_entropy(forward(x), y)

    gamma = 0.01
    worst = loss(WeightPerturbation(gamma).perturb(module.network, loss, lambda g: g)).item()
    drawn = torch.Generator().manual_seed(0)
    for _ in range(10):
        other = copy.deepcopy(module.network)
        with torch.no_grad():
            for weight in other.parameters():
                if weight.ndim > 1:
                    noise = torch.randn(weight.shape, generator=drawn)
                    weight += gamma * weight.norm() / noise.norm() * noise
        assert loss(other).item() < worst


def test_one_attack_and_one_statistics_update_a_step(tmp_path):
    calls = []

    class Counting(PGD):
        def __call__(self, *args, **kwargs):
            calls.append(1)
            return super().__call__(*args, **kwargs)

    attack = Counting(eps=0.1, steps=1, step_size=0.1)
    module = MadryTraining(BACKBONE, num_classes=2, attack=attack, weight_perturbation=WeightPerturbation())
    quiet_trainer(tmp_path, limit_val_batches=0).fit(module, ToyData())
    assert len(calls) == 4
    counts = {int(v) for name, v in module.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counts == {4}


@pytest.mark.slow
def test_warm_up_is_plain_training(tmp_path):
    _, plain = fit(tmp_path / "plain")
    _, warm = fit(tmp_path / "warm", weight_perturbation=WeightPerturbation(0.05, warmup_epochs=1))
    _, perturbed = fit(tmp_path / "perturbed", weight_perturbation=WeightPerturbation(0.05))
    weight = "network.layer1.0.weight"
    assert torch.equal(plain.state_dict()[weight], warm.state_dict()[weight])
    assert not torch.equal(plain.state_dict()[weight], perturbed.state_dict()[weight])


def test_a_layer_in_two_places_is_refused(tmp_path):
    """Torch's functional_call would leave the perturbed weight in it; when it no longer does, this can go."""
    layer = torch.nn.Linear(2, 2)
    network = torch.nn.Sequential(layer, layer)
    with pytest.raises(ValueError, match=r"its parameter 1\.weight is 0\.weight as well"):
        WeightPerturbation().check_network(network)
    weight = layer.weight
    torch.func.functional_call(network, {"0.weight": weight + 1}, (torch.rand(1, 2),))
    assert layer.weight is not weight
    module = MadryTraining(BACKBONE, num_classes=2, weight_perturbation=WeightPerturbation())
    module.network.network.layer3[1] = module.network.network.layer2[1]
    with pytest.raises(ValueError, match="weight_perturbation cannot work"):
        quiet_trainer(tmp_path).fit(module, ToyData())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": 0.0}, "gamma must be positive and finite, got 0.0"),
        ({"warmup_epochs": -1}, "warmup_epochs must be at least 0, got -1"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        WeightPerturbation(**arguments)
