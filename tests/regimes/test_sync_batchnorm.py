import copy
import os

import pytest
import timm
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from lightning.pytorch.strategies import DDPStrategy
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from timm.layers.norm_act import SyncBatchNormAct
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.nn.batchnorm import convert_batchnorm, domain, domain_norms, export_plain
from lightning_adv.regimes.sync_batchnorm import TimmSyncBatchNorm
from tests.regimes.toy import quiet_trainer


@pytest.fixture
def network():
    torch.manual_seed(0)
    return _trained(timm.create_model("test_efficientnet", num_classes=5))


@pytest.fixture
def domains(network):
    convert_batchnorm(network)
    with domain(network, "adversarial"):
        return _trained(network)


@pytest.fixture
def x():
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def _trained(network):
    for _ in range(3):
        network.train()(torch.rand(8, 3, 32, 32))
    return network.eval()


def _norms(network):
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


@pytest.mark.parametrize("training", [True, False])
def test_the_outputs_stay_the_same(network, x, training):
    network.train(training)
    synchronised = TimmSyncBatchNorm().apply(copy.deepcopy(network))
    assert {type(norm) for norm in _norms(synchronised)} == {SyncBatchNormAct}
    assert torch.equal(synchronised(x), network(x))
    assert [norm.training for norm in _norms(synchronised)] == [norm.training for norm in _norms(network)]


def test_the_converter_of_torch_drops_activations(network, x):
    """The reason for this plugin. When this fails, the plugin may have become superfluous."""
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
    assert not torch.allclose(synchronised(x), network(x), atol=0.1)
    reverted = TorchSyncBatchNorm().revert(TimmSyncBatchNorm().apply(copy.deepcopy(network)))
    assert not torch.allclose(reverted(x), network(x), atol=0.1)


def test_the_converter_of_timm_drops_activations_the_second_time(network, x):
    """The reason why the plugin leaves SyncBatchNorms out."""
    synchronised = convert_sync_batchnorm(copy.deepcopy(network))
    assert torch.equal(synchronised(x), network(x))
    assert torch.equal(TimmSyncBatchNorm().apply(copy.deepcopy(synchronised))(x), network(x))
    assert not torch.allclose(convert_sync_batchnorm(synchronised)(x), network(x), atol=0.1)


@pytest.mark.parametrize("convert", [TimmSyncBatchNorm().apply, convert_sync_batchnorm])
@pytest.mark.parametrize("name", ["main", "adversarial"])
def test_domains_are_converted_inside(domains, x, convert, name):
    synchronised = convert(copy.deepcopy(domains))
    assert {type(norm) for norm in domain_norms(synchronised, name)} == {SyncBatchNormAct}
    for main, adversarial in zip(*(domain_norms(synchronised, d) for d in ("main", "adversarial")), strict=True):
        assert main.act is adversarial.act
        assert main.weight is not adversarial.weight
    with domain(domains, name), domain(synchronised, name):
        expected = domains(x)
        assert torch.equal(synchronised(x), expected)
    assert torch.equal(export_plain(synchronised, name)(x), expected)


def test_torchs_converter_is_enough_for_plain_batchnorms(x):
    torch.manual_seed(0)
    network = convert_batchnorm(_trained(timm.create_model("test_resnet", num_classes=5)))
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network)).train()
    for name in ("main", "adversarial"):
        assert {type(norm) for norm in domain_norms(synchronised, name)} == {nn.SyncBatchNorm}
        with domain(network, name), domain(synchronised, name):
            assert torch.equal(synchronised(x), network.train()(x))


def test_the_batchnorms_come_back_with_what_they_have_learnt(domains, x):
    plugin, twin, before = TimmSyncBatchNorm(), copy.deepcopy(domains), list(domains.modules())
    first = _norms(domains)[0]
    first.requires_grad_(False)
    _norms(twin)[0].requires_grad_(False)
    weights = list(domains.parameters())
    plugin.apply(domains)
    assert [a is b for a, b in zip(domains.parameters(), weights, strict=True)] == [True] * len(weights)
    for network in (domains, twin):
        optimizer = torch.optim.SGD([w for w in network.parameters() if w.requires_grad], lr=0.1)
        torch.manual_seed(0)
        with domain(network, "adversarial"):
            network.train()(x).square().sum().backward()
        optimizer.step()
        _norms(network)[0].eval()
    assert plugin.revert(domains) is domains
    assert [a is b for a, b in zip(domains.modules(), before, strict=True)] == [True] * len(before)
    assert [m.training for m in domains.modules()] == [m.training for m in twin.modules()]
    expected = twin.state_dict()
    assert list(domains.state_dict()) == list(expected)
    for key, value in domains.state_dict().items():
        assert torch.equal(value, expected[key]), key
    assert plugin.apply(domains) is domains  # a second fit
    assert {type(norm) for norm in _norms(plugin.revert(domains))} == {BatchNormAct2d}


def test_buffers_that_moved_come_back(network):
    plugin = TimmSyncBatchNorm()
    plugin.apply(network).to("meta")
    plugin.revert(network)
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}


def test_a_batchnorm_in_two_places_stays_one():
    norm = BatchNormAct2d(3)
    network = TimmSyncBatchNorm().apply(nn.Sequential(norm, nn.Sequential(norm), nn.BatchNorm1d(3)))
    assert network[0] is network[1][0]
    assert type(network[2]) is nn.SyncBatchNorm
    shared = convert_batchnorm(nn.Sequential(BatchNormAct2d(3)))[0]
    network = TimmSyncBatchNorm().apply(nn.Sequential(shared, nn.Sequential(shared)))
    assert {type(norm) for norm in _norms(network)} == {SyncBatchNormAct}


def test_synchronised_batchnorms_of_the_user_stay():
    network = nn.Sequential(nn.SyncBatchNorm(3), nn.BatchNorm2d(3))
    own, plugin = network[0], TimmSyncBatchNorm()
    assert plugin.apply(network)[0] is own
    assert plugin.revert(network)[0] is own
    assert type(network[1]) is nn.BatchNorm2d


class _Watched(LightningModule):
    """Trains a network and keeps the types of its BatchNorms meanwhile."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.seen = set()

    def training_step(self, batch, batch_idx):
        self.seen |= {type(norm) for norm in _norms(self.network)}
        self.network.eval()  # statistics of several processes need a GPU
        return self.network(batch).square().sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.network.parameters(), lr=0.0)


class _Unwrapped(DDPStrategy):
    """DistributedDataParallel refuses SyncBatchNorm on a CPU."""

    def _setup_model(self, model):
        return model


@pytest.fixture
def _own_process_group(monkeypatch):
    """Lightning starts one and keeps it."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("_own_process_group")
@pytest.mark.parametrize("flag", [True, False])
def test_the_trainer_takes_it(network, x, tmp_path, flag):
    expected, norms = network(x), _norms(network)
    module = _Watched(network)
    options = {"strategy": _Unwrapped(), "devices": 1, "sync_batchnorm": flag, "plugins": [TimmSyncBatchNorm()]}
    trainer: Trainer = quiet_trainer(tmp_path, max_steps=1, **options)
    trainer.fit(module, torch.utils.data.DataLoader(x, batch_size=6))
    assert module.seen == {SyncBatchNormAct}
    assert _norms(network) == norms
    assert torch.equal(network.eval()(x), expected)
