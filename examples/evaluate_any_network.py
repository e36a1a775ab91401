"""How robust is a network of any library? Here one of timm, with random weights and random images.

``python examples/evaluate_any_network.py``
"""

from __future__ import annotations

import timm
import torch

from lightning_adv.attacks import APGD, FGSM, PGD
from lightning_adv.evaluation import Summary, evaluate
from lightning_adv.evaluation.suspicion.find import find_suspicions
from lightning_adv.nn import Normalize


def main(images: int = 4) -> Summary:
    """Print clean and robust accuracies with their 95 % intervals, and what makes them suspicious."""
    torch.manual_seed(0)
    # What is attacked takes images in [0, 1] and normalises them itself, so that eps is a distance in pixels.
    normalize = Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    network = torch.nn.Sequential(normalize, timm.create_model("resnet10t", num_classes=10)).eval()
    x = torch.rand(images, 3, 32, 32)
    y = network(x).argmax(1)

    found = evaluate(network, x, y, [FGSM(), PGD(steps=5), APGD(steps=5)], {"linf": ["1/255", "8/255"], "l2": [0.5]})
    print(f"clean: {found.clean.accuracy:.1%}")
    for threat_model, left in found.all_or_nothing.items():
        low, high = left.interval
        print(f"{threat_model}: {left.accuracy:.1%} (95 %: {low:.1%} to {high:.1%})")
    for suspicion in find_suspicions(network, x, y, eps="8/255"):
        print(f"suspicious: {suspicion.message}")
    return found


if __name__ == "__main__":
    main()
