"""How robust is a network that was trained elsewhere? Here one of plain PyTorch, on scikit-learn's digits.

``python examples/evaluate_any_network.py``
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lightning_adv.attacks import APGD, FGSM, PGD
from lightning_adv.evaluation import Summary, evaluate, find_suspicions
from lightning_adv.nn import Normalize


def trained_network(x: Tensor, y: Tensor) -> nn.Module:
    """Return a small network: any module will do that maps images in [0, 1] to logits."""
    torch.manual_seed(0)
    # It normalises the images itself, so that eps is a distance in pixels.
    network = nn.Sequential(
        Normalize([0.3053], [0.3760]), nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()


def main() -> Summary:
    """Print clean and robust accuracies with their 95 % intervals, and what makes them suspicious."""
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    network = trained_network(x[:1437], y[:1437])
    x, y = x[1437:], y[1437:]

    found = evaluate(network, x, y, [FGSM(), PGD(steps=20), APGD(steps=20)], {"linf": [0.05, 0.1], "l2": [0.5]})
    print(f"clean: {found.clean.accuracy:.1%}")
    for threat_model, left in found.all_or_nothing.items():
        low, high = left.interval
        print(f"{threat_model}: {left.accuracy:.1%} (95 %: {low:.1%} to {high:.1%})")
    for suspicion in find_suspicions(network, x[:100], y[:100], eps=0.1):
        print(f"suspicious: {suspicion.message}")
    return found


if __name__ == "__main__":
    main()
