import csv

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_adv.attacks import FGSM
from lightning_adv.commands.fit.predictions import PredictionTable
from lightning_adv.regimes import StandardTraining
from tests.regimes.toy import BACKBONE, ToyData, quiet_trainer


class SecondOfTwo(ToyData):
    """Its loader gives what the second of two processes would get: images 1, 3, 5, ..."""

    def predict_dataloader(self):
        images = TensorDataset(self.x, self.y)
        sampler = UnrepeatedDistributedSampler(images, num_replicas=2, rank=1, shuffle=False)
        return DataLoader(images, batch_size=self.batch_size, sampler=sampler)


def predict(tmp_path, data):
    table = PredictionTable()
    logger = CSVLogger(tmp_path, name="", version="run")
    torch.manual_seed(0)
    regime = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=FGSM()).eval()
    quiet_trainer(tmp_path, logger=logger, callbacks=[table]).predict(regime, data, return_predictions=False)
    if table.path is None:
        return regime, []
    with table.path.open(newline="") as file:
        return regime, list(csv.DictReader(file))


@pytest.mark.parametrize(("make", "indices"), [(ToyData, range(32)), (SecondOfTwo, range(1, 32, 2))])
def test_index_label_and_probabilities_belong_together(tmp_path, make, indices):
    (tmp_path / "run").mkdir()
    data = make(y=torch.randint(2, (32,), generator=torch.Generator().manual_seed(1)))
    regime, rows = predict(tmp_path, data)
    assert [int(row["index"]) for row in rows] == list(indices)
    with torch.no_grad():
        probabilities = regime(data.x).softmax(1)
    for row in rows:
        index = int(row["index"])
        assert int(row["label"]) == data.y[index]
        given = torch.tensor([float(row["probability_0"]), float(row["probability_1"])])
        torch.testing.assert_close(given, probabilities[index])
        assert int(row["predicted"]) == given.argmax()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["predictions.csv"]


def test_images_without_an_index(tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(zip(torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long), strict=True))

    class Streamed(ToyData):
        def predict_dataloader(self):
            return DataLoader(Stream(), batch_size=2)

    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="takes the images by their index"):
        predict(tmp_path, Streamed())
    assert list((tmp_path / "run").iterdir()) == []


def test_fast_dev_run_writes_nothing(tmp_path):
    regime = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=FGSM())
    table = PredictionTable()
    quiet_trainer(tmp_path, callbacks=[table], fast_dev_run=True).predict(regime, ToyData())
    assert table.path is None
    assert list(tmp_path.iterdir()) == []
