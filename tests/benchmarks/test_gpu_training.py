"""All but the calls of CUDA, on a CPU with tiny sizes. No time is asserted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

CPU = torch.device("cpu")
STEPS, BATCH = 2, 4


@pytest.fixture(scope="module")
def benchmark(script):
    return script("gpu_training")


def test_without_a_gpu_it_says_so(benchmark, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"^gpu_training\.py measures on a CUDA GPU, and torch finds none"):
        benchmark.main([])


def test_flops_layer_by_layer(benchmark, workload):
    """Each layer's products once forward and once to its input in a step; then forward, to the weights, to the input.

    The gradient to the images is no part of the last.
    """
    layers = []

    def count(module, inputs, output):
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            layers.append(2 * output[0].numel() * module.weight[0].numel())

    network = workload.regime().network
    with torch.nn.modules.module.register_module_forward_hook(count):
        network(workload.batch()[0])
    expected = workload.steps * 2 * sum(layers) + 3 * sum(layers) - layers[0]
    assert benchmark.flops_per_image(workload) == expected > 0


def test_resnet18_takes_what_the_literature_says(benchmark):
    """0.56 billion multiplications in a forward pass on CIFAR-10 (He et al.'s network with the CIFAR stem)."""
    assert benchmark.flops_per_image(benchmark.RESNET18) / (2 * 10 + 3) == pytest.approx(2 * 0.56e9, rel=0.02)


def test_each_variant_trains_as_its_name_says(benchmark, workload, monkeypatch):
    """Compiled are the network, the view, or both; the step computes in bf16 and moves its counter of batches."""
    asked = []

    def compiling(self, **options):
        asked.append(options.get("mode"))

    monkeypatch.setattr(nn.Module, "compile", compiling)
    dtypes = set()

    def note(module, inputs, output):
        if isinstance(module, nn.Conv2d):
            dtypes.add(output.dtype)

    found = {}
    for name, options in benchmark.VARIANTS.items():
        step = benchmark.training_step(workload, CPU, **options)
        step(*workload.batch())  # in which a view is prepared, in fp32
        with torch.nn.modules.module.register_module_forward_hook(note):
            step(*workload.batch())
        found[name] = list(asked)
        asked.clear()
    assert dtypes == {torch.bfloat16}
    assert [len(modes) for modes in found.values()] == [0, 1, 1, 0, 2, 2]
    assert "reduce-overhead" in found["the same, view in CUDA graphs"]


def test_an_epoch_sees_each_image_once_in_whole_batches(benchmark):
    """Nineteen images of a single value each, which cropping fills with zeros at most; batches of four."""
    images = (10 * torch.arange(1, 20, dtype=torch.uint8)).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()
    seen = []

    def step(x, y):
        assert x.shape == (BATCH, 1, 8, 8)
        assert torch.equal((x.amax((1, 2, 3)) * 255).round().long(), 10 * y)
        seen.extend(y.tolist())

    assert benchmark.epoch(step, images, torch.arange(1, 20), BATCH) == 16
    assert len(seen) == len(set(seen)) == 16


def test_the_epochs_seconds_are_of_all_images(benchmark, workload, monkeypatch):
    monkeypatch.setattr(benchmark, "seconds", lambda function, device: function() or 2.0)
    assert benchmark.epoch_seconds(lambda x, y: None, workload, CPU, images=18) == 2.0 * 18 / 16


def test_the_peak_is_that_of_the_fastest_product(benchmark, monkeypatch):
    """Two products of warm-up do not count."""
    times = iter([0.001, 0.001, 4.0, 2.0])
    monkeypatch.setattr(benchmark, "seconds", lambda function, device: next(times))
    assert benchmark.matmul_peak(CPU, size=16, rounds=2) == 2 * 16**3 / 2.0


def test_all_is_measured_and_printed(benchmark, workload, monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: None)
    monkeypatch.setattr(benchmark, "matmul_peak", lambda device: 1e12)
    found = benchmark.measure(replace(workload, rounds=2), CPU, steps=1, images=8)
    assert {len(rates) for rates in found["images_per_second"].values()} == {2}
    for costs in found["costs"].values():
        shares = [share for _, share in costs]
        assert len(shares) == 3
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1
    printed = benchmark.tables(found)
    for name in benchmark.VARIANTS:
        assert f"| {name} | " in printed
    assert printed.startswith("bf16 matrix product: 1 TFLOP/s.")


def test_the_figures_of_the_table(benchmark):
    """By hand: 100 images/s at 2 GFLOP are a fifth of 1 TFLOP/s; medians 100 and 150."""
    rates = {benchmark.COMPILED: [100.0, 100.0, 100.0], "view": [150.0, 140.0, 400.0]}
    found = {"images_per_second": rates, "peak": 1e12, "flop": 2e9, "epoch": dict.fromkeys(rates, 1.0), "costs": {}}
    rows = benchmark.tables(found).splitlines()[-2:]
    assert rows[0] == f"| {benchmark.COMPILED} | 100 | 1.000 | 1.000 to 1.000 | 20.0 % | 1.0 |"
    assert rows[1] == "| view | 150 | 1.500 | 1.400 to 4.000 | 30.0 % | 1.0 |"
