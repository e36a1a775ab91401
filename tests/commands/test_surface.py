"""What users and their files build on is what version 0.1.0 had: configurations, names, result files, checkpoints.

``surface.json`` holds what that version printed: each key of its configurations with its values, and the numbers of the
configurations that have it.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_adv.cli import main
from lightning_adv.core.recipe import find_class
from tests.commands.shortened import SHORT, results

FIXTURES = Path(__file__).parents[1] / "fixtures/v0.1.0"
SURFACE = json.loads((FIXTURES / "surface.json").read_text())
FAST = ["digits/madry"]
NEW = {
    "data.init_args.test_only",
    "initial_checkpoint.keep",
    "model.init_args.clean_after_epochs",
    "model.init_args.initial_weights",
}
"""Keys that version 0.1.0 did not have. To add one is to change every configuration that somebody has saved."""

OF_OBSERVERS = {
    "network",
    "batch",
    "mean",
    "std",
    "evaluation_attack",
    "name",
    "split",
    "max_attack_steps",
    "loss_peaks",
}
"""Arguments of observers that version 0.1.0 did not have. Null, as everywhere here, they change nothing."""


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """Return a tree's leaves by their dotted keys."""
    if not isinstance(value, dict) or not value:
        return {key: value}
    return {name: leaf for k, part in value.items() for name, leaf in flat(part, f"{key}.{k}" if key else k).items()}


def before(config: str) -> dict[str, Any]:
    """Return what version 0.1.0 printed of a configuration."""
    number = SURFACE["configurations"].index(config)
    return {
        key: value
        for key, values in SURFACE["printed"].items()
        for value, numbers in values
        if numbers == "all" or number in numbers
    }


def meant(value: Any) -> Any:
    """Return a value with the classes that it names in the place of their paths."""
    if isinstance(value, list):
        return [meant(item) for item in value]
    if isinstance(value, dict):
        return {key: meant(item) for key, item in value.items()}
    return find_class(value, object) if isinstance(value, str) and value.startswith("lightning_adv.") else value


@pytest.mark.parametrize(
    "config",
    [each if each in FAST else pytest.param(each, marks=pytest.mark.slow) for each in SURFACE["configurations"]],
)
def test_a_configuration_prints_the_same_keys_and_values(config, capsys):
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", config, "--print_config"])
    assert not end.value.code
    now, then = flat(yaml.safe_load(capsys.readouterr().out)), before(config)
    for observer in now["trainer.callbacks"] or []:
        new = OF_OBSERVERS & observer["init_args"].keys()
        assert {observer["init_args"].pop(name) for name in new} <= {None}
    assert {key: meant(now.get(key, "no such key")) for key in then} == {
        key: meant(value) for key, value in then.items()
    }
    assert now.keys() - then.keys() <= NEW


@pytest.mark.parametrize("room", SURFACE["names"])
def test_public_names_are_there(room):
    module = importlib.import_module(f"lightning_adv.{room}")
    assert [name for name in SURFACE["names"][room] if not hasattr(module, name)] == []


@pytest.mark.parametrize(
    "command",
    ["report", "export", *(pytest.param(each, marks=pytest.mark.slow) for each in ("fit", "evaluate", "transfer"))],
)
def test_help_ends_well(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert not end.value.code
    usage = capsys.readouterr().out.splitlines()[0]
    assert usage.startswith("usage: lightning-adv")
    assert command in usage


def fields(value: Any, key: str = "") -> set[str]:
    """Return the keys of a file, those of the items of a list once."""
    if isinstance(value, list):
        return set().union(*(fields(item, f"{key}[]") for item in value), {key})
    if not isinstance(value, dict):
        return {key}
    return set().union(*(fields(part, f"{key}.{name}") for name, part in value.items()), {key})


def read(path: Path | str) -> Any:
    return json.loads(Path(path).read_text())


@pytest.mark.slow
def test_a_run_and_its_export_have_the_fields_that_they_had(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old = FIXTURES / "advprop"
    main(["fit", "--config", f"{old}/config.yaml", *SHORT, "--trainer.max_epochs=1"])
    run = Path("runs/digits-advprop/version_0")
    assert fields(results(run)) >= fields(results(old))
    now, then = (torch.load(path / "checkpoints/last.ckpt", weights_only=True) for path in (run, old))
    assert now.keys() >= then.keys()
    assert now["state_dict"].keys() == then["state_dict"].keys()
    assert now["hyper_parameters"].keys() >= then["hyper_parameters"].keys()
    assert now["regime"].keys() >= then["regime"].keys()
    main(["export", "--checkpoint", f"{run}/checkpoints/best.ckpt"])
    assert fields(read(run / "export/model.json")) >= fields(read(old / "export/model.json"))


@pytest.mark.slow
def test_an_evaluation_and_a_transfer_have_the_fields_that_they_had(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    best = [f"{FIXTURES}/{run}/checkpoints/best.ckpt" for run in ("madry", "sat")]
    main(["evaluate", f"--checkpoint={best[0]}", "--images=64", "--suspicion_images=16", "--output=evaluated"])
    now, then = read("evaluated/evaluation.json"), read(FIXTURES / "madry/evaluation-quick/evaluation.json")
    assert fields(now) >= fields(then)
    rows = Path("evaluated/verdicts.csv").read_text().splitlines()
    assert rows[0] == (FIXTURES / "madry/evaluation-quick/verdicts.csv").read_text().splitlines()[0]
    networks = f"--networks={{a: {best[0]}, b: {best[1]}}}"
    main(["transfer", networks, "--eps=0.1", "--images=16", "--attacks=[FGSM]", "--accelerator=cpu"])
    assert fields(read("transfer/transfer.json")) >= set(SURFACE["transfer"])
