"""A view computes the network's logits in eval mode, follows its weights, and leaves it alone."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import lightning_adv.nn.view.weights as view_weights
from lightning_adv.attacks import PGD
from lightning_adv.nn.activations import ACTIVATIONS, replace_activations, smooth_backward
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import convert_batchnorm, domain
from lightning_adv.nn.view.attack_view import AttackView, NoViewError, attack_view
from lightning_adv.nn.view.folding import Affine, Pair
from lightning_adv.nn.zoo.preact_resnet import PreActResNet
from lightning_adv.nn.zoo.wide_resnet import WideResNet
from tests.nn.slow import slow_but
from tests.nn.test_folding import Plain, stir
from tests.regimes.toy import Graphs


def own(name, **options):
    return lambda: timm.create_model(name, num_classes=5, **options)


def torchvisions(name):
    return lambda: torchvision.models.get_model(name, weights=None, num_classes=5)


def vgg11_bn():
    """Without the two layers of 4,096 units, whose initialisation takes 15 seconds."""
    vgg = torchvision.models.vgg
    features = vgg.make_layers(vgg.cfgs["A"], batch_norm=True)
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 5))


# What is built, the side of its images, and how many of its BatchNorms are folded and become an Affine.
ARCHITECTURES = {
    "ResNet": (own("resnet18"), 32, 20, 0),
    "ResNet of torchvision": (torchvisions("resnet18"), 32, 20, 0),
    "Wide ResNet": (lambda: WideResNet(5, depth=16, widen_factor=2), 32, 7, 6),
    "PreActResNet": (lambda: PreActResNet(num_classes=5), 32, 8, 9),
    "VGG-BN": (vgg11_bn, 32, 8, 0),
    "EfficientNet": (own("efficientnet_b0"), 64, 49, 0),
    "RegNet": (own("regnety_002"), 64, 44, 0),
    "MobileNetV3": (own("mobilenetv3_small_050"), 64, 34, 0),
    "DenseNet": (own("densenet121"), 64, 59, 62),
    "DenseNet of torchvision": (torchvisions("densenet121"), 64, 59, 62),
    "ConvNeXt": (own("convnext_atto"), 64, 0, 0),
    "ViT": (own("vit_tiny_patch16_224", img_size=32), 32, 0, 0),
    "Swin": (own("swin_tiny_patch4_window7_224", img_size=64, window_size=2), 64, 0, 0),
    "Inception": (own("inception_v3"), 96, 94, 0),
}


def small(seed=0, **options):
    """The digits' network with statistics that matter, in train mode."""
    torch.manual_seed(seed)
    return stir(Backbone("small_cnn", in_channels=1, options={"width": 4, **options}).build(3))


@pytest.fixture
def network():
    return small()


@pytest.fixture
def x():
    return torch.rand(6, 1, 8, 8)


def evaluated(network, x, name=None):
    """The logits of the network itself in eval mode."""
    twin = copy.deepcopy(network).eval()
    if name is None:
        return twin(x)
    with domain(twin, name):
        return twin(x)


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


# The same logits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", slow_but(ARCHITECTURES, "ResNet of torchvision", "PreActResNet", "ViT"))
def test_logits_of_twelve_architectures(name):
    build, side, folded, multiplied = ARCHITECTURES[name]
    torch.manual_seed(0)
    network = stir(build()).train()
    images = torch.rand(2, 3, side, side)
    view = attack_view(network)
    with torch.no_grad():
        assert relative(view(images), evaluated(network, images)) < 1e-5
    assert (view.folded, sum(isinstance(module, Affine) for module in view.modules())) == (folded, multiplied)
    # Weights of their own size, so that a view that follows nothing is told from one that does.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.01)
        changed = evaluated(network, images)
        assert relative(view(images), changed) < 1e-5


@pytest.mark.parametrize("name", ["main", "adversarial", "third"])
def test_through_each_domain(network, x, name):
    convert_batchnorm(network, ("main", "adversarial", "third"))
    for number, other in enumerate(("main", "adversarial", "third")):
        for path, module in network.named_modules():
            if path.endswith(f"norms.{other}"):
                stir(module, seed=number)
    view = attack_view(network, domain=name)
    others = [evaluated(network, x, other) for other in ("main", "adversarial", "third") if other != name]
    assert relative(view(x), evaluated(network, x, name)) < 1e-5
    assert all(relative(view(x), other) > 1e-2 for other in others)
    assert view.folded == 4


def test_no_domain_is_the_active_one(network, x):
    convert_batchnorm(network)
    stir(network, seed=3)
    for path, module in network.named_modules():
        if path.endswith("norms.adversarial"):
            stir(module, seed=4)
    main = attack_view(network)
    with domain(network, "adversarial"):
        adversarial = attack_view(network)
    assert relative(main(x), evaluated(network, x, "main")) < 1e-5
    assert relative(adversarial(x), evaluated(network, x, "adversarial")) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_smooth_activations(x, name):
    network = small()
    replace_activations(network, name, image_shape=(1, 8, 8))
    assert relative(attack_view(network)(x), evaluated(network, x)) < 1e-5


def test_the_gradient_is_smooth_where_the_networks_is(x):
    network = small().double()
    replace_activations(network, "smooth_backward_relu", image_shape=(1, 8, 8))
    x, view = x.double(), attack_view(network)

    def gradient(function):
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(function(leaf).square().sum(), leaf)[0]

    network.eval()
    with smooth_backward(network):
        smooth = gradient(view)
        torch.testing.assert_close(smooth, gradient(network), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient(view), gradient(network), rtol=1e-9, atol=1e-12)
    assert relative(gradient(view), smooth) > 1e-2


@pytest.mark.parametrize(
    ("memory_format", "channels"),
    [(torch.channels_last, 1), (torch.channels_last, 3), (torch.contiguous_format, 3)],
)
def test_memory_formats(memory_format, channels):
    torch.manual_seed(0)
    network = stir(Backbone("small_cnn", in_channels=channels, options={"width": 4}).build(3))
    x, seen = torch.rand(4, channels, 8, 8), []
    view = attack_view(network, memory_format=memory_format)
    view.prepare(x)
    for module in view.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert relative(view(x), evaluated(network, x)) < 1e-5
    assert len(seen) == 4
    # Strides, not is_contiguous(): those of a single channel or pixel pass for both.
    last = memory_format == torch.channels_last
    assert all((features.stride(1) == 1) is last for features in seen)


def test_a_batch_of_none(network):
    assert attack_view(network)(torch.rand(0, 1, 8, 8)).shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision(network, x, dtype):
    """As near to fp64 as autocast is, whose rounding it shares; the logits come back in fp32."""
    view = attack_view(network, dtype=dtype)
    logits = view(x)
    assert logits.dtype == torch.float32
    weights = [m.weight.dtype for m in view.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert set(weights) == {dtype}
    exact = evaluated(copy.deepcopy(network).double(), x.double())
    with torch.autocast("cpu", dtype):
        cast = evaluated(network, x)
    error, autocasts = relative(logits, exact), relative(cast, exact)
    assert 1e-5 < error < 3 * autocasts
    logits.sum()  # within no autocast


def test_within_autocast_it_rounds_as_the_network_does(network, x):
    view = attack_view(network)
    with torch.autocast("cpu", torch.bfloat16):
        logits, cast = view(x), evaluated(network, x)
    exact = evaluated(network, x)
    assert logits.dtype == cast.dtype == torch.bfloat16
    assert 1e-5 < relative(logits, exact) < 3 * relative(cast, exact)


@pytest.mark.slow
def test_compiled(network, x, monkeypatch):
    """One graph for the view, whatever its weights become."""
    graphs, original = Graphs(), nn.Module.compile
    torch._dynamo.reset()
    monkeypatch.setattr(nn.Module, "compile", lambda self: original(self, backend=graphs, fullgraph=True))
    view = attack_view(network, compile=True)
    for factor in (1.0, 1.5, 2.0):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(factor)
        leaf = x.clone().requires_grad_()
        logits = view(leaf)
        assert relative(logits, evaluated(network, x)) < 1e-5
        assert torch.autograd.grad(logits.sum(), leaf)[0].any()
    assert graphs.count == 1


def test_compiled_network_has_a_plain_view(network, x):
    wrapped = torch.compile(network, backend="eager")
    assert relative(attack_view(wrapped)(x), evaluated(network, x)) < 1e-5


# It follows the network -----------------------------------------------------------------------------------------------


def train(network, x):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.9)
    network.train()
    F.cross_entropy(network(x), torch.arange(len(x)) % 3).backward()
    optimizer.step()


def write_in_place(network, x):
    with torch.no_grad():
        network.network.layer2[0].weight.add_(0.1)


def write_statistics(network, x):
    network.train()
    with torch.no_grad():
        network(x)


def load(network, x):
    network.load_state_dict(small(seed=5).state_dict())


def replace_parameter(network, x):
    network.network.fc.weight = nn.Parameter(torch.randn(3, 16))


def replace_module(network, x):
    network.network.layer3 = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Tanh())


def add_module(network, x):
    network.network.layer3.add_module("late", nn.BatchNorm2d(8, affine=False))
    network.network.layer3.late.running_mean.fill_(0.5)


def reorder_modules(network, x):
    layers = network.network.layer3._modules
    layers["1"], layers["2"] = layers.pop("2"), layers.pop("1")


def move_normalisation(network, x):
    network.normalize.mean.fill_(0.1)


def replace_activation(network, x):
    """By one that holds the same."""
    network.network.layer1[2] = nn.SiLU()


CHANGES = [train, write_in_place, write_statistics, load, replace_parameter, replace_module, add_module]
CHANGES += [reorder_modules, replace_activation]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "dtype"), [*((change, None) for change in [*CHANGES, move_normalisation]), (train, torch.bfloat16)]
)
def test_is_never_stale(network, x, change, dtype):
    view = attack_view(network, dtype=dtype)
    before = view(x)
    change(network, x)
    after = attack_view(network, dtype=dtype)(x)
    assert relative(before, after) > 1e-3
    assert torch.equal(view(x), after)
    assert relative(view(x), evaluated(network, x)) < (1e-5 if dtype is None else 0.1)


def test_prepare_sees_what_is_written_through_data(network, x):
    """As Lightning's averaging of weights does; for images of another shape too."""
    view, larger = attack_view(network), torch.rand(2, 1, 12, 12)
    view(x), view(larger)
    network.network.fc.bias.data.add_(1)
    view.prepare(x)
    assert relative(view(x), evaluated(network, x)) < 1e-5
    assert relative(view(larger), evaluated(network, larger)) < 1e-5


class Mode:
    """State that modules share, and that is none of theirs."""

    def __init__(self):
        self.power = 1


class Stateful(nn.Module):
    """What it computes hangs on more than parameters and buffers."""

    def __init__(self):
        super().__init__()
        self.inside = small()
        self.temperature, self.offset, self.factors, self.act, self.mode = (
            1.0,
            torch.zeros(3),
            (1.0,),
            F.softplus,
            Mode(),
        )
        self.register_buffer("late", None)

    def forward(self, x):
        y = self.act(self.inside(x)) ** self.mode.power / self.temperature + self.offset
        return (y if self.late is None else y + self.late) * self.factors[0]


STATES = {
    "number": lambda network: setattr(network, "temperature", 2.0),
    "tensor": lambda network: network.offset.add_(3.0),
    "tuple": lambda network: setattr(network, "factors", (3.0,)),
    "function": lambda network: setattr(network, "act", torch.tanh),
    "object": lambda network: setattr(network.mode, "power", 2),
    "late buffer": lambda network: setattr(network, "late", torch.ones(3)),
    "stride": lambda network: setattr(network.inside.network.layer1[0], "stride", (2, 2)),
    "no bias": lambda network: setattr(network.inside.network.fc, "bias", None),
    "head": lambda network: setattr(network.inside.network, "fc", nn.Linear(16, 1)),
    "eps": lambda network: setattr(network.inside.network.layer1[1], "eps", 50.0),
}


@pytest.mark.parametrize("name", STATES)
def test_prepare_sees_every_state(x, name):
    torch.manual_seed(1)
    network = Stateful()
    with torch.no_grad():
        network.inside.network.fc.bias.fill_(0.7)
    view = attack_view(network)
    before = view(x)
    STATES[name](network)
    view.prepare(x)
    after = evaluated(network, x)
    assert before.shape != after.shape or relative(before, after) > 1e-3
    assert view(x).shape == after.shape
    assert relative(view(x), after) < 1e-5


def test_an_attack_sees_what_moved_no_counter():
    """A fused optimizer writes so."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    x, y = torch.rand(4, 3, 2, 2).double(), torch.tensor([0, 1, 2, 0])
    view, attack = attack_view(network), PGD(0.1, 1, 0.1, start="zero", norm="l2")
    first = attack(view, x, y)
    F.cross_entropy(network(x), y).backward()
    torch.optim.SGD(network.parameters(), lr=1.0, fused=True).step()
    expected = attack(network, x, y)
    assert relative(first, expected) > 1e-3
    assert torch.allclose(attack(view, x, y), expected, rtol=0, atol=1e-12)


def test_weights_that_are_tied_no_longer(x):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    network[4].weight = network[2].weight
    view = attack_view(network)
    assert relative(view(x), evaluated(network, x)) < 1e-5
    network[4].weight = nn.Parameter(torch.randn(8, 8))
    assert relative(view(x), evaluated(network, x)) < 1e-5


@pytest.mark.parametrize("shapes", [4, 5])
def test_images_of_ever_other_shapes(network, shapes):
    """Each has a copy of the weights, and making one takes longer than a view saves."""
    view, images = attack_view(network), [torch.rand(2, 1, 8 + size, 8) for size in range(shapes)]

    def rounds():
        for _ in range(3):
            for x in images:
                view.prepare(x)

    if shapes == 4:
        rounds()
    else:
        with pytest.raises(NoViewError, match="images of more than 4 shapes take turns"):
            rounds()


def test_compares_in_full_precision(network, x):
    """A backend that rounds to ten bits, as cuDNN does by default, would tell right folds from the network."""
    before, torch.backends.mkldnn.conv.fp32_precision = torch.backends.mkldnn.conv.fp32_precision, "bf16"
    try:
        assert attack_view(network).folded == 0
        view = attack_view(network)
        view.prepare(x)
        assert view.folded > 0
        assert torch.backends.mkldnn.conv.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.conv.fp32_precision = before


def test_a_network_that_changes_all_the_time_is_not_shown(x):
    network = Stateful()
    view = attack_view(network)
    for step in range(4):
        network.temperature = 1.0 + step
        view.prepare(x)
    network.temperature = 5.0
    with pytest.raises(ValueError, match="changes by more than its weights in every step"):
        view.prepare(x)


def test_other_images_in_between_cost_nothing(network, x, monkeypatch):
    """As input diversity makes them."""
    built, build = [], AttackView._build
    monkeypatch.setattr(AttackView, "_build", lambda *arguments: (built.append(1), build(*arguments))[1])
    view, larger = attack_view(network), torch.rand(2, 1, 12, 12)
    for _ in range(5):
        assert relative(view(x), evaluated(network, x)) < 1e-5
        assert relative(view(larger), evaluated(network, larger)) < 1e-5
        train(network, x)
    assert len(built) == 2


def test_follows_its_network_to_another_precision(network, x):
    view = attack_view(network)
    view(x)
    network.double()
    view.prepare(x.double())
    assert relative(view(x.double()), evaluated(network, x.double())) < 1e-10
    with pytest.raises(RuntimeError, match="A view has the device and the precision of its network"):
        view.float()


def test_an_attack_takes_the_weights_over_once(network, x, monkeypatch):
    refresh, times = view_weights.WeightPlan.refresh, []
    monkeypatch.setattr(view_weights.WeightPlan, "refresh", lambda *given: (times.append(1), refresh(*given)))
    view, attack = attack_view(network), PGD(0.1, 5, 0.05, restarts=2)
    view(x)
    for changed in (write_in_place, write_statistics):
        changed(network, x)
        built = len(times)
        attack(view, x, torch.arange(len(x)) % 3)
        assert len(times) == built + 1
        assert relative(view(x), evaluated(network, x)) < 1e-5  # outside of an attack, each call does


def test_refreshed_in_place(network, x):
    view = attack_view(network)
    view(x)
    before = [tensor.data_ptr() for tensor in (*view.parameters(), *view.buffers())]
    train(network, x)
    view(x)
    assert [tensor.data_ptr() for tensor in (*view.parameters(), *view.buffers())] == before


# It leaves the network alone ------------------------------------------------------------------------------------------


def test_has_no_gradients_and_no_state_of_the_network(network, x):
    view = attack_view(network)
    leaf = x.clone().requires_grad_()
    view(leaf).sum().backward()
    assert leaf.grad.any()
    assert not any(parameter.requires_grad for parameter in view.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())
    theirs = {tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    assert not theirs & {tensor.data_ptr() for tensor in (*view.parameters(), *view.buffers())}
    assert not any(module.training for module in view.train().modules())


def test_in_inference_mode(network, x):
    """Prepared where tensors cannot have gradients, it gives gradients nevertheless."""
    view, y = attack_view(network), torch.arange(len(x)) % 3
    with torch.inference_mode():
        view.prepare(x)
        x_adv = PGD(0.1, 2, 0.05)(view, x, y)
    assert (x_adv - x).abs().max() > 0.04


def test_of_a_network_whose_tensors_count_no_versions(x):
    with torch.inference_mode():
        network = small()
        view = attack_view(network)
        view(x)
        network.network.fc.bias.add_(1)
        assert relative(view(x), evaluated(network, x)) < 1e-5


def test_a_copy_of_a_view_follows_a_copy_of_the_network(network, x):
    view = attack_view(network)
    view(x)
    twin, its_view = copy.deepcopy((network, view))
    write_in_place(twin, x)
    assert relative(its_view(x), evaluated(twin, x)) < 1e-5
    assert relative(view(x), evaluated(network, x)) < 1e-5


# Memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "allowed"), [(None, 0.50), (torch.bfloat16, 0.25)])
def test_what_autograd_keeps(dtype, allowed):
    network = (
        Backbone("resnet18", stem="cifar", options={"channels": [8, 16, 32, 64], "stem_width": 8}).build(10).eval()
    )
    x = torch.rand(8, 3, 32, 32)

    def kept(function):
        weights = {tensor.untyped_storage().data_ptr() for tensor in (*function.parameters(), *function.buffers())}
        storages = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = (tensor, storage.nbytes())  # kept, so that no address comes twice
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            function(x.clone().requires_grad_())
        return sum(size for _, size in storages.values())

    view = attack_view(network, dtype=dtype)
    view.prepare(x)
    network.requires_grad_(False)  # as an attack holds it
    assert kept(view) <= allowed * kept(network)


# What cannot be shown -------------------------------------------------------------------------------------------------


class RandomInEval(Plain):
    def features(self, x):
        return F.dropout(super().features(x), 0.5, training=True)


class Flattened(nn.Module):
    """As LeNet is written: view() takes features that are contiguous, and nothing else."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.head = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Linear(64, 2)

    def forward(self, x):
        return self.head(self.norm(self.layer(x)).view(len(x), -1))


def test_code_that_needs_contiguous_features():
    network, x = stir(Flattened()), torch.rand(3, 4, 6, 6)
    view = attack_view(network)
    assert relative(view(x), evaluated(network, x)) < 1e-5
    assert view.folded == 1


class CachesInEval(Plain):
    """Keeps what it computes from weights while it does not train, as LeViT does."""

    def __init__(self):
        super().__init__()
        self.cache = {}

    def train(self, mode=True):
        super().train(mode)
        if mode:
            self.cache = {}
        return self

    def features(self, x):
        scale = self.cache.setdefault("scale", self.head.weight.detach().norm()) if not self.training else 1.0
        return super().features(x) * scale


class LazyTensor(Plain):
    grid = None

    def features(self, x):
        if self.grid is None:
            self.grid = torch.rand(x.shape[2:])
        return super().features(x) * self.grid


class ReadsTheNorm(Plain):
    def features(self, x):
        return super().features(x) * self.norm.eps


class HeldInAList(Plain):
    def __init__(self):
        super().__init__()
        self.masks = [torch.ones(())]

    def features(self, x):
        return super().features(x) * self.masks[0]


class Decides(Plain):
    """A buffer says who reads the convolution's output."""

    def __init__(self):
        super().__init__()
        self.register_buffer("alpha", torch.zeros(()))

    def features(self, x):
        y = super().features(x)
        return y + self.alpha * x if self.alpha > 0 else y


class HiddenModule(Plain):
    def __init__(self):
        super().__init__()
        self.hidden = (nn.Conv2d(4, 4, 1),)

    def features(self, x):
        return super().features(self.hidden[0](x))


class HoldsOn(nn.Module):
    """Its forward is a function that a copy shares, with the original's layers in it."""

    def __init__(self):
        super().__init__()
        self.inside = Plain()
        inside = self.inside
        self.function = lambda x: inside(x)

    def forward(self, x):
        return self.function(x)


def derived_weight():
    network = Plain()
    network.layer.kept = network.layer.weight * 2  # no leaf: torch does not copy it
    return network


UNABLE = {
    "random": (RandomInEval, "computes other logits"),
    "holds_on": (HoldsOn, "which it holds on to"),
    "derived": (derived_weight, "does not run .*deepcopy"),
    "half": (lambda: Plain().bfloat16(), "in torch.bfloat16"),
    "cache": (CachesInEval, "it changes when it is called, in eval mode too"),
    "lazy": (LazyTensor, "a copy of it|it changes when it is called"),
    "reads the norm": (ReadsTheNorm, "'Identity' object has no attribute 'eps'"),
    "list": (HeldInAList, "HeldInAList holds a Tensor"),
    "decides": (Decides, "reads numbers of tensors"),
    "hidden": (HiddenModule, "HiddenModule holds a Conv2d"),
    "traced": (lambda: torch.jit.trace(Plain().eval(), torch.rand(1, 4, 6, 6)), ""),
}


@pytest.mark.parametrize("name", UNABLE)
def test_says_what_it_cannot_do(name):
    build, message = UNABLE[name]
    network, x = build(), torch.rand(2, 4, 6, 6)
    random_state = torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        attack_view(network)(x)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_hooks(network, x):
    handle = network.network.layer1.register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(ValueError, match="hooks"):
        attack_view(network)(x)
    handle.remove()
    assert relative(attack_view(network)(x), evaluated(network, x)) < 1e-5


def test_a_wrong_fold_is_noticed_in_a_branch_that_is_off(monkeypatch):
    """A BatchNorm whose weight is zero hides what is before it: as many residual branches start."""

    def skipping():
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)),
            *(nn.Flatten(), nn.Linear(144, 2)),
        )
        nn.init.zeros_(network[4].weight)
        return network

    found = view_weights.find_foldable

    def wrong(network, images, foreign):
        right = found(network, images, foreign)
        return right._replace(pairs=[*right.pairs, Pair(network[0], network[2])], lone=[])

    x = torch.rand(2, 4, 6, 6)
    attack_view(skipping())(x)
    monkeypatch.setattr(view_weights, "find_foldable", wrong)
    with pytest.raises(ValueError, match="computes other logits"):
        attack_view(skipping())(x)


def test_batch_statistics_are_refused(network, x):
    with pytest.raises(ValueError, match=r"batchnorm=.batch. needs the statistics .* attack the network itself"):
        PGD(0.1, batchnorm="batch")(attack_view(network), x, torch.arange(len(x)) % 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domain": "adversarial"}, "no domain BatchNorm"),
        ({"dtype": torch.float32}, "dtype must be torch.bfloat16, torch.float16 or None, got torch.float32"),
        ({"compile": "fastest"}, "compile must be true, false or one of default, .*, got 'fastest'"),
    ],
)
def test_bad_arguments(network, arguments, message):
    with pytest.raises(ValueError, match=message):
        attack_view(network, **arguments)
