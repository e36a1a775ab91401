"""A network through one BatchNorm domain is a network."""

import copy
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_adv.attacks import PGD
from lightning_adv.nn import AttackView, InDomain, convert_batchnorm, domain, domain_norms, export_plain
from lightning_adv.nn.batchnorm import active_domain, through
from tests.nn.test_folding import stir


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)]
    network = convert_batchnorm(nn.Sequential(*layers))
    for seed, name in enumerate(("main", "adversarial")):
        for norm in domain_norms(network, name):
            stir(norm, seed=seed)
    return network.eval()


@pytest.fixture
def x():
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def expected(network, x, name="adversarial"):
    """From a network that never had domains."""
    return export_plain(network, name)(x)


def test_gives_the_logits_of_its_domain_whichever_is_active(network, x):
    wrapped = InDomain(network, "adversarial")
    assert torch.equal(wrapped(x), expected(network, x))
    with domain(network, "main"):
        assert torch.equal(wrapped(x), expected(network, x))
    assert active_domain(network) == "main"
    assert not torch.equal(network(x), wrapped(x))


def test_the_active_domain_comes_back_after_an_error(network):
    with pytest.raises(RuntimeError):
        InDomain(network, "adversarial")(torch.rand(1, 7, 8, 8))
    assert active_domain(network) == "main"


def test_shares_everything_with_its_network(network, x):
    network.train()
    wrapped, seen = InDomain(network, "adversarial"), []
    assert wrapped.training
    assert list(wrapped.parameters()) == list(network.parameters())
    assert list(wrapped.state_dict()) == [f"network.{key}" for key in network.state_dict()]
    handle = network[0].register_forward_hook(lambda *_: seen.append(1))
    wrapped(x)
    handle.remove()
    assert seen == [1]
    counts = [norm.num_batches_tracked for name in ("main", "adversarial") for norm in domain_norms(network, name)]
    assert counts[1] == counts[0] + 1  # training updates the domain's own statistics
    assert not any(module.training for module in wrapped.eval().network.modules())
    wrapped.double()
    assert network[0].weight.dtype == torch.float64
    twin = copy.deepcopy(wrapped)
    assert torch.equal(twin(x.double()), wrapped(x.double()))
    assert not set(twin.parameters()) & set(wrapped.parameters())


@pytest.mark.parametrize(
    ("seen_as", "batchnorm"),
    [(lambda network: network, "eval"), (lambda network: network, "batch"), (AttackView, "eval")],
)
def test_an_attack_on_it_is_that_through_the_domain(network, x, seen_as, batchnorm):
    attack, y = PGD(0.1, 3, 0.05, batchnorm=batchnorm), torch.arange(5) % 3
    network.train()
    network[0].eval()
    flags = [module.training for module in network.modules()]
    state = copy.deepcopy(network.state_dict())
    noise = [torch.Generator().manual_seed(0) for _ in range(2)]
    plain = export_plain(network, "adversarial").train()
    found = attack(seen_as(InDomain(network, "adversarial")), x, y, generator=noise[0])
    assert torch.equal(found, attack(seen_as(plain), x, y, generator=noise[1]))
    assert [module.training for module in network.modules()] == flags
    assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())


@pytest.mark.slow
def test_compiled_around_and_within(network, x):
    torch._dynamo.reset()
    around = torch.compile(InDomain(network, "adversarial"), backend="eager", fullgraph=True)
    assert torch.equal(around(x), expected(network, x))
    within = InDomain(torch.compile(network, backend="eager", fullgraph=True), "adversarial")
    assert torch.equal(within(x), expected(network, x))
    assert active_domain(network) == "main"


def test_distributed_data_parallel_goes_around_it(network, x, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        around = DistributedDataParallel(InDomain(network, "adversarial"), find_unused_parameters=True)
        assert torch.equal(around(x), expected(network, x))
        around(x).sum().backward()
        assert network[0].weight.grad.any()
        assert torch.equal(through(DistributedDataParallel(network), "adversarial")(x), expected(network, x))
        with pytest.raises(ValueError, match="wrap the other way round"):
            InDomain(DistributedDataParallel(network), "main")
    finally:
        torch.distributed.destroy_process_group()


def test_another_domain_cannot_be_asked_for(network, x):
    wrapped = InDomain(network, "adversarial")
    with pytest.raises(ValueError, match="is in the domain 'adversarial' already"):
        InDomain(nn.Sequential(wrapped), "adversarial")
    with pytest.raises(ValueError, match=r"domain 'main' was asked for, but the network is InDomain\(\.\.\., 'advers"):
        AttackView(wrapped, domain="main")
    with pytest.raises(ValueError, match="domain='main' was given, and the network is in 'adversarial' already"):
        PGD(0.1, 1, 0.1)(wrapped, x, torch.zeros(5, dtype=torch.long), domain="main")


def test_threads_that_go_through_two_domains_do_not_mix_them(network, x):
    class Waits(nn.Module):
        """Lets the other thread run in the middle of a pass."""

        def forward(self, x):
            time.sleep(0.01)
            return x

    network.insert(0, Waits())
    names = ("main", "adversarial") * 2
    with ThreadPoolExecutor(len(names)) as threads:
        found = list(threads.map(lambda name: InDomain(network, name)(x), names))
    for name, logits in zip(names, found, strict=True):
        assert torch.equal(logits, expected(network, x, name))
    assert active_domain(network) == "main"
