"""``init.ckpt``: the network just before the first step, kept once, and no checkpoint to go on with."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger

from lightning_adv.callbacks import InitialCheckpoint, LastCheckpoint
from lightning_adv.cli import main
from lightning_adv.commands.fit.placing import check_vacant
from lightning_adv.commands.shared.stopping import how_to_go_on
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import through
from lightning_adv.regimes import MadryTraining
from tests.commands.shortened import fit, results
from tests.regimes.every_regime import make
from tests.regimes.toy import BACKBONE, ToyData, quiet_trainer


def run(folder, module, ckpt_path=None, callbacks=(), **settings):
    callbacks = [*callbacks, InitialCheckpoint(), LastCheckpoint()]
    logger = CSVLogger(folder, name="", version="run")
    trainer = quiet_trainer(folder, logger=logger, enable_checkpointing=True, callbacks=callbacks, **settings)
    trainer.fit(module, ToyData(), ckpt_path=ckpt_path)
    return folder / "run/checkpoints/init.ckpt"


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def assert_equal(state, expected):
    assert state.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


@pytest.mark.parametrize(
    ("name", "activation"),
    [("standard", None), ("mixture_bn", None), pytest.param("sat", "silu", marks=pytest.mark.slow)],
)
def test_it_is_the_network_before_training_and_weights_to_begin_with(tmp_path, name, activation):
    """Accumulated gradients, an average of weights: the first batch has moved the statistics before the first step."""
    module = make(name, tmp_path)
    before = copy.deepcopy(module).eval()
    averaging = EMAWeightAveraging(decay=0.5, update_starting_at_step=1)
    path = run(tmp_path, module, accumulate_grad_batches=2, callbacks=[averaging])
    content = torch.load(path, weights_only=True)
    assert_equal(content["state_dict"], before.state_dict())
    assert content["global_step"] == 0
    assert "optimizer_states" not in content
    network = replace(BACKBONE, checkpoint=str(path), activation=activation).build(2).eval()
    x = ToyData().x
    with torch.no_grad():
        assert torch.equal(network(x), through(before.network, before.inference_domain)(x))
        assert not torch.equal(network(x), module.eval()(x))


def test_of_retrained_blocks_it_has_those_that_start_anew(tmp_path):
    """With no step at all it is written when training ends: the same network."""
    trained = make("blockwise", tmp_path / "weights")
    loaded = copy.deepcopy(trained.state_dict())
    initial = weights(run(tmp_path, trained, max_epochs=1))
    anew = [name for name, value in initial.items() if not torch.equal(value, loaded[name])]
    assert {name.split(".")[2] for name in anew} == {"layer1", "layer2", "layer3"}  # before the cut
    untrained = make("blockwise", tmp_path / "weights")
    untrained.seed = trained.seed
    assert_equal(weights(run(tmp_path / "none", untrained, max_epochs=0)), untrained.state_dict())


def test_a_resumed_run_leaves_it_alone(tmp_path):
    path = run(tmp_path, make("standard", tmp_path))
    before = path.read_bytes()
    last = path.with_name("last.ckpt")
    run(tmp_path, make("standard", tmp_path), ckpt_path=last, max_epochs=2)
    assert path.read_bytes() == before
    path.unlink()  # nobody can say any more what the weights were
    run(tmp_path, make("standard", tmp_path), ckpt_path=last, max_epochs=3)
    assert not path.is_file()


@pytest.mark.slow
def test_a_run_that_was_killed_behind_it_is_vacant_for_a_new_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = fit("--trainer.logger.init_args.version=0", "--trainer.max_epochs=1")
    seed_everything(0)
    built = Backbone("small_cnn", in_channels=1, mean=[0.3053], std=[0.3760], options={"width": 32}).build(10)
    kept = weights(folder / "checkpoints/init.ckpt")
    assert_equal({name: kept[f"network.{name}"] for name in built.state_dict()}, built.state_dict())
    for name in ("results.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        (folder / name).unlink()
    assert how_to_go_on(folder) == ""
    check_vacant(folder)
    fit("--trainer.logger.init_args.version=0", "--trainer.max_epochs=1", "--seed_everything=1")
    again = weights(folder / "checkpoints/init.ckpt")
    assert not torch.equal(again["network.network.fc.weight"], kept["network.network.fc.weight"])


@pytest.mark.slow
def test_a_run_can_do_without_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = fit("--initial_checkpoint.keep=false", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1")
    assert results(folder)["weights"] == "best"
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


@pytest.mark.slow
def test_a_run_that_failed_in_its_first_step_is_begun_again_in_its_place(tmp_path, monkeypatch):
    def fails(self, x, y):
        raise RuntimeError(f"{list(Path().rglob('*.ckpt'))}")

    monkeypatch.chdir(tmp_path)
    here = ("--trainer.logger.init_args.version=0", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1")
    with monkeypatch.context() as broken:
        broken.setattr(MadryTraining, "loss", fails)
        with pytest.raises(RuntimeError, match=r"version_0/checkpoints/init\.ckpt"):
            fit(*here)
    assert results(fit(*here))["test_images"]


@pytest.mark.slow
def test_nobody_goes_on_from_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = fit("--trainer.max_epochs=1", "--trainer.limit_train_batches=1")
    with pytest.raises(SystemExit):
        main(["fit", f"--config={folder}/config.yaml", f"--ckpt_path={folder}/checkpoints/init.ckpt"])
    assert "lacks the field" in capsys.readouterr().err
