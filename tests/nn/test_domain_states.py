"""State dicts, copies and exports of networks with domain BatchNorm."""

import copy
import pickle

import pytest
import timm
import torch
import torchvision
from torch import nn

from lightning_adv.nn.batchnorm import (
    DomainBatchNorm,
    InDomain,
    convert_batchnorm,
    domain,
    domain_norms,
    export_plain,
)
from lightning_adv.nn.weights.domain_states import plain_state_dict, state_domains

DOMAINS = ("main", "adversarial")


def _plain(seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), timm.layers.BatchNormAct2d(4, act_layer=nn.PReLU))
    with torch.no_grad():
        network(torch.rand(8, 3, 8, 8))
    return network


def _trained(domains=DOMAINS):
    network = convert_batchnorm(_plain(), domains)
    for seed, name in enumerate(domains):
        torch.manual_seed(seed)
        with domain(network, name), torch.no_grad():
            network(torch.rand(8, 3, 8, 8))
    return network


def _equal(one, other):
    assert list(one) == list(other)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_domains_that_a_plain_state_dict_was_assigned_to_share_nothing():
    network = convert_batchnorm(_plain())
    network.load_state_dict(_plain(seed=1).state_dict(), assign=True)
    main, adversarial = (domain_norms(network, name)[0] for name in DOMAINS)
    assert torch.equal(main.weight, adversarial.weight)
    for name, tensor in main.state_dict().items():
        assert tensor.data_ptr() != adversarial.state_dict()[name].data_ptr()


def test_the_state_dict_that_is_loaded_stays_as_it_is():
    state = _plain().state_dict()
    before = dict(state)
    convert_batchnorm(_plain()).load_state_dict(state)
    assert list(state) == list(before)
    assert all(state[key] is before[key] for key in before)


def test_a_state_dict_with_domains_makes_a_round_trip(tmp_path):
    trained, network = _trained(), convert_batchnorm(_plain(seed=1))
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    network.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    _equal(network.state_dict(), trained.state_dict())
    first, second = (domain_norms(network, name)[0].running_mean for name in DOMAINS)
    assert not torch.equal(first, second)


def test_what_is_missing_in_a_plain_state_dict_is_said():
    state = _plain().state_dict()
    del state["1.running_var"], state["0.bias"]
    state["1.gamma"] = torch.ones(4)
    state["3.weight"] = torch.ones(4)
    network = convert_batchnorm(_plain())
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert set(missing) == {"0.bias", "1.norms.main.running_var", "1.norms.adversarial.running_var"}
    assert set(unexpected) == {"1.gamma", "3.weight"}
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: .*"1.gamma"'):
        network.load_state_dict(state)


def test_what_is_missing_in_a_state_dict_with_domains_is_said():
    state = _trained(("main", "adversarial", "large")).state_dict()
    state["1.weight"] = torch.ones(4)  # of a plain network: such a mixture is nothing that was saved
    del state["2.norms.adversarial.bias"]
    missing, unexpected = convert_batchnorm(_plain()).load_state_dict(state, strict=False)
    assert missing == ["2.norms.adversarial.bias"]
    large = {key for key in state if ".large." in key}
    assert len(large) == 11
    assert set(unexpected) == {"1.weight", *large}


def test_another_size_is_an_error():
    state = _plain().state_dict()
    state["1.weight"] = torch.ones(7)
    with pytest.raises(RuntimeError, match=r"size mismatch for 1.norms.main.weight(.|\n)*1.norms.adversarial.weight"):
        convert_batchnorm(_plain()).load_state_dict(state)


def test_batchnorms_with_no_parameters_or_statistics():
    plain = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, track_running_stats=False))
    plain(torch.rand(4, 3, 2, 2))
    network = convert_batchnorm(copy.deepcopy(plain))
    network.load_state_dict(plain.state_dict())
    _equal(plain_state_dict(network.state_dict(), "adversarial"), plain.state_dict())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_has_a_switch_of_its_own(copied):
    network = _trained()
    with domain(network, "adversarial"):
        twin = copied(network)
        assert len({m.domain_switch for m in twin.modules() if isinstance(m, DomainBatchNorm)}) == 1
        assert network[1].domain_switch.active == "adversarial"
        assert twin[1].domain_switch.active == "main"  # no context would ever take it back
    with domain(twin, "adversarial"):
        assert network[1].domain_switch.active == "main"
    _equal(twin.state_dict(), network.state_dict())
    twin.load_state_dict(_plain(seed=3).state_dict())
    _equal(export_plain(twin, "adversarial").state_dict(), _plain(seed=3).state_dict())


@pytest.mark.parametrize("name", DOMAINS)
@pytest.mark.parametrize("training", [True, False])
def test_the_exported_network_computes_the_same(name, training):
    network = _trained().train(training)
    network[1].norms[name].eval()
    before, x = copy.deepcopy(network.state_dict()), torch.rand(5, 3, 8, 8)
    exported = export_plain(network, name)
    assert [type(module) for module in exported] == [nn.Conv2d, nn.BatchNorm2d, timm.layers.BatchNormAct2d]
    assert [module.training for module in exported] == [training, False, training]
    output = exported(x)
    _equal(network.state_dict(), before)
    with domain(network, name):
        assert torch.equal(network(x), output)


def test_the_export_of_a_module_that_contains_the_network():
    model = nn.ModuleDict({"network": _trained()})
    exported = export_plain(model, "adversarial")
    assert list(exported.state_dict()) == [f"network.{key}" for key in _plain().state_dict()]
    _equal(plain_state_dict(model.state_dict(), "adversarial"), exported.state_dict())
    assert isinstance(export_plain(model["network"][1]), nn.BatchNorm2d)


def test_the_domains_of_a_state_dict():
    assert state_domains(_trained(("clean", "small", "large")).state_dict()) == ("clean", "small", "large")
    assert state_domains(_plain().state_dict()) == ()
    assert state_domains(nn.ModuleDict({"norms": nn.ModuleList([nn.LayerNorm(3)])}).state_dict()) == ()


@pytest.mark.parametrize("norms", [nn.ModuleList([nn.BatchNorm2d(3)]), nn.ModuleDict({"first": nn.BatchNorm2d(3)})])
def test_a_network_with_modules_that_are_called_norms(norms):
    network = nn.ModuleDict({"norms": norms})
    keys = list(network.state_dict())
    state = convert_batchnorm(network).state_dict()
    assert state_domains(state) == DOMAINS
    assert list(plain_state_dict(state, "adversarial")) == keys


def test_plain_state_dicts_keep_the_versions_of_modules():
    """MNASNet of torchvision refuses a state dict that has none."""
    network = convert_batchnorm(torchvision.models.mnasnet0_5(num_classes=5))
    plain = torchvision.models.mnasnet0_5(num_classes=5)
    state = plain_state_dict(network.state_dict())
    versions = plain.state_dict()._metadata
    assert {key: state._metadata[key] for key in versions} == versions
    plain.load_state_dict(state)
    del state._metadata
    with pytest.raises(ValueError, match="version"):
        plain.load_state_dict(state)


@pytest.mark.parametrize("call", [export_plain, domain_norms, InDomain, lambda *given: domain(*given).__enter__()])
def test_a_domain_that_a_network_does_not_have(call):
    with pytest.raises(ValueError, match=r"main, adversarial, got 'adversarail'\. Did you mean 'adversarial'\?"):
        call(_trained(), "adversarail")
    with pytest.raises(ValueError, match="the network has no domain BatchNorm: convert_batchnorm first"):
        call(_plain(), "main")


def test_a_domain_that_a_state_dict_does_not_have():
    with pytest.raises(ValueError, match="domain must be one of main, adversarial, got 'aux'"):
        plain_state_dict(_trained().state_dict(), "aux")
    with pytest.raises(ValueError, match="the state dict has no domain BatchNorm"):
        plain_state_dict(_plain().state_dict())
