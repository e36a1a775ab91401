from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from lightning_adv.callbacks import TrainingCurves
from lightning_adv.regimes import StandardTraining
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer


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
