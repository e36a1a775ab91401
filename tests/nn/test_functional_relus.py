"""ReLUs that a module calls as functions: which are found, retraced, and refused."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_adv.nn.functional_relus import find_functional_relus, make_relus_modules

SHAPE = (3, 8, 8)


class Block(nn.Module):
    """One call of a ReLU, by whatever function."""

    def __init__(self, relu=F.relu):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = relu

    def forward(self, x):
        return self.relu(self.conv(x))


def _replaced(network):
    """Replace, and check that the output in both modes is what it was."""
    x = torch.randn(2, *SHAPE) * 10
    plain = copy.deepcopy(network)
    replaced = make_relus_modules(network, SHAPE)
    for training in (True, False):
        assert torch.equal(replaced.train(training)(x.clone()), plain.train(training)(x.clone()))
    assert find_functional_relus(replaced, SHAPE) == []
    return replaced


def _relus(network):
    return [type(module) for module in network.modules() if isinstance(module, (nn.ReLU, nn.ReLU6))]


@pytest.mark.parametrize(
    ("relu", "kind"),
    [
        (F.relu, nn.ReLU),
        (torch.relu, nn.ReLU),
        (torch.relu_, nn.ReLU),
        (F.relu6, nn.ReLU6),
        (lambda x: x.relu(), nn.ReLU),
        (lambda x: x.relu_(), nn.ReLU),
        (lambda x: F.relu(input=x, inplace=True), nn.ReLU),
        (lambda x: F.relu(x, True), nn.ReLU),
        (lambda x: F.relu6(x, inplace=True), nn.ReLU6),
    ],
)
def test_each_way_to_call_it(relu, kind):
    network = _replaced(nn.Sequential(Block(relu), Block(relu)))
    assert _relus(network) == [kind, kind]


def test_the_network_itself_makes_the_call():
    network = Block()
    replaced = _replaced(network)
    assert replaced is not network
    assert type(replaced).__name__ == "Block"
    assert replaced.conv is network.conv


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_of_a_retraced_network(copied):
    network = _replaced(nn.Sequential(Block(), nn.BatchNorm2d(3)))
    twin, x = copied(network), torch.randn(2, *SHAPE)
    assert list(twin.state_dict()) == list(network.state_dict())
    assert torch.equal(twin(x), network(x))
    assert twin[0].conv.weight.data_ptr() != network[0].conv.weight.data_ptr()


@pytest.mark.slow
def test_compiled():
    torch._dynamo.reset()
    network, x = _replaced(Block()), torch.randn(2, *SHAPE)
    torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="aot_eager")(x), network(x))


def test_state_keeps_its_keys_and_order():
    class Unordered(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("late", torch.ones(1))
            self.register_buffer("hidden", torch.ones(1), persistent=False)
            self.unused, self.second, self.first = nn.Linear(2, 2), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            self.scale = nn.Parameter(torch.full((1,), 2.0))
            self.layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Identity())

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return self.second(F.relu(self.first(x) * self.scale)) + self.late + self.hidden

    network = Unordered()
    replaced = _replaced(network)
    assert list(replaced.state_dict()) == list(network.state_dict())
    # torch.fx of torch 2.11 makes buffers that are not saved persistent in its copies
    copied = [key for key in copy.deepcopy(replaced).state_dict() if key != "hidden" or torch.__version__ >= "2.12"]
    assert copied == list(network.state_dict())


def test_a_module_used_twice_and_a_call_in_a_loop():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(3))
            self.activation0 = nn.Identity()  # a name that is taken

        def forward(self, x):
            for conv in self.convs:
                x = F.relu(conv(x))
            return self.activation0(x)

    loop = Loop()
    network = _replaced(nn.Sequential(loop, nn.Identity(), loop))
    assert network[0] is network[2]
    assert _relus(network) == [nn.ReLU] * 3
    assert all(not parameter.is_meta for parameter in network.parameters())


def test_calls_within_calls():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(Block(), nn.Sequential(Block(torch.relu)))

        def forward(self, x):
            return self.inner(x.relu()).relu_()

    assert len(_relus(_replaced(nn.Sequential(Outer())))) == 4


def test_what_is_read_after_an_in_place_call():
    class InPlace(nn.Module):
        def forward(self, x):
            y = 2 * x
            before = y + 1
            y.relu_()
            return y + F.relu(before, inplace=True) * before

    _replaced(nn.Sequential(nn.Conv2d(3, 3, 1), InPlace()))


def test_an_argument_that_steers_the_code():
    class Steered(nn.Module):
        def forward(self, x, shortcut=None, scale=1.0):
            return F.relu(x * scale) if shortcut is None else shortcut

    class Caller(nn.Module):
        def __init__(self):
            super().__init__()
            self.steered = Steered()

        def forward(self, x):
            return self.steered(x, None, scale=3.0)

    _replaced(nn.Sequential(nn.Conv2d(3, 3, 1), Steered()))
    _replaced(Caller())


def test_a_call_in_train_mode_only():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def forward(self, x):
            return self.block(x) if self.training else x

    assert _relus(_replaced(Auxiliary())) == [nn.ReLU]


def test_a_buffer_that_the_code_writes():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros((), dtype=torch.long))

        def forward(self, x):
            self.calls.add_(1)
            return F.relu(x)

    network = make_relus_modules(nn.Sequential(nn.Conv2d(3, 3, 1), Counter()), SHAPE)
    assert network[1].calls == 0
    network(torch.rand(2, *SHAPE))
    assert network[1].calls == 1


def test_clamp_is_left():
    class Guard(nn.Module):
        def forward(self, x):
            return x.square().mean(1).clamp(min=0).sqrt()

    network = Guard()
    assert make_relus_modules(network, SHAPE) is network


def test_the_dry_forward_leaves_no_trace():
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.ReLU(), Block())
    network.train()
    network[1].eval()
    state, rng = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    (call,) = find_functional_relus(network, SHAPE)
    assert (call.path, call.function) == ("4", "relu")
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(network.state_dict()[key], state[key]) for key in state)
    assert [module.training for module in network] == [True, False, True, True, True]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def _branch_on_values(self, x):
    return F.relu(x) if x.shape[0] > 1 else x


def _branch_on_mode(self, x):
    return F.relu(F.dropout(x, 0.5, training=self.training))


def _branch_on_type(self, x):
    return F.relu(x) if isinstance(x, torch.Tensor) else F.relu(x) + 1


@torch.fx.wrap
def _opaque(x):
    return F.relu(x)


def _call_of_an_opaque_function(self, x):
    return _opaque(x)


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (_branch_on_values, "torch.fx cannot trace it"),
        (_branch_on_mode, "its code differs between train and eval mode"),
        (_branch_on_type, "torch.fx traces it into something else"),
        (_call_of_an_opaque_function, "it is there still after torch.fx has traced it"),
    ],
)
def test_calls_that_cannot_be_reached(forward, reason):
    module = type("Stubborn", (nn.Module,), {"forward": forward})()
    network = nn.Sequential(nn.Conv2d(3, 3, 1), module)
    with pytest.raises(
        ValueError, match=rf"activation cannot replace the call of relu\(\) in '1' \(Stubborn\): .*{reason}"
    ):
        make_relus_modules(network, SHAPE)


def test_a_module_that_is_hidden_in_a_list():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = [nn.ReLU()]

        def forward(self, x):
            return self.hidden[0](x)

    with pytest.raises(ValueError, match=r"the call of relu\(\) in Hidden: torch.fx cannot trace it"):
        make_relus_modules(Hidden(), SHAPE)
