"""No command, key or function that reads a file imports a module because the file names it.

``beside.py`` lies in the working directory, which is on the path, as it is where somebody unpacks a run folder. It
leaves a mark when it is imported. What a configuration calls of what is imported already is in
``tests/commands/test_configurations_call_nothing.py``.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lightning_adv.cli import main
from lightning_adv.regimes import MadryTraining, Regime

RUN = Path(__file__).parents[1] / "fixtures/v0.1.0/sat"
NAMED = {"class_path": "beside.Thing", "init_args": {}}
HYPER_PARAMETERS = ("attack", "evaluation_attack", "objective", "backbone", "optimizer", "scheduler", "_class_path")
QUICK = ["--trainer.max_epochs=3", "--trainer.limit_train_batches=1", "--trainer.enable_progress_bar=false"]


@pytest.fixture(autouse=True)
def _mark(tmp_path, monkeypatch):
    """Fail if the module beside the files was imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("beside.py").write_text("import pathlib\n\npathlib.Path('mark').touch()\n\n\nclass Thing:\n    pass\n")
    yield
    assert not Path("mark").exists()
    assert "beside" not in sys.modules


def name_it_in(field: str) -> str:
    """Write a run folder whose checkpoint names the module in a field; return the checkpoint."""
    run = shutil.copytree(RUN, Path("run"), dirs_exist_ok=True)
    for path in (run / "checkpoints").iterdir():
        content = torch.load(path, weights_only=True)
        hyper_parameters, regime = content["hyper_parameters"], content["regime"]
        if field == "regime":
            regime["class_path"] = hyper_parameters["_class_path"] = "beside.Thing"
        elif field == "_instantiator":
            hyper_parameters[field] = "beside.Thing"
        else:
            hyper_parameters[field] = "beside.Thing" if field == "_class_path" else NAMED
        torch.save(content, path)
    return str(run / "checkpoints/last.ckpt")


def ends(*arguments: str) -> None:
    """Run a command, whether it can do without what the file names or refuses the file: in one line, then."""
    status = 0
    try:
        main(list(arguments))
    except SystemExit as end:
        status = end.code
    assert status in (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("field", [*HYPER_PARAMETERS, "weight_perturbation", "regime", "_instantiator"])
def test_a_checkpoint(field, capsys):
    checkpoint = name_it_in(field)
    for kind in (Regime, MadryTraining):
        with pytest.raises(ValueError, match=r"beside|instantiator"):
            kind.load_from_checkpoint(checkpoint)
    if field not in ("attack", "evaluation_attack", "backbone", "regime"):  # the commands do not look at the others
        return
    ends("export", "--checkpoint", checkpoint, "--output", "exported")
    ends("evaluate", "--checkpoint", checkpoint, "--images", "4", "--suspicion_images", "0", "--output", "evaluated")
    networks = f"--networks={{a: {checkpoint}, b: {RUN}/checkpoints/best.ckpt}}"
    ends("transfer", networks, "--eps=0.1", "--images=4", "--attacks=[FGSM]")
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_an_attack_of_ones_own_is_needed_by_no_export(capsys):
    """A command line imports no module for a checkpoint, and the network needs none of its attacks."""
    checkpoint = name_it_in("evaluation_attack")
    main(["export", "--checkpoint", checkpoint, "--output", "exported"])
    description = json.loads(Path("exported/model.json").read_text())
    assert description["evaluation_attack"] == NAMED
    assert description["threat_model"] is None
    assert "nothing of its threat model: class_path 'beside." in capsys.readouterr().err
    told = ["evaluate", "--checkpoint", checkpoint, "--images", "4", "--suspicion_images", "0", "--output", "evaluated"]
    with pytest.raises(SystemExit):
        main(told)
    assert "eps must be given" in capsys.readouterr().err
    main([*told, "--eps.linf", "[0.1]"])


@pytest.mark.slow
@pytest.mark.parametrize(("command", "field"), [("fit", "attack"), ("fit", "regime"), ("test", "backbone")])
def test_a_checkpoint_of_a_run(command, field, capsys):
    checkpoint = name_it_in(field)
    ends(command, "--config", str(RUN / "config.yaml"), "--ckpt_path", checkpoint, *QUICK)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "key",
    [
        "--model.init_args.backbone.checkpoint={}",
        "--trainer.callbacks+=[{{class_path: BatchNormDrift, init_args: {{checkpoint: '{}'}}}}]",
        "--trainer.callbacks+=[{{class_path: LocalResponse, init_args: {{source: '{}', images: 8}}}}]",
    ],
    ids=["backbone", "BatchNormDrift", "LocalResponse"],
)
def test_a_key(key, capsys):
    ends("fit", "--config", "digits/madry", key.format(name_it_in("backbone")), *QUICK, "--trainer.max_epochs=1")
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("where", ["data", "inside"])
def test_the_configuration_of_a_run(where, capsys):
    """``evaluate`` takes the data module of the run that a checkpoint lies in."""
    run = shutil.copytree(RUN, Path("run"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    if where == "data":
        config["data"] = NAMED
    else:
        config["data"]["init_args"]["batch_size"] = NAMED
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "--checkpoint", f"{run}/checkpoints/best.ckpt", "--images", "4"])
    assert end.value.code == 1
    told = capsys.readouterr().err.strip()
    assert "beside was not imported: nothing is imported because a file names it" in told
    assert "--data" in told
    assert "\n" not in told
