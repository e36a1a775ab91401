"""Transferred examples: LocalResponse with another run's network as their source."""

import copy
from typing import ClassVar

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

from lightning_adv.attacks import FGSM, Attack
from lightning_adv.callbacks import LocalResponse
from lightning_adv.callbacks.local_response import load_source
from lightning_adv.core.table import Row, read_table
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import export_plain, without_domain
from tests.callbacks.responses import SMALL_CNN, STRONG, Keeping, expected, fit, last_look, load
from tests.regimes.every_regime import REGIMES, make
from tests.regimes.toy import ATTACK


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Runs to transfer from: without domains, and with."""
    folder = tmp_path_factory.mktemp("sources")
    runs = {}
    for name in ("standard", "mixture_bn"):
        runs[name] = fit(folder / name, None, make(name, folder / name, evaluation_attack=STRONG))[1]
    return runs


@pytest.mark.slow
@pytest.mark.parametrize(("name", "source"), [("advprop", "standard"), ("madry", "mixture_bn")])
def test_transferred_examples_are_made_on_the_source(tmp_path, sources, name, source):
    checkpoint = sources[source] / "checkpoints/last.ckpt"
    observer = Keeping(images=20, source=str(checkpoint), attack=STRONG)
    _, run = fit(tmp_path, observer, make(name, tmp_path / "weights"))
    trained, table, other = load(run, REGIMES[name][0]), last_look(run), load(sources[source], REGIMES[source][0])

    def transfer(x, y, generator):
        return STRONG(other.network, x, y, domain=other.inference_domain, generator=generator)

    for domain in trained.domains or [None]:
        network = trained.network if domain is None else export_plain(trained.network, domain)
        rows = expected(network, SMALL_CNN, observer.kept, transfer)
        column = "" if domain is None else domain
        for (layer, statistic), value in rows.items():
            assert table[layer, column, f"transferred_{statistic}"] == pytest.approx(value, rel=1e-4)
        assert table["m1", column, "transferred_max"] != table["m1", column, "max"]
    assert (run / "figures/local_response_curves.png").is_file()
    assert (run / "figures/local_response_layers.png").is_file()


@pytest.mark.slow
def test_several_attacks_and_sources_side_by_side(tmp_path, sources):
    """Every number is that of an observer with this one attack and this one source; so are the figures' rows."""
    paths = {name: str(run / "checkpoints/last.ckpt") for name, run in sources.items()}
    attacks = {"pgd2": STRONG, "fgsm": FGSM(0.1)}
    single = {
        (attack, source): LocalResponse(
            images=20, name=f"{attack}-{source}", attack=attacks[attack], source=paths[source]
        )
        for attack in attacks
        for source in paths
    }
    observer = LocalResponse(images=20, attacks=attacks, sources=paths)
    trainer, run = fit(tmp_path, observer, make("advprop", tmp_path / "weights"), callbacks=single.values())
    table = {row[2:5]: row.value for row in read_table(run / "analyses/local_response.csv")}
    expected = {}
    for (attack, source), of in single.items():
        for row in read_table(run / f"analyses/{of.analysis}.csv"):
            statistic = row.statistic.replace("transferred_", f"transferred_from_{source}_")
            expected[row.name, row.domain, f"{attack}_{statistic}"] = row.value
    assert table == expected
    figures = {path.name for path in (run / "figures").iterdir() if path.name.startswith("local_response")}
    assert figures == {f"local_response_{kind}_{attack}.png" for kind in ("curves", "layers") for attack in attacks}
    logged = {name for name in trainer.callback_metrics if name.startswith("local_response/m1/")}
    assert logged == {f"local_response/m1/{attack}_{of}" for attack in attacks for of in ("max", "total")}
    (figure,) = (each for name, each in observer.draw(last_rows(run)).items() if name == "layers_fgsm")
    told = [line.get_label() for line in figure.axes[0].lines]
    assert [each for each in told if "transferred" in each] == [f"transferred from {name}" for name in paths]


def test_an_attack_whose_name_begins_another_has_figures_of_its_own():
    rows = [
        Row(epoch, epoch, layer, "", f"{attack}_{kind}", value)
        for epoch in range(2)
        for layer in ("conv1", "layer1")
        for attack, value in (("fgsm", 1.0), ("fgsm_strong", 5.0))
        for kind in ("max", "total")
    ]
    observer = LocalResponse(attacks={"fgsm": FGSM(0.1), "fgsm_strong": FGSM(0.3)})
    figures = observer.draw(rows)
    for name, value in (("layers_fgsm", 1.0), ("layers_fgsm_strong", 5.0)):
        drawn = {float(y) for axes in figures[name].axes for line in axes.lines for y in line.get_ydata()}
        assert drawn == {value}, name


def last_rows(run):
    return read_table(run / "analyses/local_response.csv")


class Watched(Attack):
    """An attack that notes on which network it runs, and where that is."""

    calls: ClassVar = []

    def __call__(self, model, x, y, *, domain=None, generator=None):
        network, through = without_domain(model)
        self.calls.append((network, model.training, next(model.parameters()).requires_grad, through))
        return ATTACK(model, x, y, domain=domain, generator=generator)


class Prepared(LocalResponse):
    """Notes whether building the source drew from the random state, which each batch of training seeds anew."""

    def prepare(self, trainer, regime):
        before = torch.get_rng_state()
        super().prepare(trainer, regime)
        self.drew = not torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
def test_the_source_belongs_to_nobody(tmp_path, sources):
    """It is in no state dict, held still, built without a draw from the random state, and let go of."""

    def trained(folder, observer):
        module = make("madry", tmp_path / "weights")
        torch.manual_seed(1)
        _, run = fit(folder, observer, module, max_epochs=2)
        checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
        return module, checkpoint["state_dict"], torch.rand(3)

    Watched.calls = []
    observer = Prepared(images=8, attack=Watched(), source=str(sources["standard"] / "checkpoints/last.ckpt"))
    module, state, draws = trained(tmp_path / "with", observer)
    _, plain, plain_draws = trained(tmp_path / "without", None)
    assert state.keys() == plain.keys()
    assert all(torch.equal(state[name], plain[name]) for name in state)
    assert torch.equal(draws, plain_draws)
    assert not observer.drew
    ours = [call for call in Watched.calls if call[0] is module.network]
    theirs = [call for call in Watched.calls if call[0] is not module.network]
    assert len(ours) == len(theirs) == 2
    assert {call[1:] for call in theirs} == {(False, False, None)}
    assert theirs[0][0] is theirs[1][0]
    assert observer._networks == {}
    assert not any(submodule._forward_hooks for submodule in module.modules())


@pytest.mark.slow
def test_a_source_with_averaged_weights(tmp_path):
    run = fit(tmp_path, None, callbacks=[EMAWeightAveraging(decay=0.5)])[1]
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    network = load_source(run / "checkpoints/last.ckpt", 2, (1, 8, 8))
    for name, value in network.state_dict().items():
        if not name.startswith("normalize."):
            assert torch.equal(value, content["state_dict"][f"network.{name}"])
    assert not network.training


# Bad sources ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(sources):
    return torch.load(sources["standard"] / "checkpoints/last.ckpt", weights_only=True)


def refused(folder, content, **kwargs):
    """The error about a source with this content."""
    path = folder / "source.ckpt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"^local_response\.source: ") as error:
        fit(folder, LocalResponse(source=str(path)), **kwargs)
    return str(error.value).removeprefix(f"local_response.source: {path} ")


@pytest.mark.slow
def test_a_source_that_is_no_runs_checkpoint(tmp_path, checkpoint):
    assert refused(tmp_path, checkpoint["state_dict"]) == "is not the checkpoint of a run of this package."
    assert refused(tmp_path, [1, 2]) == "is not the checkpoint of a run of this package."
    del checkpoint["regime"]
    assert refused(tmp_path, checkpoint) == "is not the checkpoint of a run of this package."


def test_an_unreadable_source(tmp_path):
    path = tmp_path / "source.ckpt"
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"^local_response\.source: .*source.ckpt cannot be read as weights"):
        fit(tmp_path, LocalResponse(source=str(path)))


def test_a_source_of_other_classes(tmp_path, checkpoint):
    checkpoint["hyper_parameters"]["num_classes"] = 3
    assert refused(tmp_path, checkpoint) == "tells 3 classes apart, and this run's network 2."


@pytest.mark.slow
def test_a_source_of_other_images(tmp_path, checkpoint):
    other = copy.deepcopy(checkpoint)
    other["regime"]["image_shape"] = [1, 32, 32]
    told = "was trained on images of the shape (1, 32, 32), and this run's have the shape (1, 8, 8)."
    assert refused(tmp_path, other) == told
    other["hyper_parameters"]["backbone"] = Backbone("small_cnn", options={"width": 4}).to_config()["init_args"]
    other["regime"]["image_shape"] = None
    told = "was trained on images of 3 channels, and this run's have the shape (1, 8, 8)."
    assert refused(tmp_path, other) == told


def test_a_source_that_does_not_say_its_images_is_tried(tmp_path, checkpoint):
    """A network of fixed size: a ViT of 16×16 images."""
    checkpoint["regime"]["image_shape"] = None
    path = tmp_path / "small.ckpt"
    torch.save(checkpoint, path)
    assert load_source(path, 2, (1, 8, 8)) is not None
    options = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 1}
    backbone = Backbone("vit_tiny_patch16_224", in_channels=1, options=options)
    state = {f"network.{name}": value for name, value in backbone.build(2).state_dict().items()}
    checkpoint["hyper_parameters"]["backbone"] = backbone.to_config()["init_args"]
    torch.save({**checkpoint, "state_dict": state}, path)
    assert load_source(path, 2, (1, 16, 16)) is not None
    with pytest.raises(ValueError, match=r"^local_response.source: .* does not take the images of this run"):
        load_source(path, 2, (1, 8, 8))


def test_a_source_whose_weights_are_of_another_network(tmp_path, checkpoint):
    checkpoint["state_dict"].popitem()
    del checkpoint["state_dict"]["network.network.layer1.0.weight"]
    assert "holds the weights of another network" in refused(tmp_path, checkpoint)
