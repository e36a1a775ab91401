"""A loss of one's own for an attack: a function in Python, a class where YAML and checkpoints are to name it."""

import torch
from torch import Tensor, nn

from lightning_adv.attacks import PGD, Attack, Loss


def confidence(logits: Tensor, y: Tensor) -> Tensor:
    """Return minus the probability of the label, (N,): no mean and no sum."""
    return -logits.softmax(1).gather(1, y[:, None])[:, 0]


class Confidence(Loss):
    """The same as a recipe: ``loss: {class_path: loss.Confidence}`` in YAML."""

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return minus the probability of the label, (N,)."""
        return confidence(logits, y)

    def alone_gradient(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return its gradient (N, K) in closed form, which may be left out; autograd is slower."""
        p = logits.softmax(1)
        own = p.gather(1, y[:, None])
        return own * (p - nn.functional.one_hot(y, logits.shape[1]))


def main() -> None:
    """Attack a network with both, and write the one down that can be."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x, y, noise = torch.rand(100, 1, 8, 8), torch.arange(100) % 10, torch.Generator()
    results = []
    for loss in (confidence, Confidence()):
        attack: Attack = PGD(eps=0.1, steps=5, loss=loss)
        results.append(attack(network, x, y, generator=noise.manual_seed(0)))
    print("the same:", bool((results[0] - results[1]).abs().max() < 1e-5))
    print(PGD(loss=Confidence()).to_config()["init_args"]["loss"])


if __name__ == "__main__":
    main()
