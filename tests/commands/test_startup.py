"""What a command imports and builds before it answers: a regression shows without a clock.

Lightning brings torchvision, scipy, rich and matplotlib.pyplot by itself; the tests look at what is loaded beyond that.
"""

import ast
import gc
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger

import lightning_adv
from lightning_adv.cli import main
from lightning_adv.commands import running
from lightning_adv.commands.fit import settings
from lightning_adv.commands.fit.save_config import SaveConfig
from lightning_adv.commands.shared.parser import Parser

ROOT = Path(lightning_adv.__file__).parents[1]
FRAMEWORKS = {"torch", "lightning", "jsonargparse", "numpy", "torchvision", "torchmetrics", "rich"}
LIBRARIES = {
    "cv2", "foolbox", "imagecorruptions", "matplotlib", "pandas", "plotly", "pyautoattack", "safetensors", "skimage",
    "sklearn", "tensorboard", "timm", "torchvision", "wandb",
}  # fmt: skip

RUN = """
import sys
{floor}
before = set(sys.modules)
from lightning_adv.cli import main
for arguments in {commands!r}:
    try:
        main(arguments)
    except SystemExit:
        pass
print()
print(sorted(set(sys.modules) - before))
"""
FIRST_STEP = """
import os, sys
from lightning.pytorch import Callback

class Tell(Callback):
    def on_train_batch_end(self, *args):
        print()
        print(sorted(sys.modules.keys() - sys.modules["__main__"].before), flush=True)
        os._exit(0)
"""


def loaded(folder, *commands, floor=""):
    """Return the modules that commands load in a fresh process, beyond those of the imports in ``floor``."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    code = RUN.format(floor=floor, commands=[list(arguments) for arguments in commands])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return set(ast.literal_eval(done.stdout.splitlines()[-1]))


def of(libraries, modules):
    return {module for module in modules if module.partition(".")[0] in libraries}


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        [], ["--help"], ["--version"], ["fitt"], ["fit", "--config", "digits/mardy"],
        ["evaluate", "-c=evaluation/quik"], ["export", "--help"], ["export"],
        ["push", "--help"], ["push"], ["report", "--help"], ["report"],
    ],
)  # fmt: skip
def test_answers_that_need_no_framework(arguments, tmp_path):
    modules = loaded(tmp_path, arguments)
    assert "lightning_adv.cli" in modules
    assert not of(FRAMEWORKS | LIBRARIES, modules)


@pytest.mark.slow
def test_options_and_configurations_need_nothing_beyond_lightning(tmp_path):
    commands = (
        ["fit", "--help"], ["evaluate", "--help"], ["transfer", "--help"], ["interpret", "--help"],
        ["fit", "--config=digits/madry", "--print_config"],
    )  # fmt: skip
    modules = loaded(tmp_path, *commands, floor="import lightning.pytorch.cli")
    assert {f"lightning_adv.commands.{name}" for name in ("fit.command", "evaluate.command", "transfer")} <= modules
    assert not of(LIBRARIES, modules)


@pytest.mark.slow
def test_the_first_step_needs_the_libraries_of_its_network_and_data_only(tmp_path):
    """The network needs timm, which imports wandb; the digits need scikit-learn, which imports pandas. No more."""
    (tmp_path / "tell.py").write_text(FIRST_STEP)
    arguments = ["fit", "--config=digits/madry", "--trainer.callbacks+=tell.Tell", "--trainer.accelerator=cpu"]
    floor = "import lightning.pytorch.cli, timm, sklearn.datasets"
    modules = loaded(tmp_path, arguments, floor=floor)
    assert {"lightning_adv.nn.zoo.small_cnn", "tell"} <= modules
    assert not of(LIBRARIES - {"sklearn"}, modules)


def test_what_stays_is_not_looked_through_for_garbage(monkeypatch):
    """Only a process that runs the command and nothing else leaves its objects out of later collections.

    A program that has left out its own finds them left out after a command too.
    """
    seen = []

    def load(name, cli):
        seen.append(f"import, collecting: {gc.isenabled()}")
        return lambda arguments: seen.append(f"run, collecting: {gc.isenabled()}")

    monkeypatch.setattr(running, "_load", load)
    monkeypatch.setattr(gc, "freeze", lambda: seen.append("freeze"))
    monkeypatch.setattr(gc, "unfreeze", lambda: seen.append("unfreeze"))
    monkeypatch.setattr(sys, "argv", ["lightning-adv", "fit"])
    main(["fit"])
    main()
    steps = ["import, collecting: False", "run, collecting: True"]
    assert seen == [*steps, steps[0], "freeze", steps[1], "unfreeze"]
    gc.disable()
    try:
        main(["fit"])
        assert seen[-1] == "run, collecting: False", "as it was found"
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("arguments", "parsers"), [(["fit", "--help"], 1), (["predict", "--help"], 1), (["--print_config", "fit"], 4)]
)
def test_only_the_parser_of_the_subcommand_is_built(arguments, parsers, monkeypatch, capsys):
    built = []

    class Counted(Parser):
        def add_lightning_class_args(self, lightning_class, nested_key, **kwargs):
            built.append(nested_key)
            return super().add_lightning_class_args(lightning_class, nested_key, **kwargs)

    monkeypatch.setattr(settings, "Parser", Counted)
    with pytest.raises(SystemExit):
        main(arguments)
    assert built.count("trainer") == parsers


@pytest.mark.parametrize(("name", "hint"), [("fitt", "'fit'"), ("evalute", "'evaluate'"), ("fi", "'fit'")])
def test_misspelled_command(name, hint, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([name, "--config", "digits/madry"])
    told = capsys.readouterr().err
    assert exit_.value.code == 2
    assert f"there is no command {name!r}. Did you mean {hint}?" in told
    assert "fit, validate, test, predict, evaluate, transfer, interpret, export, push, report" in told


@pytest.mark.slow
def test_each_command_of_the_help_is_known(capsys):
    main(["--help"])
    told = capsys.readouterr().out.partition("commands:\n")[2].partition("\n\n")[0]
    names = [line.split()[0] for line in told.splitlines()]
    assert names == [
        "fit",
        "validate",
        "test",
        "predict",
        "evaluate",
        "transfer",
        "interpret",
        "export",
        "push",
        "report",
        "study",
        "stylize",
    ]
    for name in names:
        with pytest.raises(SystemExit) as exit_:
            main([name, "--help"])
        assert exit_.value.code == 0


@pytest.mark.slow
def test_an_option_before_the_command_is_left_to_the_parser(tmp_path, capsys):
    (tmp_path / "all.yaml").write_text("fit: {trainer: {max_epochs: 9}}\n")
    model = ["--model=StandardTraining", "--model.backbone.name=small_cnn", "--data=DigitsDataModule"]
    with pytest.raises(SystemExit):
        main(["--config", str(tmp_path / "all.yaml"), "fit", *model, "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["max_epochs"] == 9


def test_the_configuration_is_not_written_out_for_loggers_that_are_not_there(tmp_path):
    asked = []
    parser = SimpleNamespace(dump=lambda _, format="yaml", **__: asked.append(format) or "{}")
    logged = SimpleNamespace(log_hyperparams=asked.append)
    saving = SaveConfig(parser, None)
    saving.save_config(SimpleNamespace(loggers=[CSVLogger(tmp_path)]), None, "fit")
    assert asked == ["yaml"]  # the run's own file
    saving.save_config(SimpleNamespace(loggers=[CSVLogger(tmp_path), logged, logged]), None, "fit")
    assert asked == ["yaml", "yaml", "json", {}, {}]


@pytest.mark.slow
@pytest.mark.parametrize(("given", "steps"), [([], 1), (["--trainer.num_sanity_val_steps=2"], 2)])
def test_one_batch_is_validated_before_training(given, steps, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config=digits/madry", "--print_config", *given])
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["num_sanity_val_steps"] == steps
