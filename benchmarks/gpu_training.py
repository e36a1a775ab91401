"""Images per second of PGD-10 training on a GPU, with the attack on the network and on views of it.

README.md beside this file says what is measured and how to read the tables.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
import torch.nn.functional as F
from timing import OPTIMIZER, WORKLOADS, Batch, Workload, ratios
from torch import Tensor
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lightning_adv.data.in_memory import PADDING, UInt8Batch, to_images
from lightning_adv.regimes import MadryTraining

COMPILED, CHOSEN = "compiled network", "view and network compiled"
VARIANTS: dict[str, dict[str, Any]] = {
    "eager": {"view": "off"},
    COMPILED: {"view": "off", "compile": True},
    "compiled network, again": {"view": "off", "compile": True},
    "view": {},
    CHOSEN: {"compile": True},
    "the same, view in CUDA graphs": {"compile": True, "compile_view": "reduce-overhead"},
}
EPOCH = 50_000  # CIFAR-10's training images
RESNET18 = replace(WORKLOADS["resnet18"], batch_size=256)
Step = Callable[[Tensor, Tensor], None]


# What is timed --------------------------------------------------------------------------------------------------------


def training_step(workload: Workload, device: torch.device, **options: Any) -> Step:
    """Return one step of training in bf16: attack, loss, gradients and update."""
    regime = cast(MadryTraining, workload.regime(MadryTraining, **options)).to(device)
    regime.configure_model()  # compiles
    optimizer = OPTIMIZER(regime.network.parameters())
    batches = iter(range(10**9))

    def step(x: Tensor, y: Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = regime.training_step((x, y), next(batches))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def epoch(step: Step, images: Tensor, labels: Tensor, batch_size: int) -> int:
    """Train on all images once, cropped and flipped on their device, in a random order; return how many there were."""
    device, count = images.device, len(images)
    order = torch.randperm(count, device=device)
    offsets = torch.randint(0, 2 * PADDING + 1, (count, 2), device=device)
    flips = torch.rand(count, device=device) < 0.5
    whole = count // batch_size * batch_size  # the last, smaller batch would be compiled anew
    for index in order[:whole].split(batch_size):  # type: ignore[no-untyped-call]
        step(*to_images(UInt8Batch(images[index], labels[index], offsets[index], flips[index])))
    return whole


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Return how long a function takes: on a GPU between two CUDA events."""
    if device.type != "cuda":
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
    events[0].record()
    function()
    events[1].record()
    events[1].synchronize()
    return float(events[0].elapsed_time(events[1])) / 1000


# What it is set against -----------------------------------------------------------------------------------------------


def matmul_peak(device: torch.device, size: int = 8192, rounds: int = 10) -> float:
    """Return the FLOP/s of a product of two square bf16 matrices: the fastest round."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = [seconds(lambda: a @ b, device) for _ in range(rounds + 2)]
    return float(2 * size**3 / min(times[2:]))


def flops_per_image(workload: Workload) -> float:
    """Return the FLOP of a training step for each image, as torch counts products and convolutions.

    That is as many times forward and backward to the input as the attack has steps, then once to the weights.
    """
    network, (x, y) = workload.regime().network, replace(workload, batch_size=2).batch()
    with FlopCounterMode(display=False) as to_weights:
        F.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
    network.eval().requires_grad_(False)
    leaf = x.clone().requires_grad_()
    with FlopCounterMode(display=False) as to_input:
        torch.autograd.grad(F.cross_entropy(network(1.0 * leaf), y), leaf)  # torch counts in no pass to a bare leaf
    return float(workload.steps * to_input.get_total_flops() + to_weights.get_total_flops()) / len(x)


# The measurement ------------------------------------------------------------------------------------------------------


def compare(
    workload: Workload, device: torch.device, steps: int, names: Sequence[str] = tuple(VARIANTS)
) -> tuple[dict[str, Step], dict[str, list[float]]]:
    """Return each variant's step, warmed up, and its images per second in each round, in turns and a random order."""
    made = {name: training_step(workload, device, **VARIANTS[name]) for name in names}
    x, y = on(device, workload.batch())

    def several(step: Step, number: int) -> None:
        for _ in range(number):
            step(x, y)

    for step in made.values():
        several(step, 3)  # compiles, records graphs, tries kernels
    found: dict[str, list[float]] = {name: [] for name in made}
    shuffled = random.Random(0)
    for _ in range(workload.rounds):
        for name in shuffled.sample(list(made), len(made)):
            taken = seconds(lambda name=name: several(made[name], steps), device)  # type: ignore[misc]
            found[name].append(steps * workload.batch_size / taken)
    return made, found


def epoch_seconds(step: Step, workload: Workload, device: torch.device, images: int = EPOCH) -> float:
    """Return the seconds of an epoch of random images that are kept on the device as bytes."""
    generator = torch.Generator(device).manual_seed(0)
    draw = partial(torch.randint, generator=generator, device=device)
    pixels, labels = draw(256, (images, *workload.image_shape), dtype=torch.uint8), draw(10, (images,))
    trained: list[int] = []
    taken = seconds(lambda: trained.append(epoch(step, pixels, labels, workload.batch_size)), device)
    return taken * images / trained[0]


def largest_costs(step: Step, batch: Batch, device: torch.device, steps: int = 3) -> list[tuple[str, float]]:
    """Return the three operations that take the most time on the device, and their shares of it."""
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiled:
        for _ in range(steps):
            step(*batch)
        if cuda:
            torch.cuda.synchronize()
    times: dict[str, float] = {}
    for event in profiled.key_averages():
        # on a GPU the kernels: an operation on the CPU is told the time of those that it launched once more
        if event.device_type == (DeviceType.CUDA if cuda else DeviceType.CPU) and not event.is_user_annotation:
            own = event.self_device_time_total if cuda else event.self_cpu_time_total
            times[event.key] = times.get(event.key, 0.0) + own
    total = sum(times.values())
    return [(name, times[name] / total) for name in sorted(times, key=lambda name: -times[name])[:3]]


def on(device: torch.device, batch: Batch) -> Batch:
    x, y = batch
    return x.to(device), y.to(device)


# The tables -----------------------------------------------------------------------------------------------------------


def measure(workload: Workload, device: torch.device, steps: int, images: int = EPOCH) -> dict[str, Any]:
    """Return all figures: FLOP/s of the matrix product, FLOP for each image, images/s, seconds of an epoch, costs."""
    made, rates = compare(workload, device, steps)
    batch = on(device, workload.batch())
    return {
        "peak": matmul_peak(device),
        "flop": flops_per_image(workload),
        "images_per_second": rates,
        "epoch": {name: epoch_seconds(step, workload, device, images) for name, step in made.items()},
        "costs": {name: largest_costs(made[name], batch, device) for name in (COMPILED, CHOSEN)},
    }


def tables(found: dict[str, Any]) -> str:
    rates, peak, flop = found["images_per_second"], found["peak"], found["flop"]
    lines = [f"bf16 matrix product: {peak / 1e12:.0f} TFLOP/s. A training step: {flop / 1e9:.1f} GFLOP an image.", ""]
    lines.append("| training | images/s | over compiled network | lowest to highest | share of the peak | s an epoch |")
    lines.append("|---|---:|---:|---:|---:|---:|")
    for name, own in rates.items():
        over = ratios(own, rates[COMPILED])
        cells = [f"{median(own):.0f}", f"{median(over):.3f}", f"{min(over):.3f} to {max(over):.3f}"]
        cells += [f"{100 * median(own) * flop / peak:.1f} %", f"{found['epoch'][name]:.1f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name, costs in found["costs"].items():
        lines += ["", f"The largest costs, {name}:", ""]
        lines += [f"{number}. `{cost}`, {100 * share:.1f} %" for number, (cost, share) in enumerate(costs, start=1)]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=RESNET18.batch_size)
    parser.add_argument("--steps", type=int, default=10, help="training steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures of every round")
    args = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("gpu_training.py measures on a CUDA GPU, and torch finds none on this machine.")
    workload = replace(RESNET18, batch_size=args.batch_size, rounds=args.rounds)
    found = measure(workload, torch.device("cuda"), args.steps)
    shape = "×".join(map(str, (args.batch_size, *workload.image_shape)))
    how = f"{args.rounds} rounds of {args.steps} steps, {torch.cuda.get_device_name()}, torch {torch.__version__}"
    print(f"\nResNet-18, {shape}, PGD-{workload.steps}, bf16, {how}\n\n{tables(found)}")
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
