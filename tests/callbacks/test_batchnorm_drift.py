"""BatchNormDrift in real runs: its table is what the pure functions say of the checkpoints."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from lightning_adv.analysis.batchnorm_drift import drift_records, running_statistics, sample_channels, symmetric_kl
from lightning_adv.callbacks import LastCheckpoint
from lightning_adv.callbacks.batchnorm_drift import BatchNormDrift
from lightning_adv.core.table import Record, read_table
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import through
from lightning_adv.nn.layers import named_batchnorms
from lightning_adv.regimes import MadryTraining, Regime
from tests.regimes.every_regime import make
from tests.regimes.toy import ATTACK, BACKBONE, ResumableToyData, quiet_trainer

LAYERS = ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]


def fit(folder, callback, module="madry", *, epochs=2, data=None, ckpt_path=None, others=(), **options):
    """Train the toy regime; return the trainer, the module and the run folder."""
    module = make(module, folder) if isinstance(module, str) else module
    logger = CSVLogger(folder, name="run", version=0)
    callbacks = [callback, *others, LastCheckpoint()]
    options = {"max_epochs": epochs, "num_sanity_val_steps": 0, "enable_checkpointing": True} | options
    trainer = quiet_trainer(folder, callbacks=callbacks, logger=logger, **options)
    data = ResumableToyData() if data is None else data
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer, module, folder / "run" / "version_0"


def as_records(rows, epoch):
    return [Record(*row[2:]) for row in rows if row.epoch == epoch]


def assert_records(found, expected):
    assert [record[:3] for record in found] == [record[:3] for record in expected]
    values = [[record.value for record in records] for records in (found, expected)]
    assert values[0] == pytest.approx(values[1], rel=1e-7, abs=1e-30), "nine digits are written"


class Keep(Callback):
    """Keeps the running statistics at the start and after each epoch, before the observer sees them."""

    def __init__(self):
        self.kept = []

    def _keep(self, regime):
        domains = regime.domains if regime.domains else (None,)
        self.kept.append({"" if d is None else d: running_statistics(through(regime.network, d)) for d in domains})

    def on_train_start(self, trainer, pl_module):
        self._keep(pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self._keep(pl_module)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["madry", "mixture_bn"])
def test_table_is_what_the_function_says(tmp_path, name):
    keep, callback = Keep(), BatchNormDrift(channel_layers=["layer1.1", "layer4.1"], channels=3)
    trainer, module, folder = fit(tmp_path, callback, name, others=[keep])
    rows = read_table(folder / "analyses" / "bn_drift.csv")
    start, first, second = keep.kept
    saved = LightningLoaded(folder / "checkpoints" / "last.ckpt", module)
    for domain, layers in second.items():
        for layer, statistics in layers.items():
            assert torch.equal(saved.mean(layer, domain), statistics.mean)
    sampled = sample_channels(named_batchnorms(module.network), ["layer1.1", "layer4.1"], 3)
    assert_records(as_records(rows, 0), drift_records(first, {"start": start, "last": start}, sampled))
    expected = drift_records(second, {"start": start, "last": first}, sampled)
    assert_records(as_records(rows, 1), expected)
    assert {row.step for row in rows} == {3, 7}
    own = "adversarial" if name == "mixture_bn" else ""
    for statistic in ("mean", "variance", "kl"):
        values = [r.value for r in expected if (r.statistic, r.domain) == (f"{statistic}_from_start", own)]
        assert len(values) == 4
        logged = trainer.callback_metrics[f"bn_drift/{statistic}"].item()
        assert logged == pytest.approx(sum(values) / 4, rel=1e-5)
        assert logged > 0
        between = f"bn_drift/domains_{statistic}"
        if name == "madry":
            assert between not in trainer.callback_metrics
        else:
            values = [r.value for r in expected if r.statistic == f"{statistic}_from_main"]
            assert trainer.callback_metrics[between].item() == pytest.approx(sum(values) / 4, rel=1e-5)


class LightningLoaded:
    """Running means in a checkpoint, by the keys of its state dict."""

    def __init__(self, path, module):
        self.state = torch.load(path, weights_only=True)["state_dict"]

    def mean(self, layer, domain):
        inside = f"norms.{domain}." if domain else ""
        return self.state[f"network.network.{layer}.{inside}running_mean"]


@pytest.mark.slow
def test_layers_and_channels_by_pattern(tmp_path):
    callback = BatchNormDrift(layers=["layer2.1", "layer4.*"], channels=2)
    *_, folder = fit(tmp_path, callback, epochs=1)
    rows = read_table(folder / "analyses" / "bn_drift.csv")
    assert list(dict.fromkeys(row.name for row in rows)) == ["layer2.1", "layer4.1"]
    single = [row for row in rows if row.statistic.endswith("]")]
    assert {row.name for row in single} == {"layer4.1"}, "the one in the middle"
    assert len(single) == 4
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert figures == {"bn_drift_channels_layer4.1.png", "bn_drift_from_start.png"}


@pytest.mark.slow
def test_figures_with_domains_and_a_checkpoint(tmp_path):
    module = make("advprop", tmp_path)
    callback = BatchNormDrift(checkpoint=str(tmp_path / "pretrained.pth"), channel_layers="**")
    *_, folder = fit(tmp_path, callback, module, epochs=1)
    figures = {path.name for path in (folder / "figures").iterdir()}
    expected = [f"channels_{layer}" for layer in LAYERS] + ["from_start", "from_main", "from_checkpoint"]
    assert figures == {f"bn_drift_{name}.png" for name in expected}


# Another network ------------------------------------------------------------------------------------------------------


def other_network(folder):
    """A file of the same network, with running statistics of its own."""
    network = BACKBONE.build(2)
    for number, norm in enumerate(named_batchnorms(network).values()):
        norm.running_mean.fill_(number + 1)
        norm.running_var.fill_(2)
    torch.save(network.network.state_dict(), folder / "other.pth")
    return network


@pytest.mark.slow
@pytest.mark.parametrize("name", ["madry", "advprop"])
def test_distance_from_a_checkpoint(tmp_path, name):
    other = running_statistics(other_network(tmp_path))
    random = []

    class Random(Callback):
        def on_train_start(self, trainer, pl_module):
            random.append(torch.get_rng_state())

    callback = BatchNormDrift(checkpoint=str(tmp_path / "other.pth"))
    _, module, folder = fit(tmp_path, callback, name, epochs=1, others=[Random()])
    plain = BatchNormDrift()
    fit(tmp_path / "without", plain, name, epochs=1, others=[Random()])
    assert torch.equal(*random), "building the network drew nothing"
    rows = read_table(folder / "analyses" / "bn_drift.csv")
    for domain in module.domains if module.domains else (None,):
        now = running_statistics(through(module.network, domain))
        for layer in LAYERS:
            label = "" if domain is None else domain
            found = {r.statistic: r.value for r in rows if (r.name, r.domain) == (layer, label)}
            apart = (now[layer].mean - other[layer].mean).abs().mean().item()
            assert found["mean_from_checkpoint"] == pytest.approx(apart, rel=1e-5)
            kl = symmetric_kl(now[layer], other[layer]).mean().item()
            assert found["kl_from_checkpoint"] == pytest.approx(kl, rel=1e-5)


@pytest.mark.slow
def test_a_run_with_domains_as_the_checkpoint(tmp_path):
    *_, folder = fit(tmp_path / "source", BatchNormDrift(), "advprop", epochs=1)
    saved = folder / "checkpoints" / "last.ckpt"
    state = LightningLoaded(saved, None)
    for domain in ("main", "adversarial"):
        callback = BatchNormDrift(checkpoint=str(saved), checkpoint_domain=domain)
        *_, module, run = fit(tmp_path / domain, callback, epochs=1)
        rows = read_table(run / "analyses" / "bn_drift.csv")
        found = next(r.value for r in rows if (r.name, r.statistic) == ("layer3.1", "mean_from_checkpoint"))
        own = running_statistics(module.network)["layer3.1"].mean
        assert found == pytest.approx((own - state.mean("layer3.1", domain)).abs().mean().item(), rel=1e-5)
    with pytest.raises(ValueError, match=r"^bn_drift\.checkpoint_domain: .* it has main, adversarial: name one"):
        fit(tmp_path / "auxiliary", BatchNormDrift(checkpoint=str(saved), checkpoint_domain="auxiliary"))


@pytest.mark.slow
def test_an_activation_that_learns_is_not_missed_in_the_file(tmp_path):
    other_network(tmp_path)
    backbone = Backbone(**{**vars(BACKBONE), "activation": "smooth_relu"})
    module = MadryTraining(backbone, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK)
    *_, folder = fit(tmp_path, BatchNormDrift(checkpoint=str(tmp_path / "other.pth")), module, epochs=1)
    rows = read_table(folder / "analyses" / "bn_drift.csv")
    assert any(row.statistic == "kl_from_checkpoint" for row in rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "checkpoint: .*there is no file"),
        (b"garbage", "checkpoint: .*cannot be read as weights"),
        ({"fc.weight": torch.zeros(2, 3)}, "checkpoint: .*holds the weights of another network"),
        ("domain", "checkpoint_domain: .*has no BatchNorm domains, and 'main' was asked for"),
    ],
)
def test_a_checkpoint_that_is_none_of_this_network(tmp_path, content, message):
    path, domain = tmp_path / "other.pth", None
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        torch.save(content, path)
    elif content == "domain":
        other_network(tmp_path)
        domain = "main"
    callback = BatchNormDrift(checkpoint=str(path), checkpoint_domain=domain)
    with pytest.raises(ValueError, match=rf"^bn_drift\.{message}"):
        fit(tmp_path, callback)


def test_a_network_that_the_backbone_does_not_build(tmp_path):
    other_network(tmp_path)
    module = make("madry", tmp_path)
    module.network.network.layer1[1] = nn.Sequential(nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match=r"'small_cnn', which has no BatchNorm 'layer1\.1\.0' like the one"):
        fit(tmp_path, BatchNormDrift(checkpoint=str(tmp_path / "other.pth")), module)


# Resuming -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_resumed_with_other_layers(tmp_path):
    *_, folder = fit(tmp_path, BatchNormDrift(layers="layer1.1"))
    start = BACKBONE.build(2).network.layer4[1].running_mean
    *_, module, _ = fit(
        tmp_path, BatchNormDrift(layers="layer4.1"), epochs=3, ckpt_path=folder / "checkpoints/last.ckpt"
    )
    rows = read_table(folder / "analyses" / "bn_drift.csv")
    found = {row.statistic: row.value for row in rows if row.name == "layer4.1"}
    moved = (running_statistics(module.network)["layer4.1"].mean - start).abs().mean().item()
    assert found["mean_from_start"] == pytest.approx(moved, rel=1e-5)


@pytest.mark.slow
def test_another_fit_starts_anew(tmp_path):
    callback = BatchNormDrift()
    fit(tmp_path / "first", callback, epochs=2)
    *_, second = fit(tmp_path / "second", callback, epochs=1)
    *_, fresh = fit(tmp_path / "fresh", BatchNormDrift(), epochs=1)
    tables = [(folder / "analyses" / "bn_drift.csv").read_text() for folder in (second, fresh)]
    assert tables[0] == tables[1]


# What the user gets wrong ---------------------------------------------------------------------------------------------


def without_batchnorm():
    return MadryTraining(
        Backbone("vit_tiny_patch16_224", in_channels=1, options={"img_size": 8, "patch_size": 4, "depth": 1}),
        num_classes=2,
        attack=ATTACK,
        evaluation_attack=ATTACK,
    )


def untracked():
    module = MadryTraining(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK)
    for norm in named_batchnorms(module.network).values():
        norm.track_running_stats = False
        norm.running_mean = norm.running_var = None
    return module


@pytest.mark.slow
def test_a_run_that_it_joins_late(tmp_path):
    """Its start is where it joined, and it says so."""
    _, _, folder = fit(tmp_path, Keep(), epochs=1)
    late = BatchNormDrift()
    with pytest.warns(UserWarning, match="was not there when this run started: its start is step 4"):
        fit(tmp_path, late, epochs=2, ckpt_path=folder / "checkpoints" / "last.ckpt")


def test_a_domain_with_the_name_of_a_reference(tmp_path):
    module = make("advprop", tmp_path)
    module.domains = ("start", "adversarial")
    with pytest.raises(ValueError, match="cannot tell the BatchNorm domain 'start' from its references start, last"):
        BatchNormDrift().prepare(None, module)


def test_a_pattern_that_matches_no_layer(tmp_path):
    names = r"There are layer1\.1, layer2\.1, layer3\.1, layer4\.1\."
    with pytest.raises(ValueError, match=rf"^bn_drift\.layers has the pattern 'layer5\.1', .*{names}"):
        fit(tmp_path, BatchNormDrift(layers="layer5.1"))
    with pytest.raises(ValueError, match=r"^bn_drift\.channel_layers has the pattern 'layer1\.1', .*layer2\.1\.$"):
        fit(tmp_path, BatchNormDrift(layers="layer2.1", channel_layers="layer1.1"))


def test_without_batchnorm_to_look_at(tmp_path):
    needs = "^BatchNormDrift needs BatchNorms with running statistics. The network, a"
    with pytest.raises(ValueError, match=f"{needs} VisionTransformer, has no BatchNorm"):
        fit(tmp_path, BatchNormDrift(), without_batchnorm())
    with pytest.raises(ValueError, match=f"{needs} SmallCNN, has BatchNorms .*track_running_stats"):
        fit(tmp_path, BatchNormDrift(), untracked())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, r"bn_drift\.channels must be an integer of at least 1, got 0"),
        ({"checkpoint_domain": "main"}, r"bn_drift\.checkpoint_domain is 'main', but there is no bn_drift\.checkpoint"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        BatchNormDrift(**arguments)


@pytest.mark.slow
def test_statistics_only_move_while_they_are_trained(tmp_path):
    """In the last epoch BatchNorm is held still: the last look is where the one before was."""

    class Still(MadryTraining):
        def held_in_eval(self):
            if not self.current_epoch:
                return Regime.held_in_eval(self)
            return named_batchnorms(self.network).values()

    torch.manual_seed(0)
    module = Still(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK)
    *_, folder = fit(tmp_path, BatchNormDrift(), module)
    rows = read_table(folder / "analyses" / "bn_drift.csv")
    for epoch, moved in ((0, True), (1, False)):
        for statistic in ("mean_from_last", "kl_from_last"):
            values = [row.value for row in rows if (row.epoch, row.statistic) == (epoch, statistic)]
            assert len(values) == 4
            assert all((value > 0) == moved for value in values)
