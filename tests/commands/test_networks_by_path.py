"""A network of the user's own, by its import path, in every command; and who may name it.

Each command and key that takes a file is given the checkpoint of a network whose module lies beside it: without trust
its code does not run, with ``--trust`` it does.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from lightning_adv.cli import main
from lightning_adv.core.trust import trust
from lightning_adv.nn.backbones import Backbone
from lightning_adv.regimes import MadryTraining, Regime
from tests.commands.shortened import SHORT
from tests.own_parts import NETWORKS, forget, write_module

pytestmark = pytest.mark.slow

MARKED = NETWORKS + "\nopen('mark', 'a').close()\n"
BACKBONE = "--model.init_args.backbone={name: own_networks.MyNet, in_channels: 1, options: {width: 4}}"
RUN = Path("runs/digits-madry/version_0")
BEST = f"{RUN}/checkpoints/best.ckpt"
FAST = ["--images=8", "--suspicion_images=0", "--accelerator=cpu", "--attacks=[FGSM]", "--eps.linf=[0.1]"]
OTHER = "--model.init_args.backbone={name: small_cnn, in_channels: 1, options: {width: 2}}"
LOOKS = f"--trainer.callbacks=[{{class_path: LocalResponse, init_args: {{source: '{BEST}', images: 8}}}}]"

REBUILD = {
    "export": ["export", f"--checkpoint={BEST}", "--output=out"],
    "evaluate": ["evaluate", f"--checkpoint={BEST}", "--output=out", *FAST],
    "evaluate an export": [
        "evaluate", "--checkpoint=exported/model.safetensors", "--data=DigitsDataModule", "--output=out", *FAST
    ],
    "transfer": [
        "transfer", f"--networks={{a: {BEST}, b: {BEST}}}", "--eps=0.1", "--images=64", "--attacks=[FGSM]",
        "--accelerator=cpu",
    ],
    "source": ["fit", "--config=digits/madry", OTHER, LOOKS, *SHORT],
}  # fmt: skip
"""What builds the network of a checkpoint again."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the run of an own network and a weights file of it, which no test changes."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        for _ in write_module(folder, "own_networks", MARKED, patch):
            main(["fit", "--config=digits/madry", BACKBONE, *SHORT])
            network = torch.load(BEST, weights_only=True)["state_dict"]
            plain = {
                key.removeprefix("network.network."): value
                for key, value in network.items()
                if key.startswith("network.network.")
            }
            torch.save({"state_dict": plain}, "foreign.pt")
            main(["export", f"--checkpoint={BEST}", "--output=exported"])
            Path("mark").unlink()
    return folder


@pytest.fixture(autouse=True)
def _there(trained, tmp_path, monkeypatch):
    """Work in a new folder beside the run, in a process that has not imported the network."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    forget("own_networks")
    yield
    forget("own_networks")


@pytest.mark.parametrize("name", REBUILD)
def test_a_file_that_names_a_network_runs_its_code_only_if_the_user_trusts_it(name, capsys):
    with pytest.raises(SystemExit) as end:
        main(REBUILD[name])
    assert end.value.code == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "'own_networks.MyNet' is not of this package, and own_networks was not imported" in told
    assert "--trust own_networks on the command line" in told
    assert not Path("mark").exists()
    assert "own_networks" not in sys.modules
    main([*REBUILD[name], "--trust", "another,own_networks"])
    assert Path("mark").exists()


def test_a_checkpoint_that_is_not_rebuilt_runs_no_code(capsys):
    """What trains or is tested is what the configuration says: its file only gives the weights."""
    for command in ("fit", "validate", "test", "predict"):
        with pytest.raises(SystemExit) as end:
            main([command, "--config=digits/madry", OTHER, f"--ckpt_path={BEST}", *SHORT])
        assert end.value.code == 1
        assert "the checkpoint is of another network" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["fit", "--config=digits/madry", OTHER, f"--model.init_args.backbone.checkpoint={BEST}", *SHORT])
    assert "holds the weights of another network" in capsys.readouterr().err
    main(["report", str(RUN), "-o", "page.html"])
    assert not Path("mark").exists()


def test_python_loads_it_only_if_it_is_trusted():
    for kind in (Regime, MadryTraining):
        with pytest.raises(ValueError, match=r"^backbone\.name 'own_networks\.MyNet' .* --trust own_networks"):
            kind.load_from_checkpoint(BEST)
    assert not Path("mark").exists()
    trust("own_networks")
    assert type(Regime.load_from_checkpoint(BEST).network.network).__name__ == "MyNet"


def test_every_command_takes_the_users_own_network(capsys):
    """By its configuration, which names it: no trust is asked for."""
    tested = json.loads((RUN / "results.json").read_text())
    assert tested["network"] == "own_networks.MyNet"
    again = ["--config", str(RUN / "config.yaml"), f"--ckpt_path={BEST}", *SHORT]
    for command in ("validate", "test", "predict"):
        main([command, *again])
    backbone = ["--backbone.name=own_networks.MyNet", "--backbone.in_channels=1", "--backbone.mean=[0.0]"]
    foreign = ["evaluate", "--checkpoint=foreign.pt", *backbone, "--data=DigitsDataModule", "--output=foreign", *FAST]
    main([*foreign, "--backbone.std=[1.0]"])
    main(["evaluate", f"--checkpoint={BEST}", "--output=own", *FAST, "--trust=own_networks"])
    rows = [Path(folder, "verdicts.csv").read_text() for folder in ("foreign", "own")]
    assert rows[0] == rows[1]
    assert len(list(csv.reader(rows[0].splitlines()))) > 8
    told = json.loads(Path("exported/model.json").read_text())
    assert told["architecture"]["name"] == "own_networks.MyNet"
    network = Backbone("own_networks.MyNet", in_channels=1, checkpoint="exported/model.safetensors").build(10).eval()
    trust("own_networks")
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(network(x), Regime.load_from_checkpoint(BEST).eval()(x))


@pytest.mark.parametrize(
    ("name", "config"),
    [("AdvPropTraining", "digits/advprop"), ("BlockwiseRetraining", "digits/blockwise")],
)
def test_regimes_that_change_a_network_take_the_users_own(name, config):
    arguments = ["fit", f"--config={config}", BACKBONE, *SHORT]
    if name == "BlockwiseRetraining":
        arguments.append(f"--model.init_args.backbone.checkpoint={BEST}")
    main(arguments)
    assert json.loads(Path(f"runs/{config.replace('/', '-')}/version_0/results.json").read_text())["regime"] == name


def test_logits_of_another_number_of_classes(capsys):
    fixed = "--model.init_args.backbone={name: own_networks.Fixed, in_channels: 1, options: {outputs: %d}}"
    main(["fit", "--config=digits/standard", fixed % 10, *SHORT])
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config=digits/standard", fixed % 7, *SHORT])
    assert end.value.code == 1
    assert "'own_networks.Fixed': The network gives 7 logits, and there are 10 classes." in capsys.readouterr().err


def test_the_error_inside_the_users_module_is_shown_in_one_line(capsys):
    Path("broken.py").write_text("import torch\nwidth = 1 / 0\n")
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config=digits/madry", "--model.init_args.backbone.name=broken.Net", *SHORT])
    assert end.value.code == 1
    told = capsys.readouterr().err
    assert "backbone.name: 'broken.Net' cannot be imported: ZeroDivisionError: division by zero" in told
    assert "broken.py, line 2)" in told
    assert "Traceback" not in told
