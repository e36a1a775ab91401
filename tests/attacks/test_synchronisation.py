"""No step of an attack reads a number of the device: the host would wait, and the device then for the host."""

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_adv.attacks import L1, PGD
from lightning_adv.attacks.checks import check_images, trust
from lightning_adv.nn.view.attack_view import attack_view

aten = torch.ops.aten
READS = (
    aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select, aten.unique_dim,
    aten._unique2, aten.bincount,
)  # fmt: skip
COPIES = (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu)  # which no dispatcher sees on a CPU
DRAWS = (aten.rand, aten.randn, aten.randint)


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for a device. Numbers drawn on the CPU, by its generators, are the host's."""

    def __init__(self):
        super().__init__()
        self.count, self._drawn = 0, []  # kept, so that their addresses stay theirs

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **({} if kwargs is None else kwargs))
        operation = func.overloadpacket
        if operation in DRAWS:
            self._drawn.append(out)
        if operation in READS:
            self.count += not any(args[0].data_ptr() == drawn.data_ptr() for drawn in self._drawn)
        if operation in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
            indices = [index for index in args[1] if index is not None]
            self.count += any(index.dtype in (torch.bool, torch.uint8) for index in indices)
        return out


class Copies(TorchFunctionMode):
    """Counts what copies a tensor to the host."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func in COPIES
        return func(*args, **({} if kwargs is None else kwargs))


def _reads(network, steps, *, trusted=False, **settings):
    x, y = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4
    if trusted:
        trust(x, y)
    with Reads() as reads, Copies() as copies:
        PGD(steps=steps, **settings)(network, x, y, generator=torch.Generator().manual_seed(1))
    return reads.count + copies.count


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(32, 4),
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"norm": "l2"},
        {"norm": "l1"},
        pytest.param({"norm": L1(density=0.1), "eps": 2}, id="a density"),  # its own id is an address
        {"momentum": 1.0},
        {"diversity_probability": 1.0},
        {"diversity_probability": 0.5, "diversity_scale": 0.7, "momentum": 1.0},
        {"clean_start_probability": 0.2},
        {"start": "zero", "project": False},
        {"loss": "margin"},
        {"loss": "dlr"},
        {"loss": "kl", "start": "gaussian"},
        {"label": "predicted"},
        {"label": "random"},
        {"label": "least_likely"},
        {"batchnorm": "batch"},
        {"batchnorm": "batch", "loss": "dlr"},
    ],
    ids=str,
)
def test_no_step_reads(network, settings):
    assert _reads(network, 3, **settings) == _reads(network, 10, **settings) > 0


def test_an_attack_on_what_was_checked_reads_nothing(network):
    assert _reads(network, 3) > _reads(network, 3, trusted=True) == 0


def test_what_was_checked_and_has_changed_is_checked_again():
    x = torch.ones(2, 3, 4, 4)
    trust(x)
    check_images(x.mul_(2).div_(2).clone(), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"x must lie in \[0, 1\], got values from 3 to 3"):
        check_images(x.mul_(3), torch.tensor([0, 1]))


@pytest.mark.parametrize("settings", [{}, {"norm": "l2"}, {"loss": "kl", "start": "gaussian"}], ids=str)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_no_step_on_a_view_reads(network, settings, dtype):
    view = attack_view(network, dtype=dtype)
    view.prepare(torch.rand(8, 3, 8, 8))
    assert _reads(view, 3, **settings) == _reads(view, 10, **settings) > 0
    with Reads() as reads, Copies() as copies:
        view.prepare(torch.rand(8, 3, 8, 8))
    assert reads.count + copies.count == 0


def test_restarts_read_nothing_either(network):
    assert _reads(network, 3) == _reads(network, 3, restarts=4)


def test_a_step_with_early_stop_reads_one_number(network):
    """It has to; and this shows that reads are seen."""
    settings = {"eps": 1e-6, "early_stop": True, "label": "predicted"}  # so small that nobody leaves
    assert _reads(network, 10, **settings) - _reads(network, 3, **settings) == 7
    assert _reads(network, 1, **settings) == _reads(network, 1, eps=1e-6, label="predicted")


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x[0].tolist(),
        lambda x: x[x > 0.5],
        lambda x: x.masked_fill_(x > 2, 0).nonzero(),
        lambda x: torch.equal(x, x),
        lambda x: x.index_put_((x > 0.5,), torch.tensor(0.0)),
    ],
)
def test_reads_are_seen(read):
    with Reads() as reads, Copies() as copies:
        read(torch.ones(3, 2))
    assert reads.count + copies.count > 0
