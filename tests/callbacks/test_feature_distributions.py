"""FeatureDistributions in a Trainer: its table is what the functions give of the checkpoint's network."""

import pytest
import torch
from matplotlib.figure import Figure

from lightning_adv.analysis.features import energy_distance, feature_layers, feature_vectors, separability
from lightning_adv.callbacks import FeatureDistributions
from lightning_adv.core.table import read_table
from lightning_adv.testing import check_observer
from tests.callbacks.responses import STRONG, WideData, fit, load


@pytest.mark.slow
def test_it_keeps_the_promises_of_observers():
    check_observer(FeatureDistributions(images=12, perplexity=5, points=60, positions=2))


class Keeping(FeatureDistributions):
    """Remembers its images, which it lets go at the end."""

    def prepare(self, trainer, module):
        super().prepare(trainer, module)
        self.kept = list(self._images.batches)


@pytest.mark.slow
def test_the_table_is_that_of_the_checkpoint_and_the_picture_that_of_the_last_look(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    observer = Keeping(images=100, positions=3, points=10_000, perplexity=10)
    trainer, run = fit(tmp_path, observer, data=WideData())
    network, chunks = load(run).network, observer.kept
    assert [len(chunk.y) for chunk in chunks] == [64, 36]
    found = []
    for chunk in chunks:
        x_adv = STRONG(network, chunk.x, chunk.y, generator=torch.Generator().manual_seed(chunk.seed))
        places = torch.Generator().manual_seed(chunk.seed)
        layers = feature_layers(network, (1, 8, 8))
        found.append(feature_vectors(network, chunk.x, x_adv, layers, positions=3, generator=places))
    table = {(row.name, row.statistic): row.value for row in read_table(run / "analyses/feature_distributions.csv")}
    assert {name for name, _ in table} == {"m1", "m2"}
    for name in ("m1", "m2"):
        kinds = [torch.cat([getattr(part[name], kind) for part in found]) for kind in ("clean", "adversarial")]
        image = torch.cat([found[0][name].image, 64 + found[1][name].image])
        vectors = type(found[0][name])(*kinds, image)
        distance, share = energy_distance(vectors)
        expected = {"separability": separability(vectors), "energy_distance": distance, "energy_share": share}
        for statistic, estimate in expected.items():
            ends = [table[name, f"{statistic}{end}"] for end in ("", "_low", "_high")]
            assert ends == pytest.approx(estimate, rel=1e-4, abs=1e-6)
            logged = trainer.callback_metrics.get(f"feature_distributions/{name}/{statistic}")
            assert statistic == "energy_distance" or logged.item() == pytest.approx(estimate.value, rel=1e-4)
    titles = [[axes.get_title() for axes in figure.axes] for figure in drawn]
    assert titles[0] == ["Separability", "Energy share"]
    assert [title.split(":")[0] for title in titles[1]] == ["m1", "m2"]
    assert titles[1][0].endswith(f"told apart {table['m1', 'separability']:.2f}")


# Bad input ------------------------------------------------------------------------------------------------------------


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match=r"feature_distributions.positions must be an integer of at least 1, got 0"):
        FeatureDistributions(positions=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": "stage*"}, r"feature_distributions.layers has the pattern 'stage\*', which no layer matches"),
        ({"images": 4}, "feature_distributions.images must be at least 5, which are its folds, got 4"),
        ({"images": 10, "positions": 4}, r"feature_distributions.perplexity \(behind m1\) must be .* below a third of "
         r"the points of the map, got 30 and 80 points: 4 of each of 10 images"),
    ],
)  # fmt: skip
def test_what_cannot_be_looked_at(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, FeatureDistributions(**arguments))
