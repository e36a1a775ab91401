from pathlib import Path

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from lightning_adv.callbacks import TrainingCurves
from lightning_adv.regimes import StandardTraining
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer


@pytest.mark.slow
def test_picture_in_the_run_folder(tmp_path):
    logger = CSVLogger(tmp_path, name="run", version=0)
    trainer = quiet_trainer(tmp_path, callbacks=[TrainingCurves()], logger=logger, max_epochs=2)
    trainer.fit(StandardTraining(BACKBONE, evaluation_attack=ATTACK), ToyData())
    with Image.open(tmp_path / "run/version_0/figures/training_curves.png") as picture:
        assert picture.size == (1800, 540)
        assert len(picture.convert("RGB").getcolors(10**6)) > 20


def test_without_a_csv_logger_nothing_is_drawn(tmp_path):
    trainer = quiet_trainer(tmp_path, callbacks=[TrainingCurves()])
    trainer.fit(StandardTraining(BACKBONE, evaluation_attack=ATTACK), ToyData())
    assert not list(tmp_path.rglob("*.png"))


class Damage(Callback):
    """Does something in the run folder before the picture is drawn."""

    def __init__(self, damage):
        self.damage = damage

    def on_fit_end(self, trainer, pl_module):
        trainer.logger.save()
        self.damage(Path(trainer.logger.log_dir))


def fit_with(tmp_path, damage):
    logger = CSVLogger(tmp_path, name="run", version=0)
    callbacks = [Damage(damage), TrainingCurves()]
    trainer = quiet_trainer(tmp_path, callbacks=callbacks, logger=logger, max_epochs=1)
    trainer.fit(StandardTraining(BACKBONE, evaluation_attack=ATTACK), ToyData())
    return tmp_path / "run/version_0/figures/training_curves.png"


@pytest.mark.slow
def test_of_damaged_metrics_the_rest_is_drawn(tmp_path):
    def append(folder):
        with (folder / "metrics.csv").open("a") as file:
            file.write("1,2\n")

    with pytest.warns(UserWarning, match=r"metrics.csv is damaged, and training_curves.png lacks .* are left out: 1"):
        assert fit_with(tmp_path, append).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a file in the place of the folder", "metrics that are no text"])
def test_a_picture_that_cannot_be_made_does_not_end_a_run(tmp_path, kind):
    def damage(folder):
        if "file" in kind:
            (folder / "figures").touch()
        else:
            (folder / "metrics.csv").write_bytes(b"\xff\n")

    with pytest.warns(UserWarning, match=r"training_curves.png is missing"):
        assert not fit_with(tmp_path, damage).is_file()
