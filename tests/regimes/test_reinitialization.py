"""Blocks back to fresh or initial values, nothing trained: against state dicts that are put together by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.loggers import CSVLogger

from lightning_adv.callbacks import InitialCheckpoint, LastCheckpoint
from lightning_adv.cli import main
from lightning_adv.core.seeds import derive_seed
from lightning_adv.nn import plain_state_dict
from lightning_adv.regimes import AdvPropTraining, BlockwiseRetraining, StandardTraining
from tests.commands.shortened import fit, results
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer


def run(folder, module, **settings):
    """Fit with the checkpoints that every run of the command has; return their folder."""
    callbacks = [InitialCheckpoint(), LastCheckpoint()]
    logger = CSVLogger(folder, name="", version="run")
    trainer = quiet_trainer(folder, logger=logger, enable_checkpointing=True, callbacks=callbacks, **settings)
    trainer.fit(module, ToyData())
    return folder / "run/checkpoints"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A run of a plain network, and one of a network that predicts through its adversarial BatchNorms."""
    torch.manual_seed(0)
    domains = AdvPropTraining(BACKBONE, num_classes=2, attack=ATTACK, inference_domain="adversarial")
    made = {"plain": StandardTraining(BACKBONE, num_classes=2), "domains": domains}
    return {name: run(tmp_path_factory.mktemp(name), module) for name, module in made.items()}


def state_of(path, domain=None):
    """Return the state dict of a plain network that a checkpoint holds, without its normalisation."""
    saved = torch.load(path, weights_only=True)["state_dict"]
    network = {key.removeprefix("network.network."): value for key, value in saved.items() if ".network." in key}
    return network if domain is None else plain_state_dict(network, domain)


def assert_equal(state, expected):
    assert state.keys() == expected.keys()
    assert [name for name, value in state.items() if not torch.equal(value, expected[name])] == []


CHOICES = {
    "block": ({"blocks": ["m1"]}, ("layer2.", "layer3.")),
    "side": ({"cutoff": "m2", "side": "after"}, ("layer4.", "fc.")),
    "layer": ({"unit": "layer", "blocks": ["layer2.0"]}, ("layer2.",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("values", ["initial", "fresh"])
@pytest.mark.parametrize("kind", ["plain", "domains"])
def test_chosen_values_start_anew_and_nothing_else(tmp_path, pretrained, kind, values, choice):
    arguments, keys = CHOICES[choice]
    domain = "adversarial" if kind == "domains" else None
    last, init = (state_of(pretrained[kind] / name, domain) for name in ("last.ckpt", "init.ckpt"))
    seed_everything(5)
    backbone = replace(BACKBONE, checkpoint=str(pretrained[kind] / "last.ckpt"))
    module = BlockwiseRetraining(backbone, num_classes=2, attack=ATTACK, reinitialize=values, **arguments)
    written = run(tmp_path, module, max_epochs=0)
    torch.manual_seed(derive_seed(5, "reinitialize"))
    anew = init if values == "initial" else BACKBONE.build(2).network.state_dict()
    chosen = [name for name in last if name.startswith(keys)]
    assert any(name.endswith("running_var") and not torch.equal(anew[name], last[name]) for name in chosen) or (
        choice == "side"
    )
    expected = {name: anew[name] if name in chosen else value for name, value in last.items()}
    assert_equal(module.network.network.state_dict(), expected)
    assert_equal(state_of(written / "init.ckpt"), expected)
    path = str(pretrained[kind] / "init.ckpt") if values == "initial" else None
    assert module.reinitialized["values"] == values
    assert module.reinitialized["from"] == path


def test_true_is_fresh_and_false_is_as_it_was(tmp_path, pretrained):
    backbone = replace(BACKBONE, checkpoint=str(pretrained["plain"] / "last.ckpt"))
    states = {}
    for value in (True, "fresh", False):
        seed_everything(5)
        module = BlockwiseRetraining(backbone, num_classes=2, attack=ATTACK, reinitialize=value, blocks=["m0"])
        run(tmp_path / str(value), module, max_epochs=0)
        states[value] = module.network.network.state_dict()
    assert_equal(states[True], states["fresh"])
    assert_equal(states[False], state_of(pretrained["plain"] / "last.ckpt"))
    assert not torch.equal(states[True]["layer1.0.weight"], states[False]["layer1.0.weight"])


def test_initial_values_that_are_not_there(tmp_path, pretrained):
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes((pretrained["plain"] / "last.ckpt").read_bytes())

    def retrain(checkpoint=alone, **arguments):
        module = BlockwiseRetraining(
            replace(BACKBONE, checkpoint=str(checkpoint)), attack=ATTACK, reinitialize="initial", **arguments
        )
        quiet_trainer(tmp_path, max_epochs=0).fit(module, ToyData())
        return module.network.network.state_dict()

    with pytest.raises(ValueError, match=r"there is no .*init.ckpt: a run keeps .* unless initial_checkpoint.keep is"):
        retrain(cutoff=1)
    with pytest.raises(ValueError, match=r"^initial_weights: there is no file nowhere.ckpt"):
        retrain(cutoff=1, initial_weights="nowhere.ckpt")
    torch.save(BACKBONE.build(7).state_dict(), tmp_path / "seven.pth")
    seven = {"initial_weights": str(tmp_path / "seven.pth")}
    with pytest.raises(ValueError, match=r"^initial_weights: .*seven.pth has no values for fc.weight, since it has an"):
        retrain(cutoff=3, side="after", **seven)
    assert torch.equal(
        retrain(cutoff=1, **seven)["layer1.0.weight"],
        torch.load(tmp_path / "seven.pth", weights_only=True)["network.layer1.0.weight"],
    )
    with pytest.raises(ValueError, match="initial_weights is given, and reinitialize is True: set it to 'initial'"):
        BlockwiseRetraining(BACKBONE, num_classes=2, initial_weights="nowhere.ckpt")
    with pytest.raises(ValueError, match="reinitialize must be one of fresh, initial, got 'anew'"):
        BlockwiseRetraining(BACKBONE, num_classes=2, reinitialize="anew")


@pytest.mark.slow
def test_by_the_command_line_with_nothing_trained(tmp_path, monkeypatch):
    """Results of the reinitialised network, and a checkpoint of it that ``evaluate`` reads."""
    monkeypatch.chdir(tmp_path)
    begun = fit(config="digits/standard")
    best = f"--model.init_args.backbone.checkpoint={begun}/checkpoints/best.ckpt"
    chosen = [
        "--model.init_args.cutoff=null",
        "--model.init_args.blocks=[m0]",
        "--model.init_args.reinitialize=initial",
    ]
    whole = ["--trainer.max_epochs=0", "--trainer.limit_test_batches=1.0"]
    told = results(fit(best, *chosen, *whole, config="digits/blockwise"))
    assert told["training"]["reinitialized"] == {
        "blocks": ["m0"], "values": "initial", "from": f"{begun}/checkpoints/init.ckpt",
    }  # fmt: skip
    assert (told["weights"], told["checkpoint"], told["test_images"]) == ("untrained", None, 360)
    init = "runs/digits-blockwise/version_0/checkpoints/init.ckpt"
    main(["evaluate", f"--checkpoint={init}", "--attacks=[FGSM]", "--suspicion_images=0", "--output=out"])
    evaluated = json.loads(Path("out/evaluation.json").read_text())
    assert evaluated["clean"]["accuracy"] == told["clean_accuracy"]
