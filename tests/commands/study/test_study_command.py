"""``lightning-adv study``, whole: what it runs, what it leaves, how it goes on, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from lightning_adv.cli import main
from lightning_adv.core.locks import alone
from lightning_adv.studies.attempts import lock_of
from lightning_adv.studies.table import read_study_folder
from tests.commands.shortened import results
from tests.commands.study import small
from tests.commands.study.here import InThisProcess

HERE = "--engine=tests.commands.study.here.InThisProcess"
SMALL = {**small.SMALL, "trainer.max_epochs": 1, "trainer.limit_train_batches": 2}
STEPS = "model.init_args.attack.init_args.steps"
PRETRAINED = {
    "pretrain": {"config": "digits/standard"},
    "retrain": {
        "config": "digits/blockwise",
        "set": {"model.init_args.backbone.checkpoint": "{pretrain}/checkpoints/best.ckpt"},
    },
}


@pytest.fixture
def study(tmp_path, monkeypatch, capfd):
    """Run a study in a folder of its own; return its exit status and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(content, *arguments, name="mine"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"threads": 1, "set": SMALL, **content}))
        status = 0
        try:
            main(["study", "--config", f"{name}.yaml", *arguments])
        except SystemExit as ended:
            status = ended.code
        said = capfd.readouterr()
        return status, said.out, said.err

    return run


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def without_seconds(path):
    return [{key: value for key, value in row.items() if not key.endswith("_seconds")} for row in rows(path)]


@pytest.mark.slow
def test_a_study_is_the_runs_that_one_would_have_started_by_hand(study, tmp_path):
    content = {"config": "digits/madry", "title": "Steps", "grid": {STEPS: [1, 2]}}
    status, out, _ = study(content, HERE)
    assert status == 0
    folder = tmp_path / "runs" / "mine"
    found = rows(folder / "study.csv")
    assert [(row["steps"], row["seed"], row["status"]) for row in found] == [("1", "0", "done"), ("2", "0", "done")]
    for steps, row in zip((1, 2), found, strict=True):
        given = [f"--{key}={value}" for key, value in SMALL.items()]
        main(
            [
                "fit",
                "--config",
                "digits/madry",
                *given,
                f"--{STEPS}={steps}",
                f"--trainer.logger.init_args.name={steps}",
            ]
        )
        by_hand = results(tmp_path / "runs" / str(steps) / "version_0")
        ours = results(folder / row["run"])
        for key in ("clean_accuracy", "robust_accuracy", "clean_interval", "domains", "test_loss", "test_images"):
            assert ours.get(key) == by_hand.get(key), key
        assert (float(row["clean_accuracy"]), float(row["robust_accuracy"])) == (
            by_hand["clean_accuracy"],
            by_hand["robust_accuracy"],
        )
        assert [float(row["robust_low"]), float(row["robust_high"])] == by_hand["robust_interval"]
        cell = (folder / row["run"]).parent
        # what the cell was given is what it says that it was, but for where it is
        given, saved = (yaml.safe_load((path / "config.yaml").read_text()) for path in (cell, folder / row["run"]))
        for configuration in (given, saved):  # the command writes the logger as a list, and how weights are read
            del configuration["trainer"]["logger"], configuration["weights_only"]
        assert given == saved
    told = json.loads((folder / "study.json").read_text())
    assert (told["title"], told["name"], told["axes"], told["rows"]) == ("Steps", "mine", ["steps"], 2)
    assert [told["cells"][point["fit"]]["names"]["steps"] for point in told["points"]] == ["1", "2"]
    assert (folder / "study.png").is_file()
    assert f"lightning-adv report {folder.relative_to(tmp_path)}" in out
    assert [row["steps"] for row in read_study_folder(folder).rows] == ["1", "2"]
    # the study as resolved is a study file again
    main(["study", "--config", str(folder / "study.yaml"), "-o", str(folder), "--dry-run"])


@pytest.mark.slow
def test_nothing_is_done_twice_and_a_changed_grid_keeps_its_cells(study, tmp_path):
    content = {"stages": PRETRAINED, "grid": {"model.init_args.cutoff": ["m1", "m2"]}, "cells": "shared"}
    assert study(content, HERE, "-o", "one")[0] == 0
    logs = {path: path.read_text() for path in tmp_path.glob("shared/*/log.txt")}
    assert len(logs) == 3
    before = (tmp_path / "one" / "study.csv").read_text()
    assert study(content, HERE, "-o", "one")[0] == 0
    assert (tmp_path / "one" / "study.csv").read_text() == before
    content["grid"] = {"model.init_args.cutoff": ["m2", "m3"]}
    status, out, _ = study(content, HERE, "-o", "one")
    assert status == 0
    assert out.count(": done in ") == 1
    # another study with stages of other names has the same pretrained network
    settings = {"model.init_args.backbone.checkpoint": "{start}/checkpoints/best.ckpt", "model.init_args.cutoff": "m1"}
    stages = {"start": PRETRAINED["pretrain"], "again": {"config": "digits/blockwise", "set": settings}}
    status, out, _ = study({"stages": stages, "cells": "shared"}, HERE, "-o", "two", name="other")
    assert (status, out.count(": done in ")) == (0, 0)
    assert len(list(tmp_path.glob("shared/*/log.txt"))) == 4
    assert {path: path.read_text() for path in logs} == logs
    first = next(row for row in csv.DictReader(before.splitlines()) if row["cutoff"] == "m1")
    assert rows(tmp_path / "two" / "study.csv")[0]["robust_accuracy"] == first["robust_accuracy"]


@pytest.mark.slow
def test_a_cell_that_fails_is_told_and_the_others_go_on(study, tmp_path):
    content = {"stages": PRETRAINED, "grid": {"pretrain/data.init_args.batch_size": [64, 0, 32]}}
    status, _, err = study(content, HERE)
    assert status == 1
    folder = tmp_path / "runs" / "mine"
    assert [row["status"] for row in rows(folder / "study.csv")] == ["done", "failed", "done"]
    assert "pretrain batch_size=0 seed=0: failed: data.batch_size must be at least 1, got 0." in err
    assert "1 of 6 cells failed; --retry runs them again" in err
    assert next(folder.glob("cells/pretrain-batch_size=0*")).as_posix() in err
    told = json.loads((folder / "study.json").read_text())["cells"].values()
    assert sorted(cell["status"] for cell in told) == ["done"] * 4 + ["failed", "waits"]
    (failed,) = (cell for cell in told if cell["status"] == "failed")
    assert failed["error"] == "data.batch_size must be at least 1, got 0."
    # it stays failed, and is tried once more only when that is asked for
    log = next(folder.glob("cells/pretrain-batch_size=0*/log.txt"))
    size = log.stat().st_size
    assert study(content, HERE)[0] == 1
    assert log.stat().st_size == size
    assert study(content, HERE, "--retry")[0] == 1
    assert log.stat().st_size > size


def test_a_base_configuration_that_fails_is_told_before_anything_is_trained(study, tmp_path):
    status, _, err = study({"config": "digits/madry", "set": {**SMALL, "data.init_args.batch_size": 0}}, HERE)
    assert status == 1
    assert err.strip().splitlines()[-1] == (
        "lightning-adv study: error: stages.fit: its first cell fails in a trial of one batch: "
        "data.batch_size must be at least 1, got 0."
    )
    assert not (tmp_path / "runs" / "mine" / "cells").exists()


def test_a_dry_run_names_the_cells_and_makes_nothing(study, tmp_path):
    content = {"stages": PRETRAINED, "grid": {"model.init_args.cutoff": ["m1", "m2"]}, "seeds": [0, 1, 2]}
    status, out, _ = study(content, "--dry-run", "--seeds", "[4]", "--stages.pretrain.seed", "0")
    assert status == 0
    assert "2 points, 3 cells: 3 missing." in out
    assert "cutoff=m2, seed=4" in out
    assert "How long a cell of pretrain, retrain takes is not known yet" in out
    assert not (tmp_path / "runs").exists()


class Looks(InThisProcess):
    """Looks at the table before each cell, and at what a dry run says in the middle of it."""

    def open(self, work, *, workers, threads):
        def look(folder):
            if ".trial" not in folder:
                (table,) = Path.cwd().glob("runs/*/study.csv")
                described = json.loads(table.with_suffix(".json").read_text())["cells"].values()
                Looks.seen.append(([row["status"] for row in rows(table)], [cell["status"] for cell in described]))
            work(folder)

        super().open(look, workers=workers, threads=threads)


@pytest.mark.slow
def test_a_cell_that_runs_is_told_as_running(study, monkeypatch):
    monkeypatch.setattr(Looks, "seen", [], raising=False)
    stages = {"fit": {"config": "digits/standard"}}
    status, out, _ = study({"stages": stages, "seeds": [0, 1]}, f"--engine={__name__}.Looks")
    assert status == 0
    assert Looks.seen == [(["running", "missing"],) * 2, (["done", "running"],) * 2]
    assert out.splitlines()[0] == "A trial of one batch of each stage, of which nothing is kept: fit."
    assert "running" not in "".join(out.splitlines()[1:])


def test_a_dry_run_tells_what_another_process_runs(study, tmp_path):
    content = {"config": "digits/madry", "seeds": [0, 1], "set": SMALL}
    first, _ = small.make_cells(tmp_path / "runs" / "mine" / "cells", content)
    with alone(lock_of(first.folder), "a cell", instead="wait"):
        _, out, _ = study(content, "--dry-run")
    assert "2 points, 2 cells: 1 running, 1 missing." in out


def test_names_are_printed_as_they_are(study):
    names = ["[m0]", "[/m1]", ":smile:"]
    grid = {"part": {name: {STEPS: number} for number, name in enumerate(names, 1)}}
    status, out, _ = study({"config": "digits/madry", "title": "[b]Parts[/i]", "grid": grid}, "--dry-run")
    assert status == 0
    assert "[b]Parts[/i]" in out
    assert all(f"part={name}" in out for name in names)


GRID = {"model.init_args.cutoff": ["m1"]}


@pytest.mark.parametrize(
    ("content", "arguments", "told"),
    [
        ({"config": "digits/madry", "grid": {"trainer.max_epoch": [1]}}, [],
         "stages.fit: There is no key 'trainer.max_epoch'. Did you mean 'trainer.max_epochs'? (In the"),
        ({"config": "digits/madry", "grid": {"trainer.max_epochs": [1, "x"]}}, [],
         "stages.fit: trainer.max_epochs: it must be of type int, got x. (In the point max_epochs=x.)"),
        ({"config": "digits/madry", "grid": {"trainer.max_epochs": {"range": [1, 1001]}}}, [],
         "grid: it has 1,001 cells: give --yes if more than 1,000 are meant."),
        ({"stages": {"a": {"config": "digits/madry", "set": {"x.y": "{b}"}}, "b": {"config": "digits/madry",
         "set": {"x.y": "{a}"}}}}, [], "stages.a: it waits for itself: a → b → a."),
        ({"config": "digits/madry"}, ["--engine=lokal"],
         "engine: there is no engine 'lokal'. Did you mean 'local'?"),
        ({"config": "digits/madry"}, ["--engine.address=here"],
         "engine > LocalEngine: there is no option 'address'."),
        ({"config": "digits/madry"}, ["-o", "other"],
         "output: other belongs to the study 'theirs', and this one is 'mine': give another -o"),
        ({"config": "digits/madry"}, ["-o", "run"], "output: run is the folder of a run: give another -o."),
        ({"config": "digits/madry"}, ["-o", "foreign"],
         "foreign is not the folder of a study: of study.yaml, config: a study must have config"),
        ({"config": "digits/madry"}, ["-o", "run/config.yaml"],
         "output: run/config.yaml is a file, and a study has a folder: give another -o."),
        ({"config": "digits/madri"}, [], "stages.fit.config: there is no file 'digits/madri'"),
        ({"config": "digits/madry"}, ["--worker=2"], "--worker: there is no such option. Did you mean 'workers'?"),
        ({"config": "digits/madry"}, ["--seeds"], "--seeds: it needs a value."),
        ({"config": "digits/madry", "collect": {"x": "fitt:a"}}, [], "collect.x: there is no stage 'fitt'."),
        ({"config": "digits/madry", "grid": {"trainer.max_epochs": [1]}, "figure": {"x": "epochs"}}, [],
         "figure.x: there is no column 'epochs'. Did you mean 'max_epochs'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence_before_anything_is_trained(study, tmp_path, content, arguments, told):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "study.yaml").write_text("name: theirs\nconfig: digits/madry\n")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "study.yaml").write_text("name: mine\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("trainer: {}\n")
    status, out, err = study(content, *arguments)
    assert status == 1
    assert err.startswith(f"lightning-adv study: error: {told}")
    assert err.count("\n") == 1
    assert not out
    assert not list(tmp_path.rglob("cells"))


@pytest.mark.parametrize("arguments", [["--workers=0"], ["--workers=two"], []])
def test_what_does_not_parse_has_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["study", *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("lightning-adv study: error: ")
