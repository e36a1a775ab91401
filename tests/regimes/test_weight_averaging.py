"""Until weight averaging begins, what is validated, saved and tested are the weights of now."""

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

from lightning_adv.callbacks import BestCheckpoint, LastCheckpoint
from lightning_adv.regimes import StandardTraining
from tests.callbacks.test_checkpoints import trainer_with
from tests.regimes.toy import ATTACK, BACKBONE, ResumableToyData


class Watched(StandardTraining):
    """Notes the weights after each step, and those that are validated."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(BACKBONE, num_classes=2, evaluation_attack=ATTACK)
        self.trained, self.validated = {}, {}

    def weights(self):
        return torch.nn.utils.parameters_to_vector(self.network.parameters()).detach().clone()

    def on_train_batch_end(self, *args):
        self.trained[self.trainer.global_step] = self.weights()

    def validation_step(self, *args):
        self.validated[self.trainer.global_step] = self.weights()
        super().validation_step(*args)


def fit(tmp_path, start, epochs, path=None):
    callbacks = [EMAWeightAveraging(decay=0.5, update_starting_at_step=start), BestCheckpoint(), LastCheckpoint()]
    trainer = trainer_with(tmp_path, callbacks, max_epochs=epochs)
    regime = Watched()
    trainer.fit(regime, ResumableToyData(), ckpt_path=path, weights_only=True)
    return regime


def saved(tmp_path):
    checkpoint = torch.load(tmp_path / "run/version_0/checkpoints/last.ckpt", weights_only=True)
    state = checkpoint["state_dict"]
    names = [name for name, _ in Watched().network.named_parameters()]
    return torch.cat([state[f"network.{name}"].flatten() for name in names])


@pytest.mark.slow
def test_before_it_begins_and_after(tmp_path):
    """Four steps an epoch; it begins after the sixth: the average of then on is written out by hand."""
    regime = fit(tmp_path, 5, 2)
    assert torch.equal(regime.validated[4], regime.trained[4])
    average = regime.trained[6]
    for step in (7, 8):
        average = average.lerp(regime.trained[step], 0.5)
    torch.testing.assert_close(regime.validated[8], average)
    torch.testing.assert_close(regime.weights(), average)
    torch.testing.assert_close(saved(tmp_path), average)


@pytest.mark.slow
def test_one_that_never_begins(tmp_path, caplog):
    regime = fit(tmp_path, 100, 1)
    assert torch.equal(regime.validated[4], regime.trained[4])
    assert torch.equal(saved(tmp_path), regime.trained[4])
    assert torch.equal(regime.weights(), regime.trained[4])
    assert "weight averaging never began in 4 steps" in caplog.text


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_one_that_would_stand_still(tmp_path, precision):
    """The last of the digits that a number near 1 has in 16 bits is worth more than a step of an average."""
    average = torch.tensor(1.0, dtype=torch.bfloat16)
    assert average.lerp(torch.tensor(1.5, dtype=torch.bfloat16), 1 - 0.995) == average
    trainer = trainer_with(tmp_path, [EMAWeightAveraging(decay=0.995)], precision=precision)
    with pytest.raises(ValueError, match=f"trainer.precision is {precision}, in which .* averaging rounds to nothing"):
        trainer.fit(Watched(), ResumableToyData())


@pytest.mark.slow
@pytest.mark.parametrize("start", [5, 100])
def test_resumed_to_the_bit(tmp_path, start):
    whole = fit(tmp_path / "whole", start, 3)
    fit(tmp_path / "parts", start, 1)
    parts = fit(tmp_path / "parts", start, 3, tmp_path / "parts/run/version_0/checkpoints/last.ckpt")
    assert torch.equal(whole.weights(), parts.weights())
    assert torch.equal(saved(tmp_path / "whole"), saved(tmp_path / "parts"))
