"""replace_activations on networks of timm, of torchvision and of this package."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_adv.nn.activations import ACTIVATIONS, SmoothBackwardReLU, SmoothReLU, find_kinks, replace_activations
from lightning_adv.nn.backbones import create_backbone
from tests.nn.slow import slow_but

# name -> size of the images, ReLUs as modules, ReLUs as function calls
NETWORKS = {
    "timm/resnet18": (32, 17, 0),
    "timm/resnet26d": (32, 27, 0),  # deep stem
    "timm/seresnet18": (32, 25, 0),  # squeeze and excitation
    "timm/legacy_seresnet18": (64, 17, 0),
    "timm/regnety_002": (32, 53, 0),
    "timm/mobilenetv3_small_050": (32, 14, 0),  # Hardswish and Hardsigmoid too
    "timm/vgg11_bn": (32, 10, 0),
    "timm/densenet121": (32, 121, 0),  # BatchNormAct2d
    "timm/mobilevitv2_050": (32, 0, 9),  # in the attention, whose code depends on an argument
    "preact_resnet18": (16, 17, 0),
    "wide_resnet28_10": (8, 25, 0),
    "small_cnn": (8, 4, 0),
    "torchvision/resnet18": (32, 9, 0),  # one module for the two ReLUs of a block
    "torchvision/densenet121": (32, 120, 1),
    "torchvision/googlenet": (32, 0, 57),
    "torchvision/inception_v3": (75, 0, 94),
    "torchvision/mobilenet_v2": (32, 35, 0),  # ReLU6
    "torchvision/shufflenet_v2_x0_5": (32, 37, 0),
    "torchvision/squeezenet1_0": (32, 26, 0),
    "torchvision/mnasnet0_5": (32, 35, 0),
}


class _Kinks(TorchDispatchMode):
    """Counts the operations, below autograd, that cut off the negative part."""

    OPERATIONS = ("relu", "relu_", "threshold", "clamp", "clamp_", "clamp_min", "clamp_min_", "hardtanh", "hardtanh_")
    OPERATIONS += ("maximum", "relu6", "leaky_relu")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in self.OPERATIONS
        return func(*args, **(kwargs or {}))


def _run(network, x):
    with _Kinks() as mode, torch.no_grad():
        output = network(x)
    return mode.count, output


def _snapshot(network):
    flags = {name: module.training for name, module in network.named_modules()}
    return flags, {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("name", slow_but(NETWORKS, "small_cnn", "torchvision/resnet18", "timm/vgg11_bn"))
def test_every_relu_and_nothing_else(name):
    size, modules, functions = NETWORKS[name]
    torch.manual_seed(0)
    network = create_backbone(name, 5, options={"mlp_ratio": 0.01} if name == "timm/vgg11_bn" else None).network
    x = torch.randn(2, 3, size, size)
    network.train()
    next(network.children()).eval()
    relus = sum(isinstance(module, (nn.ReLU, nn.ReLU6)) for module in network.modules())
    assert relus == modules
    flags, state = _snapshot(network)
    rng = torch.get_rng_state()
    smooth = replace_activations(copy.deepcopy(network), "softplus", image_shape=(3, size, size))
    exact = replace_activations(copy.deepcopy(network), "smooth_backward_relu", image_shape=(3, size, size))
    assert torch.equal(torch.get_rng_state(), rng)
    for replaced, kind in ((smooth, nn.Softplus), (exact, SmoothBackwardReLU)):
        new = [module for module in replaced.modules() if isinstance(module, kind)]
        assert len(new) == modules + functions
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in replaced.modules())
        new_flags, new_state = _snapshot(replaced)
        assert {key: new_flags[key] for key in flags} == flags
        assert list(new_state) == list(state)
        assert all(torch.equal(new_state[key], state[key]) for key in state)

    # ReLU by another name gives the same bits
    exact.eval()
    network.eval()
    kinks, expected = _run(network, x)
    assert kinks >= modules + functions
    assert torch.equal(_run(exact, x)[1], expected)
    # and with Softplus no ReLU is left
    kinks, output = _run(smooth.eval(), x)
    assert kinks == 0
    assert not torch.allclose(output, expected)
    assert _run(smooth.train(), x)[0] == 0


def _small_densenet():
    return torchvision.models.DenseNet(num_classes=3, growth_rate=4, num_init_features=8, block_config=(1, 1, 1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(name):
    network = _small_densenet()
    x = torch.randn(2, 3, 32, 32)
    replaced = replace_activations(network, name, image_shape=(3, 32, 32))
    replaced(x).sum().backward()
    parameters = dict(replaced.named_parameters())
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in parameters.values())
    alphas = [key for key in parameters if key.endswith("beta")]
    assert len(alphas) == (13 if name == "smooth_relu" else 0)
    # the weights of one network into another, from the state dict alone
    torch.manual_seed(1)
    other = _small_densenet()
    other = replace_activations(other, name, image_shape=(3, 32, 32))
    other.load_state_dict(replaced.state_dict())
    with torch.no_grad():
        assert torch.equal(other.eval()(x), replaced.eval()(x))


def test_options():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ReLU6(inplace=True), nn.Sigmoid(), nn.Hardswish())
    network = replace_activations(network, "celu", options={"alpha": 1.5}, image_shape=(3, 8, 8))
    assert [type(module) for module in network[1:]] == [nn.CELU, nn.CELU, nn.Sigmoid, nn.Hardswish]
    assert [network[1].alpha, network[2].alpha] == [1.5, 1.5]
    assert not network[2].inplace


def test_relu6_keeps_its_cap_where_the_forward_pass_stays():
    network = nn.Sequential(nn.Identity(), nn.ReLU6(), nn.ReLU())
    x = torch.full((1, 3, 2, 2), 9.0)
    replaced = replace_activations(network, "smooth_backward_relu", image_shape=(3, 2, 2))
    assert [replaced[1].cap, replaced[2].cap] == [6.0, None]
    assert replaced(x).max() == 6
    assert replaced[1].gradient_switch is replaced[2].gradient_switch


@pytest.mark.slow
def test_a_shared_module_stays_one():
    network = torchvision.models.resnet18(num_classes=3)
    replace_activations(network, "smooth_relu", image_shape=(3, 32, 32))
    assert sum(isinstance(module, SmoothReLU) for module in network.modules()) == 9
    relu = nn.ReLU()
    network = replace_activations(nn.Sequential(relu, nn.Identity(), relu), "silu", image_shape=(3, 4, 4))
    assert network[0] is network[2]
    assert isinstance(network[0], nn.SiLU)


def test_subclasses_count():
    class Mine(nn.ReLU):
        pass

    network = replace_activations(nn.Sequential(Mine().eval()).train(), "silu", image_shape=(3, 4, 4))
    assert isinstance(network[0], nn.SiLU)


def test_train_flag_dtype_and_parameters():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU().eval()).double()
    network = replace_activations(network, "smooth_relu", image_shape=(3, 8, 8))
    assert not network[1].training
    assert network[0].training
    assert network[1].beta.dtype == torch.float64


def test_find_kinks():
    assert find_kinks(_small_densenet(), (3, 32, 32))[-2:] == [
        "the ReLU at features.denseblock4.denselayer1.relu2",
        "the call of relu() in DenseNet",
    ]
    assert find_kinks(timm.create_model("test_efficientnet"), (3, 32, 32)) == []


def test_an_unknown_name():
    with pytest.raises(
        ValueError, match=r"activation must be one of softplus, .*, got 'sillu'\. Did you mean 'silu'\?"
    ):
        replace_activations(nn.ReLU(), "sillu", image_shape=(3, 8, 8))


@pytest.mark.parametrize("options", [{"beta": 1.0}, {"alpha": "large"}])
def test_options_that_do_not_fit(options):
    with pytest.raises(ValueError, match=r"options \{.*\} do not fit activation 'smooth_relu'"):
        replace_activations(nn.ReLU(), "smooth_relu", options=options, image_shape=(3, 8, 8))


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (
            lambda: timm.create_model("efficientnet_b0"),
            r"Net has none: .* \(SiLU, Sigmoid\) are smooth already",
        ),
        (lambda: timm.create_model("test_convnext"), r"NeXt has none: .* \(GELUTanh\) .*, so leave activation out"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU()), r"none: its activations are LeakyReLU\."),
        (lambda: nn.Sequential(SmoothBackwardReLU()), "none: its activations are SmoothBackwardReLU"),  # a second time
        (lambda: nn.Conv2d(3, 4, 3), r"Conv2d has none\."),
    ],
)
def test_networks_without_relu(build, told):
    with pytest.raises(ValueError, match=rf"activation 'silu' replaces ReLUs, .*{told}"):
        replace_activations(build(), "silu", image_shape=(3, 32, 32))


def test_images_that_the_network_does_not_take():
    network = timm.create_model("test_resnet", num_classes=2)
    with pytest.raises(ValueError, match=r"ResNet does not run on images of image_shape \(1, 32, 32\) \(C, H, W\)"):
        replace_activations(network, "silu", image_shape=(1, 32, 32))
    assert sum(isinstance(module, nn.ReLU) for module in network.modules()) > 5


def test_a_batchnorm_without_momentum_counts_on_as_before():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.ReLU())
    network(torch.rand(2, 1, 8, 8))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    replace_activations(network, "silu", image_shape=(1, 8, 8))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert isinstance(network[2], nn.SiLU)
