"""The observer of saliency maps: what its numbers are, what it keeps, and what a run without captum is told."""

import sys

import pytest
import torch

from lightning_adv.analysis.features import gini, grad_saliency, saliency_distances, smooth_grad
from lightning_adv.callbacks import SaliencyMaps
from lightning_adv.core.errors import UsageError
from lightning_adv.core.table import read_table
from lightning_adv.regimes import MadryTraining
from tests.regimes.toy import ATTACK, BACKBONE, ResumableToyData, quiet_trainer


def trained(folder, observer, epochs=1):
    torch.manual_seed(0)
    module = MadryTraining(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK)
    trainer = quiet_trainer(folder, callbacks=[observer], max_epochs=epochs, logger=True)
    trainer.fit(module, ResumableToyData(batch_size=8))
    return trainer, read_table(observer.table)


class Keeping(SaliencyMaps):
    """Keeps the images and the maps of each look."""

    def observe(self, trainer, module):
        self.batches = self._images.batches
        own = [
            smooth_grad(module.network, b.x, b.y, generator=b.to("cpu")[2], samples=self.samples) for b in self.batches
        ]
        grads = [grad_saliency(module.network, b.x, b.y) for b in self.batches]
        self.seen = [*getattr(self, "seen", []), torch.cat(own if self.method == "smooth_grad" else grads)]
        return super().observe(trainer, module)


@pytest.mark.parametrize("method", ["grad", "smooth_grad"])
def test_its_numbers_are_means_over_the_same_images(tmp_path, method):
    observer = Keeping(images=6, samples=3, method=method)
    trainer, rows = trained(tmp_path, observer, epochs=3)
    first, second, third = observer.seen
    assert first.shape == (6, *observer.batches[0].x.shape[1:])
    found = {(row.epoch, row.statistic): row.value for row in rows}
    expected = {
        (2, "gini"): gini(third),
        (2, "l2_from_first"): saliency_distances(third, first).l2,
        (2, "l2_from_last"): saliency_distances(third, second).l2,
        (2, "cosine_from_first"): saliency_distances(third, first).cosine,
        (2, "cosine_from_last"): saliency_distances(third, second).cosine,
        (1, "cosine_from_first"): saliency_distances(second, first).cosine,
        (0, "gini"): gini(first),
    }
    for key, values in expected.items():
        assert found[key] == pytest.approx(values.mean().item(), rel=1e-6), key
    assert {statistic for epoch, statistic in found if epoch == 0} == {"gini"}
    assert trainer.callback_metrics["saliency_maps/gini"].item() == pytest.approx(found[2, "gini"])
    names = {path.name for path in (observer.table.parent.parent / "figures").iterdir()}
    assert names == {"saliency_maps_maps.png", "saliency_maps_numbers.png"}


def test_pictures_of_a_long_run_are_as_many_as_of_a_short_one():
    observer = SaliencyMaps()
    observer._last = {"": torch.rand(5, 1, 4, 4)}
    for step in range(100):
        observer._keep_picture(step)
    assert list(observer._pictures) == [16 * k for k in range(7)]
    assert observer._pictures[0].shape == (4, 4, 4)
    assert observer._pictures[0].dtype == torch.uint8


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"method": "lime"}, "saliency_maps.method must be one of smooth_grad, grad, got 'lime'"),
        ({"samples": 0}, "saliency_maps.samples must be an integer of at least 1, got 0"),
        ({"images": -1}, "saliency_maps.images must be an integer of at least 1, got -1"),
    ],
)
def test_bad_arguments_are_told(given, told):
    with pytest.raises(UsageError, match=told):
        SaliencyMaps(**given)


def test_a_run_without_captum_is_told_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(UsageError, match=r"pip install 'lightning-adv\[interpret\]'"):
        trained(tmp_path, SaliencyMaps(images=6))
