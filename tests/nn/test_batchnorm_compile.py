"""Domain BatchNorm under torch.compile."""

import copy

import pytest
import timm
import torch
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

from lightning_adv.attacks import PGD
from lightning_adv.nn.batchnorm import convert_batchnorm, domain, domain_norms


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    counters.clear()


@pytest.fixture
def network():
    torch.manual_seed(0)
    return convert_batchnorm(timm.create_model("test_efficientnet", num_classes=5))


@pytest.fixture
def batch():
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 5


def _compiled(network, in_place, backend):
    if not in_place:
        return torch.compile(network, backend=backend, fullgraph=True)
    network.compile(backend=backend, fullgraph=True)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("in_place", [True, False])
def test_one_graph_for_each_domain_and_mode(network, batch, in_place):
    eager, counter, x = copy.deepcopy(network), CompileCounter(), batch[0]
    compiled = _compiled(network, in_place, counter)
    graphs = []
    for _ in range(3):
        for training in (True, False):
            for name in ("main", "adversarial", "main"):
                eager.train(training)
                compiled.train(training)
                with domain(compiled, name), domain(eager, name):
                    assert torch.equal(compiled(x), eager(x))
        graphs.append(counter.frame_count)
    assert graphs == [4, 4, 4]
    assert not counters["graph_break"]
    for name in ("main", "adversarial"):
        for norm, expected in zip(domain_norms(compiled, name), domain_norms(eager, name), strict=True):
            assert torch.equal(norm.running_var, expected.running_var)


@pytest.mark.slow
def test_a_copy_of_a_compiled_network(network, batch):
    compiled = torch.compile(network, backend=CompileCounter(), fullgraph=True).eval()
    compiled(batch[0])
    twin = copy.deepcopy(compiled)
    with torch.no_grad():
        domain_norms(twin, "adversarial")[0].bias.add_(1)
        expected = compiled(batch[0])
        assert torch.equal(twin(batch[0]), expected)
        with domain(twin, "adversarial"):
            assert torch.equal(compiled(batch[0]), expected)
            assert not torch.equal(twin(batch[0]), expected)


@pytest.mark.slow
@torch._dynamo.config.patch(recompile_limit=32)  # torch's own is 8; see the number below
def test_epochs_of_adversarial_training_and_validation(network, batch):
    """Six graphs (a domain in a training step, under attack, in validation), half of them again for another size."""
    counter, (x, y) = CompileCounter(), batch
    compiled = _compiled(network, in_place=True, backend=counter)
    attack = PGD(eps=0.1, steps=2, step_size=0.05)
    graphs = []
    for _ in range(3):
        compiled.train()
        for size in (6, 6, 4):
            x_adv = attack(compiled, x[:size], y[:size], domain="adversarial")
            loss = compiled(x[:size]).sum()
            with domain(compiled, "adversarial"):
                loss = loss + compiled(x_adv).sum()
            loss.backward()
        compiled.eval()
        for size in (6, 4):
            for name in ("main", "adversarial"):
                with torch.no_grad(), domain(compiled, name):
                    compiled(attack(compiled, x[:size], y[:size]))
        graphs.append(counter.frame_count)
    assert graphs[0] <= 9
    assert graphs == [graphs[0]] * 3
    assert not counters["graph_break"]


@pytest.mark.slow
def test_a_checkpoint_that_is_compiled_keeps_its_domain(batch):
    """It recomputes the graph that was traced, so that there is nothing to refuse."""
    torch.manual_seed(0)
    # In eval mode: torch itself cannot save num_batches_tracked for a compiled checkpoint.
    network = convert_batchnorm(timm.create_model("test_resnet", num_classes=5)).eval()
    with torch.no_grad():
        for norm in domain_norms(network, "adversarial"):
            norm.running_var.mul_(2)
    eager = copy.deepcopy(network)
    network.set_grad_checkpointing(True)
    compiled = _compiled(network, in_place=False, backend="eager")
    for model in (compiled, eager):
        with domain(model, "adversarial"):
            loss = model(batch[0]).square().sum()
        loss.backward()
    for norm, expected in zip(domain_norms(compiled, "adversarial"), domain_norms(eager, "adversarial"), strict=True):
        torch.testing.assert_close(norm.weight.grad, expected.weight.grad)
    assert all(norm.weight.grad is None for norm in domain_norms(compiled, "main"))
