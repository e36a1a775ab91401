import time

import pytest
from lightning.pytorch import Callback

from lightning_adv.callbacks import Throughput
from lightning_adv.regimes import StandardTraining
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer


class Sleeper(Callback):
    """Makes validation slow."""

    def on_validation_batch_start(self, *_):
        time.sleep(0.05)


@pytest.mark.slow
def test_counts_images_and_separates_validation(tmp_path):
    clock = Throughput()
    trainer = quiet_trainer(tmp_path, callbacks=[clock, Sleeper()], max_epochs=2, num_sanity_val_steps=1)
    began = time.perf_counter()
    trainer.fit(StandardTraining(BACKBONE, evaluation_attack=ATTACK), ToyData())
    wall = time.perf_counter() - began
    assert clock.images == 64
    assert clock.validation_seconds >= 2 * 4 * 0.05
    assert 0 < clock.training_seconds <= wall - clock.validation_seconds
    assert clock.images_per_second == pytest.approx(64 / clock.training_seconds)


@pytest.mark.slow
def test_counts_over_a_resumed_run(tmp_path):
    first, second = Throughput(), Throughput()
    trainer = quiet_trainer(tmp_path, callbacks=[first])
    trainer.fit(StandardTraining(BACKBONE, evaluation_attack=ATTACK), ToyData())
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    stored = (first.images, first.training_seconds)
    resumed = quiet_trainer(tmp_path, callbacks=[second], max_epochs=3)
    module = StandardTraining(BACKBONE, evaluation_attack=ATTACK)
    resumed.fit(module, ToyData(), ckpt_path=tmp_path / "run.ckpt", weights_only=True)
    assert stored[0] == 32
    assert second.images == 96
    assert second.training_seconds > stored[1]


def test_nothing_trained_is_no_speed():
    assert Throughput().images_per_second == 0
