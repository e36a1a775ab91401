"""No key of a configuration calls a function that it names, nor builds a class of another kind.

The modules are imported already here: what a file may import is in ``tests/faults/test_files_import_nothing.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lightning_adv.cli import main
from tests.commands.marks import MARK

HERE = "tests.commands.marks"
KEYS = (
    "model", "data", "model.init_args.attack", "model.init_args.objective", "model.init_args.weight_perturbation",
    "model.init_args.optimizer", "model.init_args.scheduler", "model.init_args.backbone",
    "trainer.callbacks", "trainer.logger", "trainer.plugins", "trainer.strategy", "trainer.profiler",
    "trainer.accelerator",
)  # fmt: skip
FORMS = {
    "name": f"{HERE}.mark",
    "function": {"class_path": f"{HERE}.mark", "init_args": {"text": "x"}},
    "returns": {"class_path": f"{HERE}.mark_path", "init_args": {"text": "x"}},
    "class": {"class_path": f"{HERE}.Mark", "init_args": {"text": "x"}},
    "system": {"class_path": "os.system", "init_args": {"command": "touch mark"}},
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def nested(key, value):
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def refused(capsys, *arguments):
    """Run a command that fails before anything is called; return its error."""
    with pytest.raises(SystemExit) as exit_:
        main([*arguments])
    told = capsys.readouterr().err
    assert exit_.value.code in (1, 2)
    assert not MARK.exists(), "it was called"
    assert "Traceback" not in told
    return told.splitlines()[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "form"),
    [(key, form) for key in KEYS for form in ("function", "class")]
    + [(key, form) for key in ("model.init_args.attack", "model.init_args.optimizer") for form in ("name", "returns")],
)
def test_nothing_is_called(capsys, key, form):
    Path("sent.yaml").write_text(yaml.safe_dump(nested(key, FORMS[form])))
    told = refused(capsys, "fit", "--config", "digits/madry", "--config", "sent.yaml")
    assert key.rpartition(".")[2] in told


@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_run_folder_that_somebody_sent(capsys, command):
    Path("sent.yaml").write_text(yaml.safe_dump(nested("model.init_args.optimizer", FORMS["system"])))
    told = refused(capsys, command, "--config", "digits/madry", "--config", "sent.yaml")
    assert "'os.system' is a function" in told
    assert "Optimizer: " in told, "what is allowed"


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("evaluate", "attacks"), ("evaluate", "data"), ("evaluate", "backbone"), ("evaluate", "steps_curve"),
        ("evaluate", "corruptions"), ("transfer", "attacks"), ("transfer", "data"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["function", "class"])
def test_nothing_is_called_by_presets(capsys, command, key, form):
    value = [FORMS[form]] if key == "attacks" else FORMS[form]
    Path("sent.yaml").write_text(yaml.safe_dump({key: value}))
    needed = ["--networks={a: a.ckpt, b: b.ckpt}", "--eps=0.1"] if command == "transfer" else ["--checkpoint=a.ckpt"]
    assert key in refused(capsys, command, *needed, "--config", "sent.yaml")


@pytest.mark.parametrize("form", ["function", "class"])
def test_nothing_is_called_by_the_data_of_a_run(capsys, form):
    """Evaluation takes the data module of the run whose checkpoint it is given."""
    checkpoint = Path("run/checkpoints/best.ckpt")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    Path("run/config.yaml").write_text(yaml.safe_dump({"data": FORMS[form], "trainer": {}, "model": {}}))
    assert "data" in refused(capsys, "evaluate", f"--checkpoint={checkpoint}")


def test_a_part_in_a_file_of_its_own(capsys):
    Path("part.yaml").write_text(yaml.safe_dump(FORMS["function"]))
    Path("sent.yaml").write_text(yaml.safe_dump(nested("model.init_args.optimizer", "part.yaml")))
    refused(capsys, "fit", "--config", "digits/madry", "--config", "sent.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("key", ["anything", "any_value"])
@pytest.mark.parametrize("form", ["function", "class", "system"])
def test_what_takes_any_value_gets_it_as_it_stands(capsys, key, form):
    """What is written stays data where a part of somebody's takes a value of any type."""
    data = {"class_path": f"{HERE}.Untyped", "init_args": {key: FORMS[form]}}
    Path("sent.yaml").write_text(yaml.safe_dump({"data": data}))
    refused(capsys, "fit", "--config", "digits/madry", "--config", "sent.yaml", "--trainer.max_epochs=1")


FUNCTION = {"class_path": f"{HERE}.mark"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"items": [FUNCTION]}, {"pair": [1, FUNCTION]}, {"mapping": {"a": [FUNCTION]}}, {"named": [FUNCTION]},
        {"named": {"function": FUNCTION}}, {"typed": {"function": FUNCTION}}, {"either": FUNCTION},
        {"items": [{"class_path": "functools.partial", "dict_kwargs": {"func": FUNCTION}}]},
    ],
    ids=str,
)  # fmt: skip
def test_nothing_is_called_in_whatever_holds_it(capsys, options):
    Path("sent.yaml").write_text(yaml.safe_dump({"data": {"class_path": f"{HERE}.Nested", "init_args": options}}))
    assert next(iter(options)) in refused(capsys, "fit", "--config", "digits/madry", "--config", "sent.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["os._exit", "torch.distributed.run.run", "lambda *_: 1", f"{HERE}.mark"])
@pytest.mark.parametrize(
    "keys",
    [
        ("trainer.callbacks", "LambdaCallback", "setup"), ("trainer.callbacks", "BackboneFinetuning", "lambda_func"),
        ("trainer.strategy", "DDPStrategy", "ddp_comm_hook"), ("model.init_args.scheduler", "LambdaLR", "lr_lambda"),
    ],
)  # fmt: skip
def test_a_hook_is_no_function_of_anybody(capsys, keys, name):
    key, kind, hook = keys
    Path("sent.yaml").write_text(yaml.safe_dump(nested(key, {"class_path": kind, "init_args": {hook: name}})))
    assert hook in refused(capsys, "fit", "--config", "digits/madry", "--config", "sent.yaml")


@pytest.mark.slow
def test_an_option_of_the_network_is_data(capsys):
    options = nested("model.init_args.backbone.options.width", FORMS["class"])
    Path("sent.yaml").write_text(yaml.safe_dump(options))
    with pytest.raises((SystemExit, TypeError)):
        main(["fit", "--config", "digits/madry", "--config", "sent.yaml", "--trainer.fast_dev_run=true"])
    assert not MARK.exists()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [f"{HERE}.make_sgd", "timm.optim.create_optimizer_v2", "timm.optim.Lamb"])
def test_factories_that_say_what_they_make_are_taken(optimizer):
    main(["fit", "--config", "digits/standard", f"--model.init_args.optimizer={optimizer}", "--trainer.fast_dev_run=1",
          "--model.init_args.scheduler=null", "--trainer.enable_progress_bar=false"])  # fmt: skip
