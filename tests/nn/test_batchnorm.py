import copy
import pickle

import pytest
import timm
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.nn.batchnorm import DomainBatchNorm, DomainSwitch, convert_batchnorm, domain


def _cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5),
    )  # fmt: skip


def _efficientnet():
    torch.manual_seed(0)
    return timm.create_model("test_efficientnet", num_classes=5)


@pytest.fixture(params=[_cnn, _efficientnet], ids=["cnn", "efficientnet"])
def make(request):
    def make():
        network = request.param()
        with torch.no_grad():
            network(torch.rand(8, 3, 8, 8))
        return network

    return make


@pytest.fixture
def x():
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def _domains(network, name):
    return [module.norms[name] for module in network.modules() if isinstance(module, DomainBatchNorm)]


def test_the_switch():
    switch = DomainSwitch(["main", "adversarial", "large"])
    assert switch.active == "main"
    with switch.select("adversarial"):
        with switch.select("large"), switch.select("main"):
            assert switch.active == "main"
        assert switch.active == "adversarial"
    assert switch.active == "main"


def test_the_switch_after_an_exception():
    switch = DomainSwitch(["main", "adversarial"])
    with pytest.raises(RuntimeError, match="stop"), switch.select("adversarial"):
        raise RuntimeError("stop")
    assert switch.active == "main"
    with pytest.raises(ValueError, match="domain must be one of main, adversarial, got 'aux'"), switch.select("aux"):
        pass
    assert switch.active == "main"


@pytest.mark.parametrize("training", [True, False])
def test_every_domain_starts_as_the_network(make, x, training):
    plain, network = make().train(training), make().train(training)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    assert convert_batchnorm(network) is network
    assert all(first is second for first, second in zip(_domains(network, "main"), norms, strict=True))
    assert {module.training for module in network.modules()} == {training}
    expected = copy.deepcopy(plain)(x)
    assert torch.equal(network(x), expected)
    with domain(network, "adversarial"):
        assert torch.equal(network(x), expected)


def test_copies_share_nothing(make):
    network = convert_batchnorm(make())
    for first, second in zip(_domains(network, "main"), _domains(network, "adversarial"), strict=True):
        assert type(first) is type(second)
        state, other = first.state_dict(), second.state_dict()
        assert list(state) == list(other)
        for name in state:
            assert torch.equal(state[name], other[name])
            assert state[name].data_ptr() != other[name].data_ptr()


def test_training_moves_the_active_domain_only(make, x):
    network, plain = convert_batchnorm(make()).train(), make().train()
    before = copy.deepcopy(network)
    torch.manual_seed(0)
    with domain(network, "adversarial"):
        network(x).square().sum().backward()
    torch.manual_seed(0)
    plain(x)
    expected = [module for module in plain.modules() if isinstance(module, _BatchNorm)]
    for updated, norm in zip(_domains(network, "adversarial"), expected, strict=True):
        assert all(torch.equal(*pair) for pair in zip(updated.buffers(), norm.buffers(), strict=True))
        assert updated.weight.grad is not None
    for same, norm in zip(_domains(network, "main"), _domains(before, "main"), strict=True):
        assert all(torch.equal(*pair) for pair in zip(same.buffers(), norm.buffers(), strict=True))
        assert same.weight.grad is None
    with domain(before, "adversarial"):
        clean = before.eval()(x)
    with domain(network, "adversarial"):
        assert not torch.equal(network.eval()(x), clean)
    assert torch.equal(network(x), before(x))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_has_a_switch_of_its_own(make, copied):
    network = convert_batchnorm(make())
    twin = copied(network)
    switches = [{m.domain_switch for m in n.modules() if isinstance(m, DomainBatchNorm)} for n in (network, twin)]
    assert [len(switch) for switch in switches] == [1, 1]
    assert switches[0] != switches[1]
    with domain(network, "adversarial"):
        assert next(iter(switches[0])).active == "adversarial"
        assert next(iter(switches[1])).active == "main"


def test_a_batchnorm_in_two_places_stays_one(x):
    norm = nn.BatchNorm2d(4)
    network = convert_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), norm))
    assert network[1] is network[3]
    assert network[1].norms["main"] is norm
    assert len(_domains(network, "adversarial")) == 1


def test_hooks_stay_with_the_main_domain(x):
    network, seen = _cnn(), []
    network[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    convert_batchnorm(network, domains=["clean", "adversarial"])(x)
    assert len(seen) == 1


def test_three_domains_and_their_names():
    network = convert_batchnorm(_cnn(), domains=["main", "small", "large"])
    assert list(network[1].norms) == ["main", "small", "large"]
    assert network[1].domain_switch.domains == ("main", "small", "large")


def test_synchronised_batchnorms_are_found():
    network = nn.SyncBatchNorm.convert_sync_batchnorm(convert_batchnorm(_cnn()))
    assert {type(norm) for name in ("main", "adversarial") for norm in _domains(network, name)} == {nn.SyncBatchNorm}
    network = convert_batchnorm(nn.SyncBatchNorm.convert_sync_batchnorm(_cnn()))
    assert len(_domains(network, "adversarial")) == 3


def test_a_model_that_contains_the_network(x):
    model = nn.ModuleDict({"network": convert_batchnorm(_cnn())})
    with domain(model, "adversarial"):
        assert model["network"][1].domain_switch.active == "adversarial"


@pytest.mark.parametrize("domains", [[], ["main", "main"]])
def test_bad_names(domains):
    with pytest.raises(ValueError, match="domains must be different names, at least one"):
        convert_batchnorm(_cnn(), domains)


def test_a_network_without_batchnorm():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))
    with pytest.raises(ValueError, match="The model has no BatchNorm to give domains to"):
        convert_batchnorm(network)
    with pytest.raises(ValueError, match="has no domain BatchNorm"), domain(network, "adversarial"):
        pass


def test_a_network_that_has_domains_already():
    with pytest.raises(ValueError, match="has domain BatchNorms already"):
        convert_batchnorm(convert_batchnorm(_cnn()))


def test_a_domain_that_does_not_exist():
    with pytest.raises(ValueError, match="got 'aux'"), domain(convert_batchnorm(_cnn()), "aux"):
        pass
