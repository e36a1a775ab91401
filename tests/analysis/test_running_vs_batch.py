"""Statistics of batches: against closed forms, and against what BatchNorm itself computes when it trains."""

import copy

import pytest
import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.analysis.batchnorm_drift import (
    ChannelStatistics,
    tracked_batchnorms,
)
from lightning_adv.analysis.running_vs_batch import (
    BatchStatisticsMetric,
    batch_statistics,
    gap_records,
    statistics_gap,
)
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import InDomain, convert_batchnorm, domain, through
from lightning_adv.nn.layers import named_batchnorms


def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.Flatten()
    )


def images(count=6, channels=3, side=8, seed=0):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def scrambled(network):
    """Running statistics that no batch has, and affine parameters that let layers tell batches apart."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.running_mean.normal_(5, 3, generator=generator)
                module.running_var.uniform_(0.1, 9, generator=generator)
                module.weight.uniform_(0.5, 2, generator=generator)
                module.bias.normal_(0, 1, generator=generator)
    return network


def updated_by_training(network, x, name=None):
    """What BatchNorm puts into its running statistics where all of it is of the last batch."""
    trained = copy.deepcopy(network).eval()
    for norm in named_batchnorms(through(trained, name)).values():
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        if name is None:
            trained(x)
        else:
            with domain(trained, name):
                trained(x)
    return {
        layer: (norm.running_mean, norm.running_var) for layer, norm in named_batchnorms(through(trained, name)).items()
    }


def assert_statistics(found, expected, **tolerance):
    tolerance = {"rtol": 1e-4, "atol": 1e-5} | tolerance
    assert list(found) == list(expected)
    for layer, (mean, variance) in expected.items():
        torch.testing.assert_close(found[layer].mean, mean, msg=layer, **tolerance)
        torch.testing.assert_close(found[layer].variance, variance, msg=layer, **tolerance)


# One batch ------------------------------------------------------------------------------------------------------------


def test_in_closed_form():
    """Pixels 0 and 2 in equal parts, times 3: mean 3, unbiased variance 9 · 8/7. Then by BatchNorm to N(-1, 4)."""
    network = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.5), nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1)
    ).eval()
    with torch.no_grad():
        network[0].weight.fill_(3)
        network[1].weight.fill_(2)
        network[1].bias.fill_(-1)
        network[2].weight.fill_(1)
    x = torch.tensor([0.0, 2.0]).repeat(4).reshape(2, 1, 2, 2)
    found = batch_statistics(network, x)
    assert found["1"].mean.item() == pytest.approx(3)
    assert found["1"].variance.item() == pytest.approx(9 * 8 / 7)
    assert found["1"].eps == 0.5
    assert found["3"].mean.item() == pytest.approx(-1)
    assert found["3"].variance.item() == pytest.approx(4 * 9 / 9.5 * 8 / 7), "normalised by the biased variance 9 + eps"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_against_what_batchnorm_computes_itself(name):
    torch.manual_seed(0)
    network = scrambled(Backbone(name).build(2)).train()
    x = images(4, side=32)
    assert_statistics(batch_statistics(network, x), updated_by_training(network, x), rtol=2e-3, atol=1e-3)


def test_each_domain_sees_what_it_sees_in_training():
    torch.manual_seed(0)
    network = Backbone("small_cnn", in_channels=1, options={"width": 4}).build(2)
    scrambled(convert_batchnorm(network))
    x = images(channels=1)
    found = {name: batch_statistics(InDomain(network, name), x) for name in ("main", "adversarial")}
    for name, statistics in found.items():
        assert_statistics(statistics, updated_by_training(network, x, name))
    torch.testing.assert_close(found["main"]["layer1.1"].mean, found["adversarial"]["layer1.1"].mean)
    assert not torch.allclose(found["main"]["layer2.1"].mean, found["adversarial"]["layer2.1"].mean, atol=0.01)


def test_what_training_holds_still_is_held_still():
    """Frozen BatchNorms normalise by their running statistics: the layers behind them see other features."""
    torch.manual_seed(0)
    network = scrambled(Backbone("small_cnn", in_channels=1, options={"width": 4}).build(2)).train()
    held = [named_batchnorms(network)[name] for name in ("layer1.1", "layer3.1")]
    for norm in held:
        norm.eval()
        norm.running_var.fill_(4.0)
    x = images(channels=1)
    found = batch_statistics(network, x, held=held)
    trained = copy.deepcopy(network)
    for norm in named_batchnorms(trained).values():
        norm.momentum = 1.0
    trained(x)
    for name in ("layer2.1", "layer4.1"):
        norm = named_batchnorms(trained)[name]
        torch.testing.assert_close(found[name].mean, norm.running_mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[name].variance, norm.running_var, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found["layer2.1"].variance, batch_statistics(network, x)["layer2.1"].variance, rtol=0.1)
    assert [norm.training for norm in held] == [False, False]


def test_one_dimensional_features():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).eval()
    x = images(5, channels=1, side=2)
    features = network[:2](x).detach()
    assert_statistics(batch_statistics(network, x), {"2": (features.mean(0), features.var(0))})


class Twice(nn.Module):
    """Calls one BatchNorm two times, and another one never."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.unused = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(x), self.norm(3 * x + 1)


def test_several_calls_and_none():
    x = images()
    (found,) = batch_statistics(Twice().eval(), x).items()
    variance, mean = torch.var_mean(x, dim=(0, 2, 3))
    assert_statistics(dict([found]), {"norm": ((mean + 3 * mean + 1) / 2, (variance + 9 * variance) / 2)})
    # the same that cumulative running statistics come to
    counting = Twice().train()
    counting.norm.momentum = None
    counting(x)
    assert_statistics(dict([found]), {"norm": (counting.norm.running_mean, counting.norm.running_var)})


def test_squares_that_overflow_in_half_precision():
    class Loud(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            return self.norm((1000 * x).half())

    x = images()
    found = batch_statistics(Loud(), x)["norm"]
    half = (1000 * x).half().double()
    assert found.mean.dtype == torch.float32
    torch.testing.assert_close(found.mean.double(), half.mean((0, 2, 3)), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.variance.double(), half.var((0, 2, 3)), rtol=1e-5, atol=0)
    assert found.variance.max() > torch.finfo(torch.half).max


def test_float64_stays():
    network = build().double()
    found = batch_statistics(network, images().double())
    expected = updated_by_training(network, images().double())
    assert_statistics(found, expected, rtol=1e-12, atol=1e-12)


def test_autocast():
    network = build()
    with torch.autocast("cpu", torch.bfloat16):
        found = batch_statistics(network, images())
        features = network[0](images()).detach().float()
    assert features.ne(network[0](images())).any(), "it was in bfloat16"
    assert found["1"].mean.dtype == torch.float32
    torch.testing.assert_close(found["1"].mean, features.mean((0, 2, 3)))
    torch.testing.assert_close(found["1"].variance, features.var((0, 2, 3)))


def test_inference_mode_and_no_grad():
    expected = batch_statistics(build(), images())
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            found = batch_statistics(build(), images())
        assert_statistics(found, {name: (s.mean, s.variance) for name, s in expected.items()}, rtol=0, atol=0)


@pytest.mark.slow
def test_compiled_networks_are_seen_too():
    network = build()
    network.compile(backend="eager")
    network(images())
    expected = batch_statistics(build(), images())
    assert_statistics(batch_statistics(network, images()), {n: (s.mean, s.variance) for n, s in expected.items()})


@pytest.mark.filterwarnings("ignore:var_mean")
def test_a_single_value_for_each_channel_is_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        batch_statistics(network, images(1, channels=1, side=2))


# Nothing changes ------------------------------------------------------------------------------------------------------


def everything(network):
    """Flags, hooks, and the tensors themselves, in their order."""
    flags = [(module.training, len(module._forward_pre_hooks)) for module in network.modules()]
    parameters = [(name, id(p), p.requires_grad, p.grad) for name, p in network.named_parameters()]
    buffers = [(name, id(buffer), buffer._version) for name, buffer in network.named_buffers()]
    return flags, parameters, buffers, list(network.state_dict())


@pytest.mark.parametrize("convert", [lambda n: n, nn.SyncBatchNorm.convert_sync_batchnorm, convert_batchnorm])
def test_the_network_is_left_as_it_was(convert):
    network = convert(build()).train()
    network[0].eval()
    network[3].weight.requires_grad_(False)
    network.add_module("bare", nn.BatchNorm1d(80, track_running_stats=False))
    before, values = everything(network), {k: v.clone() for k, v in network.state_dict().items()}
    random = torch.get_rng_state()
    batch_statistics(network, images())
    assert everything(network) == before
    assert all(torch.equal(value, values[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("broken")


def test_the_network_is_left_as_it_was_by_an_error():
    network = build().train()
    network.add_module("broken", Broken())
    before = everything(network)
    with pytest.raises(RuntimeError, match="broken"):
        batch_statistics(network, images())
    assert everything(network) == before


def test_sync_batchnorm_with_an_activation_inside():
    torch.manual_seed(0)
    network = scrambled(Backbone("efficientnet_b0").build(2))
    x = images(4, side=32)
    expected = batch_statistics(network, x)
    found = batch_statistics(convert_sync_batchnorm(network), x)
    assert_statistics(found, {name: (s.mean, s.variance) for name, s in expected.items()}, rtol=0, atol=0)


# Several batches ------------------------------------------------------------------------------------------------------


def gathered(network, share):
    """Return the metric of some of three batches."""
    metric = BatchStatisticsMetric(tracked_batchnorms(network), batches=3)
    for index in share:
        metric.update(index, batch_statistics(network, images(4, seed=index)))
    return metric


def test_metric_keeps_batches_apart():
    network = build()
    found = gathered(network, [2, 0, 1]).compute()
    assert {name: moments.shape for name, moments in found.items()} == {"1": (2, 3, 4), "4": (2, 3, 5)}
    for index in range(3):
        expected = updated_by_training(network, images(4, seed=index))
        for name, (mean, variance) in expected.items():
            torch.testing.assert_close(found[name][0, index], mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found[name][1, index], variance, rtol=1e-4, atol=1e-5)


def test_metric_leaves_out_what_was_not_reached():
    network = Twice()
    metric = BatchStatisticsMetric(tracked_batchnorms(network), batches=1)
    metric.update(0, batch_statistics(network, images()))
    assert list(metric.compute()) == ["norm"]


def test_metric_of_one_channel_and_float64():
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).double()
    metric = BatchStatisticsMetric(tracked_batchnorms(network), batches=1)
    metric.update(0, batch_statistics(network, images(channels=1).double()))
    (moments,) = metric.compute().values()
    assert moments.shape == (2, 1, 1)
    assert moments.dtype == torch.float64


def test_processes_that_share_batches_are_one():
    """What a reduction over processes does: it adds up the states. The second process has fewer batches."""
    first, second = (gathered(build(), share) for share in ([0, 2], [1]))
    first.merge_state(second)
    one = gathered(build(), range(3)).compute()
    assert all(torch.equal(moments, one[name]) for name, moments in first.compute().items())


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_sync_batchnorm_waits_for_no_other_process():
    """In train mode it would synchronise, which on the CPU it refuses to begin with."""
    network = nn.SyncBatchNorm.convert_sync_batchnorm(build()).train()
    with pytest.raises(ValueError, match="SyncBatchNorm expected input tensor to be on GPU"):
        copy.deepcopy(network)(images())
    found, expected = gathered(network, range(3)).compute(), gathered(build(), range(3)).compute()
    assert all(torch.equal(moments, expected[name]) for name, moments in found.items())


# The gap --------------------------------------------------------------------------------------------------------------


def test_gap_by_hand():
    running = ChannelStatistics(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0]), 1.0)
    moments = torch.tensor([[[2.0, 0.0], [-1.0, 3.0]], [[1.0, 0.5], [11.0, 0.0]]])
    gap = statistics_gap(running, moments)
    assert gap.mean.tolist() == [[1, 0], [2, 3]]
    assert gap.variance.tolist() == [[2, 0.5], [8, 0]]
    assert gap.relative_mean.tolist() == [[0.5, 0], [1, 3]], "by sqrt(3 + 1) and sqrt(0 + 1)"
    assert gap.relative_variance.tolist() == [[0.5, 0.5], [2, 0]]


def test_records_by_hand():
    running = {"": {"a": ChannelStatistics(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0]), 1.0)}}
    clean = torch.tensor([[[2.0, 0.0], [-1.0, 3.0]], [[1.0, 0.5], [11.0, 0.0]]])
    adversarial = torch.stack([clean[0] + 1, clean[1]])
    batches = {"clean": {"": {"a": clean}}, "adversarial": {"": {"a": adversarial}}}
    records = gap_records(running, batches, {"a": [1]})
    assert {(r.name, r.domain) for r in records} == {("a", "")}
    assert {r.statistic: r.value for r in records} == {
        "running_mean[1]": 0,
        "running_variance[1]": 0,
        "clean_mean_gap": 1.5,
        "clean_variance_gap": 2.625,
        "clean_relative_mean_gap": 1.125,
        "clean_relative_variance_gap": 0.75,
        "clean_mean_batch0[1]": 0,
        "clean_mean_batch1[1]": 3,
        "clean_variance_batch0[1]": 0.5,
        "clean_variance_batch1[1]": 0,
        "adversarial_mean_gap": (2 + 1 + 1 + 4) / 4,
        "adversarial_variance_gap": 2.625,
        "adversarial_relative_mean_gap": (1 + 1 + 0.5 + 4) / 4,
        "adversarial_relative_variance_gap": 0.75,
        "adversarial_mean_batch0[1]": 1,
        "adversarial_mean_batch1[1]": 4,
        "adversarial_variance_batch0[1]": 0.5,
        "adversarial_variance_batch1[1]": 0,
    }
