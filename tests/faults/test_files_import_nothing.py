"""No command, key or function that reads a file imports a module because the file names it.

``beside.py`` lies in the working directory, which is on the path, as it is where somebody unpacks a run folder. It
leaves a mark when it is imported. What a configuration calls of what is imported already is in
``tests/commands/test_configurations_call_nothing.py``.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from lightning_adv.cli import main
from lightning_adv.core.recipe import public_path
from lightning_adv.nn import Backbone
from lightning_adv.regimes import MadryTraining, Regime, SmoothAdversarialTraining

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


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lightning_adv.cli.os.system", {"command": "touch mark"}),
        ("lightning_adv.core.importing.find_module", {"path": "beside.Thing"}),
        ("lightning_adv.core.importing.importlib.import_module", {"name": "beside"}),
        ("lightning_adv.cli.main", {"args": ["fit", "--config", "sent.yaml"]}),
        ("torch.hub.load", {"repo_or_dir": ".", "source": "local", "model": "x"}),
        ("os.system", {"command": "touch mark"}),
    ],
)
def test_a_function_is_trusted_for_where_it_is_from(name, options):
    """Not for the path that leads to it, and none of this package but those that build networks."""
    for prefix in ("", "python/"):
        with pytest.raises(ValueError, match="is a function of a package that is not trusted") as error:
            Backbone.from_config({"name": f"{prefix}{name}", "options": options})
        assert ("--trust torch" in str(error.value)) == name.startswith("torch"), "advice that would be refused"
    assert Backbone.from_config({"name": "lightning_adv.nn.zoo.small_cnn.small_cnn"}).build(3)


class Bent(SmoothAdversarialTraining):
    """A regime with an argument of its own, which may be anything that maps a tensor to another."""

    def __init__(self, *args, bend: Callable[[torch.Tensor], torch.Tensor] | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.bend = bend


TEXTS = ["beside.Thing", "{class_path: beside.Thing}", "part.yaml", ["beside.Thing"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (SmoothAdversarialTraining, ("attack", "init_args", "loss")),
        (SmoothAdversarialTraining, ("optimizer", "init_args", "lr")),
        (SmoothAdversarialTraining, ("scheduler",)),
        (Bent, ("bend",)),
    ],
)
@pytest.mark.parametrize("text", TEXTS, ids=str)
def test_a_text_in_a_checkpoint_is_a_text(kind, fields, text):
    """jsonargparse, which builds the regimes of commands, takes one for a path to import."""
    Path("part.yaml").write_text("class_path: beside.Thing")
    content = torch.load(RUN / "checkpoints/best.ckpt", weights_only=True)
    value = content["hyper_parameters"]
    for field in fields[:-1]:
        value = value[field]
    schedule = {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": text}}
    value[fields[-1]] = schedule if fields == ("scheduler",) else text
    content["regime"]["class_path"] = content["hyper_parameters"]["_class_path"] = public_path(kind)
    torch.save(content, "sent.ckpt")
    with contextlib.suppress(ValueError):
        kind.load_from_checkpoint("sent.ckpt")


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


@pytest.mark.parametrize("where", ["data", "inside", "text", "trusting itself"])
def test_the_configuration_of_a_run(where, capsys):
    """``evaluate`` takes the data module of the run that a checkpoint lies in."""
    run = shutil.copytree(RUN, Path("run"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    if where in ("data", "trusting itself"):
        config |= {"data": NAMED} | ({} if where == "data" else {"trust": "beside"})
    elif where == "text":
        config["data"]["init_args"]["batch_size"] = "beside.Thing"
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


@pytest.mark.parametrize("text", TEXTS[:3])
def test_the_configuration_of_a_run_whose_data_is_a_text(text, capsys):
    run = shutil.copytree(RUN, Path("run"))
    Path("part.yaml").write_text("class_path: beside.Thing")
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"data": text}))
    with pytest.raises(SystemExit):
        main(["evaluate", "--checkpoint", f"{run}/checkpoints/best.ckpt", "--images", "4"])
    assert "data: must hold a class_path: name the data set with --data" in capsys.readouterr().err
