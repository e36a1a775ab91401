"""An attack of one's own: it says how images are changed, and the base class does the rest."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lightning_adv.attacks import FGSM, Attack, Forward
from lightning_adv.evaluation import evaluate
from lightning_adv.testing import check_attack


class TwoSteps(Attack):
    """Two steps of signs, the second from where the first has led."""

    norm = "linf"  # with eps, the ball that the result is brought into

    def __init__(self, eps: float = 8 / 255) -> None:
        self.eps = eps

    def perturb(self, forward: Forward, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return adversarial images (N, C, H, W): nothing to detach, to clamp, or to put back."""
        for _ in range(2):
            x = x.detach().requires_grad_()
            loss = nn.functional.cross_entropy(forward(x), y, reduction="sum")
            x = x + 0.6 * self.eps * torch.autograd.grad(loss, x)[0].sign()
        return x


def main() -> None:
    """Check the attack, and hold it against FGSM on a small network."""
    check_attack(TwoSteps())  # the result, the network, no_grad, DDP, noise, BatchNorm, ...
    digits = load_digits()
    x, y = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None], torch.tensor(digits.target)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    found = evaluate(network, x[:200], y[:200], [FGSM(), TwoSteps()], {"linf": [0.05, 0.1]}, exhaustive=True)
    for result in found.cases:
        print(f"{result.case.key}: {result.broken} of {result.attacked} broken")


if __name__ == "__main__":
    main()
