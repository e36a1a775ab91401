"""Promise 4: attacks work within no_grad, inference_mode, autocast, DDP and a compiled model."""

import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from lightning_adv.attacks import APGD, FGSM, PGD, CarliniWagner, held_still

NETWORKS = ["cnn", "resnet", "efficientnet", "vit"]
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# From the predicted label, so that every sample has a way to go.
NEAREST = {"learning_rate": 0.05, "initial_const": 1e3, "binary_search_steps": 2, "label": "predicted"}
# Settings of PGD, but for the last two.
ATTACKS = {
    "linf": {},
    "l2": {"norm": "l2", "eps": 0.5, "step_size": 0.3},
    "l1": {"norm": "l1", "eps": 4, "step_size": 3},
    "target": {"label": "random", "start": "zero", "momentum": 1.0},
    "restarts": {"loss": "kl", "restarts": 2},
    "diversity": {"diversity_probability": 1, "diversity_scale": 0.8, "label": "predicted"},
    "CarliniWagner": NEAREST,
    "APGD": {"norm": "l2", "eps": 0.5, "loss": "dlr"},
}


def _build(attack, steps=2, **settings):
    kind = {"CarliniWagner": CarliniWagner, "APGD": APGD}.get(attack, PGD)
    return kind(steps=5 * steps if kind is CarliniWagner else steps, **ATTACKS[attack], **settings)


def _generator():
    return torch.Generator().manual_seed(0)


def _autocast(precision):
    return torch.autocast("cpu", PRECISIONS[precision], enabled=precision != "fp32")


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
@pytest.mark.parametrize("batchnorm", ["eval", "batch"])
@pytest.mark.parametrize(("name", "attack"), [("cnn", "diversity"), *((n, "linf") for n in NETWORKS[1:])])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_gradients(build, images, context, batchnorm, name, attack, precision):
    attack, network = _build(attack, batchnorm=batchnorm), build(name).eval()
    with _autocast(precision):
        expected = attack(network, *images, generator=_generator())
        assert (expected != images[0]).flatten(1).any(1).all()
        with context():
            x, y = images[0].clone(), images[1].clone()
            network(x)  # autocast may cache weights that are cast without a gradient
            assert x.is_inference() == (context is torch.inference_mode)
            assert torch.equal(attack(network, x, y, generator=_generator()), expected)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_in_the_same_autocast(build, images, precision):
    x, y = images
    network = build("cnn").eval()  # no dropout
    x_adv = FGSM()(network, x, y)
    gradients = []
    for attack in (None, PGD(steps=2)):
        network.zero_grad()
        with _autocast(precision):
            if attack is not None:
                network(x)
                attack(network, x, y)
            F.cross_entropy(network(x_adv), y).backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    assert all(torch.equal(*pair) and pair[0].any() for pair in zip(*gradients, strict=True))


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("attack", ["linf", "CarliniWagner", "APGD"])
@pytest.mark.parametrize("batchnorm", ["eval", "batch"])
def test_ddp(build, images, state_of, batchnorm, attack):
    plain, wrapped = build("cnn"), DistributedDataParallel(build("cnn"))
    reductions, calls = [], []

    def reduce(state, bucket):
        reductions.append(bucket.index())
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    wrapped.register_comm_hook(None, reduce)
    wrapped.register_forward_pre_hook(lambda *_: calls.append(1))  # such a call broadcasts buffers to all processes
    attack = _build(attack, batchnorm=batchnorm)
    for _ in range(2):  # training goes on after an attack, and attacks after training
        x_adv = attack(wrapped, *images, generator=_generator())
        assert torch.equal(x_adv, attack(plain, *images, generator=_generator()))
        assert not reductions
        assert not calls
        for network in (plain, wrapped):
            network.zero_grad()
            with torch.random.fork_rng():
                F.cross_entropy(network(x_adv), images[1]).backward()
        assert reductions
        reductions.clear()
        calls.clear()
        for expected, parameter in zip(plain.parameters(), wrapped.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, expected.grad)
    assert state_of(plain)["training"] == state_of(wrapped.module)["training"]


@pytest.mark.parametrize("batchnorm", ["eval", "batch"])
@pytest.mark.parametrize(("name", "attack"), [("cnn", "CarliniWagner"), *((name, "linf") for name in NETWORKS)])
def test_compiled_model(build, images, mixed, state_of, name, attack, batchnorm):
    network = build(name)
    attack = _build(attack, batchnorm=batchnorm)
    compiled = torch.compile(build(name), backend="aot_eager")
    before = state_of(mixed(compiled))
    x_adv = attack(compiled, *images, generator=_generator())
    expected = attack(network, *images, generator=_generator())
    # The graphs may round differently where a gradient is near zero.
    assert ((x_adv - expected).abs() < 1e-4).float().mean() > 0.99
    assert (x_adv != images[0]).flatten(1).any(1).all()
    assert state_of(compiled) == before
    compiled.train().requires_grad_(True).zero_grad()
    F.cross_entropy(compiled(x_adv), images[1]).backward()
    assert all(parameter.grad is not None for parameter in compiled.parameters())


def test_model_compiled_to_machine_code(build, images):
    # Inductor's CPU kernels need a compiler and Python's headers.
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    network = build("cnn")
    compiled = torch.compile(build("cnn"), backend="inductor" if headers and shutil.which("g++") else "aot_eager")
    attack = PGD(eps=0.03, steps=2)
    x_adv = attack(compiled, *images, generator=_generator())
    assert (x_adv == attack(network, *images, generator=_generator())).float().mean() > 0.99


class KeepsForEval(nn.Module):
    """Computes something from its weights once, in eval mode, until it hears of training: as LeViT does."""

    def __init__(self):
        super().__init__()
        self.head, self.frozen, self.kept = nn.Linear(12, 2), nn.Dropout(), None

    def train(self, mode=True):
        super().train(mode)
        if mode:
            self.kept = None
        return self

    def forward(self, x):
        if self.training:
            return self.head(x.flatten(1))
        if self.kept is None:
            self.kept = self.head.weight.detach().clone()
        return x.flatten(1) @ self.kept.T


def test_what_a_network_keeps_for_eval_mode_is_that_of_its_weights():
    network, x = KeepsForEval(), torch.rand(2, 3, 2, 2)
    network.frozen.eval()
    for _ in range(2):
        with held_still(network) as held:
            torch.testing.assert_close(held(x), x.flatten(1) @ network.head.weight.T)
        with torch.no_grad():
            network.head.weight.add_(1)
    assert [module.training for module in network.modules()] == [True, True, False]
