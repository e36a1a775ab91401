"""Promise 6: BatchNorm during an attack is a choice, eval or batch, and the domain is too."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.attacks import FGSM, PGD
from lightning_adv.nn.batchnorm import convert_batchnorm, domain
from tests.seeded import seeded


def _fgsm_in_train_mode(network, x, y, eps):
    """One step by plain autograd: Dropout off, BatchNorm on batch statistics, in a copy that may update its own."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.training = True
    images = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(images), y), images)
    return (x + eps * gradient.sign()).clamp(0, 1)


@pytest.mark.parametrize("name", ["cnn", "resnet", "efficientnet"])
def test_batch_mode_uses_batch_statistics(build, images, name):
    (x, y), network = images, build(name)
    with torch.no_grad():  # samples of very different losses must keep their shares of the sum
        network.get_submodule("9" if name == "cnn" else network.default_cfg["classifier"]).weight *= 20
    batch = FGSM(eps=0.03, batchnorm="batch")(network, x, y)
    assert (batch == _fgsm_in_train_mode(network, x, y, 0.03)).float().mean() > 0.998
    assert (batch != FGSM(eps=0.03)(network, x, y)).float().mean() > 0.05


def test_modes_are_one_without_batchnorm(build, images):
    results = [FGSM(batchnorm=mode)(build("vit"), *images) for mode in ("eval", "batch")]
    assert torch.equal(*results)


@pytest.fixture(scope="module", params=["cnn", "efficientnet"])
def domains(request, build):
    """A network with two domains that differ, and a plain network for each of them."""
    plain = {name: build(request.param) for name in ("main", "adversarial")}
    for module in plain["adversarial"].modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.2, 2, generator=seeded(1))
            nn.init.uniform_(module.running_mean, -1, 1, generator=seeded(2))
            nn.init.uniform_(module.running_var, 0.5, 2, generator=seeded(3))
    network = convert_batchnorm(build(request.param))
    for name, module in network.named_modules():
        if hasattr(module, "domain_switch"):
            module.norms["adversarial"].load_state_dict(plain["adversarial"].get_submodule(name).state_dict())
    return network, plain


@pytest.mark.parametrize("batchnorm", ["eval", "batch"])
def test_the_domain_is_a_choice(domains, images, state_of, batchnorm):
    network, plain = domains
    attack = PGD(eps=0.03, steps=2, batchnorm=batchnorm)

    def run(model, name):
        return attack(model, *images, domain=name, generator=seeded())

    expected = {name: run(model, None) for name, model in plain.items()}
    assert not torch.equal(expected["main"], expected["adversarial"])
    before = state_of(network)
    for name in plain:
        assert torch.equal(run(network, name), expected[name])
    assert torch.equal(run(network, None), expected["main"])
    with domain(network, "adversarial"):
        assert torch.equal(run(network, None), expected["adversarial"])
        assert torch.equal(run(network, "main"), expected["main"])
        assert torch.equal(run(network, None), expected["adversarial"])
    assert state_of(network) == before


def test_a_domain_that_does_not_exist(domains, build, images, mixed, state_of):
    network = mixed(copy.deepcopy(domains[0]))
    before = state_of(network)
    with pytest.raises(ValueError, match="domain must be one of main, adversarial, got 'aux'"):
        PGD()(network, *images, domain="aux")
    assert state_of(network) == before
    with pytest.raises(ValueError, match="domain='adversarial' was given, but the network has no domain BatchNorm"):
        PGD()(build("cnn"), *images, domain="adversarial")
