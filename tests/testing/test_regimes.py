"""Each of our regimes keeps its promises, and each promise that a regime breaks is named."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from lightning_adv.attacks import FGSM, Attack
from lightning_adv.regimes import Regime, StandardTraining
from lightning_adv.testing import SmallImages, check_regime
from tests.regimes.every_regime import REGIMES, make
from tests.regimes.toy import BACKBONE, ToyData

FAST = ("madry", "mixture_bn", "blockwise")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in REGIMES]
)
def test_our_regimes_keep_their_promises(tmp_path, name):
    check_regime(make(name, tmp_path))


@pytest.mark.slow
def test_on_data_of_ones_own(tmp_path):
    """Batches of its own size and order, which only the end of an epoch can be resumed from."""
    check_regime(make("madry", tmp_path), ToyData(batch_size=10))


class Own(Regime):
    """What the broken ones are but for what breaks them."""

    def loss(self, x, y):
        return self.criterion(self(x), y)


class NoGradient(Own):
    def build_network(self, num_classes):
        network = super().build_network(num_classes)
        network.unused = nn.Linear(1, 1)
        return network


class Infinite(Own):
    def loss(self, x, y):
        return super().loss(x, y) / 0


class InfiniteUnchecked(Own):
    def training_step(self, batch, batch_idx):
        return self.loss(*batch) / 0


class FrozenInTrainMode(Own):
    def prepare_network(self):
        self.network.network.layer1.requires_grad_(False)


class FrozenInTheOptimizer(FrozenInTrainMode):
    def configure_optimizers(self):
        return torch.optim.SGD(self.network.parameters(), lr=0.1)


class FrozenMoves(Own):
    def prepare_network(self):
        self.network.network.fc.requires_grad_(False)

    def on_train_batch_end(self, *args):
        with torch.no_grad():
            self.network.network.fc.weight.mul_(0.9)


class AttackInTrainMode(Own):
    def loss(self, x, y):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.criterion(self(leaf), y), leaf)
        return super().loss((x + 0.1 * gradient.sign()).clamp(0, 1), y)


class AttackFillsGradients(Own):
    def loss(self, x, y):
        leaf = x.clone().requires_grad_()
        self.criterion(self(leaf), y).backward()
        return super().loss((x + 0.1 * leaf.grad.sign()).clamp(0, 1), y)


class LeavesInEval(Own):
    def loss(self, x, y):
        self.network.eval()
        return super().loss(x, y)


class WritesWeights(Own):
    def loss(self, x, y):
        with torch.no_grad():
            self.network.network.fc.weight.mul_(0.9)
        return super().loss(x, y)


class Careless(Attack):
    """Forgets what an attack has to give back."""

    def __call__(self, model, x, y, *, domain=None, generator=None):
        model(x)
        return x


class CarelessAttack(Own):
    def __init__(self, backbone, **kwargs):
        super().__init__(backbone, view="off", **kwargs)
        self.attack = Careless()


class DrawsElsewhere(Own):
    def loss(self, x, y):
        return random.random() * np.random.rand() * super().loss(x, y)


class ReportsNothing(Own):
    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        pass


class ReportsOtherwise(Own):
    def validation_step(self, batch, batch_idx):
        x, y = batch
        super().validation_step((x, 1 - y), batch_idx)


class NothingToChooseBy(Own):
    monitor = "val/best"


class NoData(Own):
    def on_save_checkpoint(self, checkpoint):
        super().on_save_checkpoint(checkpoint)
        checkpoint["extra"] = np.float64(1)


class PredictsOtherwise(Own):
    scale = 1.0

    def on_train_start(self):
        super().on_train_start()
        self.scale = 2.0

    def forward(self, x):
        return self.scale * super().forward(x)


class ForgetsOnResume(Own):
    steps = 0

    def loss(self, x, y):
        self.steps += 1
        return super().loss(x, y) * self.steps


class OneSizeFitsFp32(Own):
    def loss(self, x, y):
        logits = self(x)
        logits.detach().numpy()  # which has no bfloat16
        return self.criterion(logits, y)


BROKEN = {
    NoGradient: r"finite gradient to each parameter that is trained: unused\.weight has none",
    Infinite: "A training step ends in a finite loss: .* inf",
    InfiniteUnchecked: "A training step ends in a finite loss: it is inf",
    FrozenInTrainMode: r"Frozen means frozen: network\.layer1\.1\.running_mean has moved",
    FrozenInTheOptimizer: r"Frozen means frozen: network\.layer1\.0\.weight .* the optimizer has it",
    FrozenMoves: r"Frozen means frozen: network\.fc\.weight requires no gradient, and has moved",
    AttackInTrainMode: r"moves running statistics by what it is of only: network\.layer1\.1 is updated by images",
    AttackFillsGradients: r"Computing the loss leaves the network alone: afterwards network\..*\.grad has other",
    LeavesInEval: "Computing the loss leaves the network alone: afterwards module .* is in eval mode",
    WritesWeights: r"Computing the loss leaves the network alone: afterwards network\.fc\.weight has other values",
    CarelessAttack: "attack leaves the network untouched: afterwards .*running_mean has other values",
    DrawsElsewhere: "What is drawn depends on the seed, the epoch and the batch only: .* differs in a second run",
    ReportsNothing: "Validation reports val/clean_accuracy: it is not there",
    ReportsOtherwise: "Validation reports val/clean_accuracy: it says .*, and .* was counted",
    NothingToChooseBy: "The best checkpoint is chosen by what validation reports: there is no val/best",
    NoData: "A checkpoint is plain data, and load_from_checkpoint needs nothing else: UnpicklingError",
    PredictsOtherwise: "load_from_checkpoint predicts the same: the logits of a batch differ",
    ForgetsOnResume: "A resumed run ends in the same bits: .* differs in the resumed run",
    OneSizeFitsFp32: "A regime trains in mixed precision and with accumulated gradients: TypeError",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_promise_is_named(kind):
    torch.manual_seed(0)
    regime = kind(BACKBONE, num_classes=2, evaluation_attack=FGSM(eps=0.1))
    with pytest.raises(AssertionError, match=BROKEN[kind]):
        check_regime(regime)


@pytest.mark.slow
def test_the_regime_stays_as_it_is_and_random_states_too():
    """Of a class that cannot be imported by its path."""

    class Local(Own):
        pass

    regime = Local(BACKBONE, num_classes=2, evaluation_attack=FGSM(eps=0.1))
    before = {name: value.clone() for name, value in regime.state_dict().items()}
    state = torch.get_rng_state()
    check_regime(regime)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in regime.state_dict().items())


def test_what_cannot_be_checked_is_refused(tmp_path):
    with pytest.raises(ValueError, match="regime must have its network: give it num_classes"):
        check_regime(StandardTraining(BACKBONE))
    with pytest.raises(ValueError, match="in_channels must be at least 1, got 0"):
        SmallImages(0, 2)
