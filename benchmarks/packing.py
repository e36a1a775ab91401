"""Adversarial training of several small networks one after another, against all of them at once by ``torch.func``.

README.md beside this file says what is measured and how to read the table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from lightning_adv.nn.backbones import Backbone

STEPS = 7
EPS, STEP_SIZE, LR, MOMENTUM = 0.2, 0.05, 0.05, 0.9

State = dict[str, Tensor]
Forward = Callable[[State, Tensor], Tensor]
"""Logits (..., N, K) of images (..., N, C, H, W) for weights and buffers; before N there may be the networks."""


def step(network: nn.Module, forward: Forward, state: State, velocity: State, x: Tensor, y: Tensor) -> None:
    """Take a step of Madry training (PGD-7 from a random start, SGD with momentum), in place.

    Args:
        network: Whose mode is set: the attack uses BatchNorm's running statistics, the update those of the batch.
        forward: Computes the logits.
        state: Weights and buffers.
        velocity: The momentum of each weight.
        x: The images (..., N, C, H, W).
        y: The labels (..., N).
    """

    def loss(images: Tensor) -> Tensor:
        return F.cross_entropy(forward(state, images).flatten(0, -2), y.flatten(), reduction="sum") / y.shape[-1]

    network.eval()
    x_adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(STEPS):
        x_adv.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x_adv), x_adv)
        x_adv = (x_adv.detach() + STEP_SIZE * gradient.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
    network.train()
    weights = [state[name] for name in velocity]
    gradients = torch.autograd.grad(loss(x_adv), weights)
    with torch.no_grad():
        for weight, moved, gradient in zip(weights, velocity.values(), gradients, strict=True):
            moved.mul_(MOMENTUM).add_(gradient)
            weight.sub_(LR * moved)


def make_networks(count: int, width: int) -> list[nn.Module]:
    """Return networks of the digits, each with weights of its own."""
    torch.manual_seed(0)
    backbone = Backbone("small_cnn", in_channels=1, mean=[0.3053], std=[0.3760], options={"width": width})
    return [backbone.build(10) for _ in range(count)]


def trained(state: Mapping[str, Tensor], network: nn.Module) -> State:
    return {name: torch.zeros_like(state[name]) for name, _ in network.named_parameters()}


def one_after_another(networks: Sequence[nn.Module]) -> Callable[[Tensor, Tensor], None]:
    states = [{**dict(each.named_parameters()), **dict(each.named_buffers())} for each in networks]
    velocities = [trained(state, each) for state, each in zip(states, networks, strict=True)]

    def run(x: Tensor, y: Tensor) -> None:
        for number, network in enumerate(networks):
            forward: Forward = lambda state, images: network(images)  # noqa: B023, E731 (called before the next)
            step(network, forward, states[number], velocities[number], x[number], y[number])

    return run


def packed(networks: Sequence[nn.Module]) -> Callable[[Tensor, Tensor], None]:
    weights, buffers = stack_module_state(list(networks))
    state = {**weights, **buffers}
    network = networks[0]
    velocity = trained(state, network)
    forward = vmap(lambda state, images: functional_call(network, state, (images,)))
    return lambda x, y: step(network, forward, state, velocity, x, y)


def shares(count: int, width: int, batch: int, rounds: int) -> list[float]:
    """Return the processor time of packed networks over that of single ones, for each of a number of rounds."""
    contenders = (one_after_another(make_networks(count, width)), packed(make_networks(count, width)))
    x, y = torch.rand(count, batch, 1, 8, 8), torch.randint(10, (count, batch))
    found = []
    for number in range(rounds + 1):
        seconds = []
        for contender in contenders:
            began = time.process_time()
            for _ in range(max(1, 64 // batch)):
                contender(x, y)
            seconds.append(time.process_time() - began)
        if number:  # the first fills caches
            found.append(seconds[1] / seconds[0])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--networks", type=int, default=15, help="how many are trained")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32], help="of the networks")
    parser.add_argument("--rounds", type=int, default=7, help="times that each is measured")
    parser.add_argument("--json", type=Path, help="file for the share of every round")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = {
        f"width {width}": {f"batch {batch}": shares(args.networks, width, batch, args.rounds) for batch in (16, 64)}
        for width in args.widths
    }
    print("| | batch 16 | batch 64 |\n|---|---|---|")
    for name, row in found.items():
        told = (f"{median(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in row.values())
        print(f"| {name} | {' | '.join(told)} |")
    if args.json is not None:
        args.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
