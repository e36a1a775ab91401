"""RunningVsBatch in real runs: its table is what the pure functions say of the checkpoints."""

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, TensorDataset

from lightning_adv.analysis.batchnorm_drift import running_statistics, sample_channels
from lightning_adv.analysis.running_vs_batch import batch_statistics, gap_records
from lightning_adv.attacks import FGSM, PGD
from lightning_adv.callbacks.running_vs_batch import RunningVsBatch
from lightning_adv.core.table import Record, read_table
from lightning_adv.nn.batchnorm import through
from lightning_adv.nn.layers import named_batchnorms
from tests.callbacks.overfitting import Recorder
from tests.callbacks.test_batchnorm_drift import fit as fit_observed
from tests.regimes.every_regime import make
from tests.regimes.toy import ResumableToyData, ToyData

LAYERS = ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]
STILL = PGD(eps=0.1, steps=2, step_size=0.05, start="zero")


def fit(folder, callback, module="madry", **options):
    """Train the toy regime; return the trainer, the module and the run folder."""
    module = make(module, folder, evaluation_attack=STILL) if isinstance(module, str) else module
    return fit_observed(folder, callback, module, **options)


def table_of(folder):
    return read_table(folder / "analyses" / "bn_gap.csv")


class Keep(Callback):
    """Keeps the images of the looks, which the observer lets go of when training ends."""

    def __init__(self, observer):
        self.observer = observer

    def on_train_epoch_end(self, trainer, pl_module):
        self.chunks = list(self.observer._images.batches)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixture_bn", "standard"])
def test_table_is_what_the_functions_say(tmp_path, name):
    """Of the network in the last checkpoint, loaded anew."""
    callback = RunningVsBatch(channels=3)
    keep = Keep(callback)
    trainer, _, folder = fit(tmp_path, callback, name, others=[keep])
    module = make(name, tmp_path, evaluation_attack=STILL)
    module.load_state_dict(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    module.train()
    running, batches = {}, {"clean": {}, "adversarial": {}}
    for domain in module.domains if module.domains else (None,):
        label = "" if domain is None else domain
        running[label] = running_statistics(through(module.network, domain))
        found = {"clean": [], "adversarial": []}
        for chunk in keep.chunks:
            x, y, noise = chunk.to(torch.device("cpu"))
            x_adv = getattr(module, "attack", STILL)(module.network, x, y, domain=domain, generator=noise)
            for kind, images in (("clean", chunk.x), ("adversarial", x_adv)):
                found[kind].append(batch_statistics(through(module.network, domain), images))
        for kind, of_kind in found.items():
            batches[kind][label] = {
                layer: torch.stack([torch.stack([s[layer][part] for s in of_kind]) for part in (0, 1)])
                for layer in LAYERS
            }
    sampled = sample_channels(named_batchnorms(module.network), None, 3)
    expected = gap_records(running, batches, sampled)
    rows = [Record(*row[2:]) for row in table_of(folder) if row.epoch == 1]
    assert [row[:3] for row in rows] == [record[:3] for record in expected]
    assert [row.value for row in rows] == pytest.approx([record.value for record in expected], rel=1e-5, abs=1e-6)
    assert any(row.statistic.startswith("adversarial_variance_batch1[") for row in rows)
    kind, domain = {"mixture_bn": ("adversarial", "adversarial"), "standard": ("clean", "")}[name]
    for moment in ("mean", "variance"):
        values = [
            record.value
            for record in expected
            if (record.domain, record.statistic) == (domain, f"{kind}_relative_{moment}_gap")
        ]
        assert len(values) == 4
        assert trainer.callback_metrics[f"bn_gap/{moment}"].item() == pytest.approx(sum(values) / 4, rel=1e-4)


@pytest.mark.slow
def test_blocks_that_are_not_retrained_are_held_still(tmp_path):
    callback = RunningVsBatch(channels=1, channel_layers="layer4.1")
    keep = Keep(callback)
    _, module, folder = fit(tmp_path, callback, "conventional", others=[keep])  # of the last blocks
    norms = named_batchnorms(module.network)
    held = [norm for norm in norms.values() if norm in set(module.held_in_eval())]
    assert 0 < len(held) < len(norms)
    x = keep.chunks[0].x
    (channel,) = sample_channels(norms, "layer4.1", 1)["layer4.1"]
    rows = {(row.name, row.statistic): row.value for row in table_of(folder) if row.epoch == 1}
    seen = rows["layer4.1", f"clean_variance_batch0[{channel}]"]
    as_held, as_not = (batch_statistics(module.network, x, held=norms)["layer4.1"] for norms in (held, []))
    assert seen == pytest.approx(as_held.variance[channel].item(), rel=1e-5)
    assert seen != pytest.approx(as_not.variance[channel].item(), rel=1e-3)


@pytest.mark.slow
def test_the_batches(tmp_path):
    """Different training images, as many as a training batch has, the same in each look and run."""
    seen = []
    for _ in range(2):
        recorder = Recorder()
        fit(tmp_path, RunningVsBatch(attack=recorder, batches=3))
        seen.append(recorder.calls)
    for calls in seen:
        assert [call[4] for call in calls] == [8] * 6, "three batches in two looks"
        images = torch.cat([call[0] for call in calls[:3]])
        assert len(images.unique(dim=0)) == 24
        assert torch.equal(images, torch.cat([call[0] for call in calls[3:]]))
        assert [torch.equal(calls[k][2], calls[k + 3][2]) for k in range(3)] == [True] * 3, "the same noise"
        assert not torch.equal(calls[0][2], calls[1][2])
    assert all(torch.equal(a[0], b[0]) for a, b in zip(*seen, strict=True))


@pytest.mark.slow
def test_sizes_of_batches(tmp_path):
    data = ResumableToyData(batch_size=16)
    for arguments, expected in (
        ({"batches": 1}, 16),
        ({"batches": 4}, 8),
        ({"batches": 5}, 6),
        ({"batches": 4, "batch_size": 3}, 3),
        ({"batches": 2, "batch_size": 16}, 16),
    ):
        recorder = Recorder()
        fit(tmp_path, RunningVsBatch(attack=recorder, **arguments), epochs=1, data=data)
        assert [call[4] for call in recorder.calls] == [expected] * arguments["batches"]


@pytest.mark.slow
def test_a_training_loader_that_does_not_tell_its_batch_size(tmp_path):
    class Batches:
        def __init__(self, data):
            self.data = data

        def __iter__(self):
            return iter(ToyData.train_dataloader(self.data))

    class Data(ToyData):
        def train_dataloader(self):
            return Batches(self)

    recorder = Recorder()
    fit(tmp_path, RunningVsBatch(attack=recorder, split="validation"), epochs=1, data=Data())
    assert [call[4] for call in recorder.calls] == [16, 16], "half of the validation set, since 128 are too many"
    with pytest.raises(ValueError, match=r"its training images by their index.*bn_gap\.split: validation"):
        fit(tmp_path, RunningVsBatch(), epochs=1, data=Data())


@pytest.mark.slow
def test_random_training_batches_under_the_training_attack(tmp_path):
    """As in figure 6.6; of a regime that trains on clean images under the attack of its validation."""

    class Apart(ToyData):
        """Validation images are black."""

        def val_dataloader(self):
            return DataLoader(TensorDataset(torch.zeros_like(self.x), self.y), batch_size=8)

    recorders = {"training": Recorder(), "validation": Recorder()}
    runs = {"training": make("madry", tmp_path, attack=recorders["training"], evaluation_attack=STILL)}
    runs["validation"] = make("standard", tmp_path, evaluation_attack=recorders["validation"])
    for kind, module in runs.items():
        observer = RunningVsBatch()
        keep = Keep(observer)
        fit(tmp_path / kind, observer, module, epochs=1, data=Apart(), others=[keep])
        looked_at = recorders[kind].calls[-2:]
        assert [torch.equal(call[0], chunk.x) for call, chunk in zip(looked_at, keep.chunks, strict=True)] == [True] * 2
        assert all(chunk.x.amax() > 0 for chunk in keep.chunks), "not of the validation set"
        in_order = Apart().x.split(8)
        assert not any(torch.equal(chunk.x, batch) for chunk in keep.chunks for batch in in_order), "drawn at random"


@pytest.mark.slow
def test_the_attack_of_the_regime_or_its_own(tmp_path):
    recorder = Recorder()
    fit(tmp_path, RunningVsBatch(), make("mixture_bn", tmp_path, attack=recorder), epochs=1)
    looks = [call for call in recorder.calls if call[1] is not None][-4:]
    assert [call[1] for call in looks] == ["main", "main", "adversarial", "adversarial"]
    gaps = []
    for attack in (Recorder(), FGSM(0.3)):
        *_, folder = fit(tmp_path / type(attack).__name__, RunningVsBatch(attack=attack), epochs=1)
        rows = {(row.name, row.statistic): row.value for row in table_of(folder)}
        gaps.append([rows["layer2.1", f"{kind}_mean_gap"] for kind in ("clean", "adversarial")])
    assert gaps[0][0] == gaps[0][1], "that attack moves nothing"
    assert gaps[1][0] == gaps[0][0] != gaps[1][1]


@pytest.mark.slow
def test_layers_channels_and_figures(tmp_path):
    callback = RunningVsBatch(layers=["layer1.1", "layer4.*"], channel_layers="**", channels=2, batches=1)
    *_, folder = fit(tmp_path, callback, epochs=1)
    rows = table_of(folder)
    assert list(dict.fromkeys(row.name for row in rows)) == ["layer1.1", "layer4.1"]
    single = {row.statistic.partition("[")[0] for row in rows if row.statistic.endswith("]")}
    kinds = {f"{kind}_{moment}_batch0" for kind in ("clean", "adversarial") for moment in ("mean", "variance")}
    assert single == {"running_mean", "running_variance", *kinds}
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert figures == {"bn_gap_channels_layer1.1.png", "bn_gap_channels_layer4.1.png", "bn_gap_gaps.png"}


@pytest.mark.slow
def test_mixed_precision(tmp_path):
    """The statistics are those of the features in bfloat16, close to those in float32, and no number is missing."""
    callback = RunningVsBatch()
    *_, folder = fit(tmp_path, callback, epochs=1, precision="bf16-mixed")
    rows = {row[2:5]: row.value for row in table_of(folder)}
    assert all(value < 1e3 for value in rows.values())
    *_, full = fit(tmp_path / "full", RunningVsBatch(), epochs=1)
    other = {row[2:5]: row.value for row in table_of(full)}
    assert rows != other
    for statistic in ("clean_mean_batch0[0]", "clean_variance_batch0[0]"):
        assert rows["layer3.1", "", statistic] == pytest.approx(other["layer3.1", "", statistic], rel=0.1, abs=0.05)


# What the user gets wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ({"batches": 3, "batch_size": 11}, "3 batches of 11 images"),
        ({"batches": 17}, "17 batches"),
    ],
)
def test_more_images_than_the_training_set_has(tmp_path, arguments, asked):
    message = rf"^bn_gap\.batches asks for {asked}, but the training set has 32 images"
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, RunningVsBatch(**arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": 0}, r"bn_gap\.batches must be an integer of at least 1, got 0"),
        ({"batch_size": 1}, r"bn_gap\.batch_size must be at least 2, got 1"),
        ({"channels": -1}, r"bn_gap\.channels must be an integer of at least 1, got -1"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        RunningVsBatch(**arguments)
