import copy

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from lightning_adv.nn.batchnorm import convert_batchnorm, domain, domain_norms
from lightning_adv.nn.domain_batchnorm import DomainSwitch


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


def test_the_switch():
    switch = DomainSwitch(["main", "adversarial", "large"])
    assert switch.active == "main"
    with switch.select("adversarial"):
        with switch.select("large"), switch.select("main"):
            assert switch.active == "main"
        assert switch.active == "adversarial"
    assert switch.active == "main"


@pytest.mark.parametrize("training", [True, False])
def test_every_domain_starts_as_the_network(make, x, training):
    plain, network = make().train(training), make().train(training)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    assert convert_batchnorm(network) is network
    assert all(first is second for first, second in zip(domain_norms(network, "main"), norms, strict=True))
    assert {module.training for module in network.modules()} == {training}
    expected = copy.deepcopy(plain)(x)
    assert torch.equal(network(x), expected)
    with domain(network, "adversarial"):
        assert torch.equal(network(x), expected)


def test_training_moves_the_active_domain_only(make, x):
    network, plain = convert_batchnorm(make()).train(), make().train()
    before = copy.deepcopy(network)
    torch.manual_seed(0)
    with domain(network, "adversarial"):
        network(x).square().sum().backward()
    torch.manual_seed(0)
    plain(x)
    expected = [module for module in plain.modules() if isinstance(module, _BatchNorm)]
    for updated, norm in zip(domain_norms(network, "adversarial"), expected, strict=True):
        assert all(torch.equal(*pair) for pair in zip(updated.buffers(), norm.buffers(), strict=True))
        assert updated.weight.grad is not None
    for same, norm in zip(domain_norms(network, "main"), domain_norms(before, "main"), strict=True):
        assert all(torch.equal(*pair) for pair in zip(same.buffers(), norm.buffers(), strict=True))
        assert same.weight.grad is None
    with domain(before, "adversarial"):
        clean = before.eval()(x)
    with domain(network, "adversarial"):
        assert not torch.equal(network.eval()(x), clean)
    assert torch.equal(network(x), before(x))


def test_a_batchnorm_in_two_places_stays_one(x):
    norm = nn.BatchNorm2d(4)
    network = convert_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), norm))
    assert network[1] is network[3]
    assert network[1].norms["main"] is norm
    assert len(domain_norms(network, "adversarial")) == 1


def test_flags_and_devices_are_kept():
    network = _cnn().to("meta")
    network[1].eval().requires_grad_(False)
    network[4].weight.requires_grad_(False)
    convert_batchnorm(network)
    for name in ("main", "adversarial"):
        first, second, third = domain_norms(network, name)
        assert [norm.training for norm in (first, second, third)] == [False, True, True]
        assert [norm.weight.requires_grad for norm in (first, second, third)] == [False, False, True]
        assert [norm.bias.requires_grad for norm in (first, second, third)] == [False, True, True]
        assert {tensor.device.type for norm in (first, second, third) for tensor in norm.state_dict().values()} == {
            "meta"
        }
    assert [network[i].training for i in (1, 4, 8)] == [False, True, True]


@pytest.mark.parametrize("name", ["main", "adversarial"])
def test_activation_and_dropout_of_batchnormact_are_shared(x, name):
    torch.manual_seed(0)
    norm = BatchNormAct2d(3, act_layer=nn.PReLU, drop_layer=nn.Dropout)
    twin = copy.deepcopy(norm)
    activation, dropout = norm.act, norm.drop
    network = convert_batchnorm(nn.Sequential(norm))
    assert [norm.act is activation and norm.drop is dropout for norm in domain_norms(network, name)] == [True]
    assert len(list(network.parameters())) == 5  # two weights, two biases and one slope
    x = x - 0.5
    with domain(network, name):
        torch.manual_seed(1)
        output = network(x)
    output.square().sum().backward()
    torch.manual_seed(1)
    expected = twin(x)
    expected.square().sum().backward()
    assert torch.equal(output, expected)
    assert torch.equal(activation.weight.grad, twin.act.weight.grad)
    assert activation.weight.grad != 0


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_hook_that_was_there_sees_every_domain(x, register):
    network, seen = _cnn(), []
    handle = getattr(network[1], register)(lambda module, *tensors: seen.append(module))
    convert_batchnorm(network)
    network(x)
    with domain(network, "adversarial"):
        network(x)
    assert seen == [network[1].norms["main"], network[1].norms["adversarial"]]
    handle.remove()
    with domain(network, "adversarial"):
        network(x)
    assert len(seen) == 2


def test_a_hook_that_changes_the_output_does_so_in_every_domain(x):
    plain, network = _cnn(), _cnn()
    for model in (plain, network):
        model[1].register_forward_hook(lambda module, inputs, kwargs, output: 2 * output, with_kwargs=True)
    convert_batchnorm(network)
    expected = plain(x)
    assert torch.equal(network(x), expected)
    with domain(network, "adversarial"):
        assert torch.equal(network(x), expected)


def test_a_backward_hook_that_was_there_sees_every_domain(x):
    network, seen = _cnn(), []
    network[1].register_full_backward_hook(lambda module, inputs, outputs: seen.append(module))
    convert_batchnorm(network)
    with domain(network, "adversarial"):
        loss = network(x).sum()
    loss.backward()
    assert seen == [network[1].norms["adversarial"]]


class Recorder:
    def __init__(self):
        self.outputs = []

    def __call__(self, module, inputs, output):
        self.outputs.append(output)


def test_a_hook_that_keeps_something_is_not_copied(x):
    network, recorder = _cnn(), Recorder()
    network[1].register_forward_hook(recorder)
    convert_batchnorm(network)
    with domain(network, "adversarial"):
        network(x)
    assert len(recorder.outputs) == 1


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_is_an_error(x, reentrant):
    network = convert_batchnorm(_cnn())
    x = x.requires_grad_()
    with domain(network, "adversarial"):
        logits = checkpoint(network, x, use_reentrant=reentrant)
    with pytest.raises(RuntimeError, match=r"A domain BatchNorm was called in a backward pass.*Gradient checkpointing"):
        logits.sum().backward()


def test_a_forward_between_two_backwards_is_no_checkpointing(x):
    network = convert_batchnorm(_cnn())
    x = x.requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
    (gradient.square().sum() + network(x).sum()).backward()
    network(x)
    assert x.grad is not None


def test_a_checkpoint_that_failed_leaves_the_network_usable(x):
    network = convert_batchnorm(_cnn()).eval()
    x = x.requires_grad_()
    expected = network(x)
    with pytest.raises(RuntimeError, match="backward pass"):
        checkpoint(network, x, use_reentrant=False).sum().backward()
    assert torch.equal(network(x), expected)


def test_synchronised_batchnorms_are_found():
    network = nn.SyncBatchNorm.convert_sync_batchnorm(convert_batchnorm(_cnn()))
    assert {type(norm) for name in ("main", "adversarial") for norm in domain_norms(network, name)} == {
        nn.SyncBatchNorm
    }
    network = convert_batchnorm(nn.SyncBatchNorm.convert_sync_batchnorm(_cnn()))
    assert len(domain_norms(network, "adversarial")) == 3


@pytest.mark.parametrize("domains", [[], ["main", "main"], "main"])
def test_names_that_are_no_list_of_different_names(domains):
    with pytest.raises(ValueError, match="domains must be different names, at least one"):
        convert_batchnorm(_cnn(), domains)


@pytest.mark.parametrize("name", ["", "0", "a.b", "a b", "keys", "training"])
def test_names_that_no_module_can_have(name):
    network = _cnn()
    before = list(network.modules())
    with pytest.raises(ValueError, match=f"domains must be Python identifiers .*, got '{name}'"):
        convert_batchnorm(network, ["main", name])
    assert list(network.modules()) == before


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: nn.BatchNorm2d(3), r"network must contain its BatchNorms .*, got a BatchNorm2d"),
        (
            lambda: nn.LayerNorm(4),
            "The network has no BatchNorm to give domains to.* or GroupNorm need none",
        ),
        (lambda: nn.LayerNorm(4), "need none: .* MadryTraining with the objective CrossEntropy"),
        (lambda: convert_batchnorm(_cnn()), "has domain BatchNorms already"),
    ],
)
def test_networks_that_take_no_domains(build, told):
    with pytest.raises(ValueError, match=told):
        convert_batchnorm(build())


@pytest.mark.parametrize("name", ["resnet18", "regnety_002"])
def test_gradient_checkpointing_of_timm(name):
    network = timm.create_model(name, num_classes=5)
    network.set_grad_checkpointing(True)
    with pytest.raises(ValueError, match=r"switch it off \(in timm: set_grad_checkpointing\(False\)\)"):
        convert_batchnorm(network)
    network.set_grad_checkpointing(False)
    convert_batchnorm(network).set_grad_checkpointing(True)
    with domain(network, "adversarial"):
        loss = network(torch.rand(2, 3, 32, 32)).sum()
    with pytest.raises(RuntimeError, match=r"called in a backward pass.*set_grad_checkpointing\(False\)"):
        loss.backward()


def test_batchnorms_without_momentum_average_each_domain_by_itself():
    """``momentum=None`` is the mean over all batches (torch's documentation)."""
    network = convert_batchnorm(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, momentum=None))).train()
    batches = torch.rand(3, 4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    with domain(network, "adversarial"):
        for batch in batches:
            network(batch)
    features = network[0](batches.flatten(0, 1)).detach()
    assert torch.allclose(network[1].norms["adversarial"].running_mean, features.mean(), atol=1e-6)
    assert network[1].norms["main"].running_mean.item() == 0.0
