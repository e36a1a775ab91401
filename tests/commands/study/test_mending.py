"""What is damaged or lost of a study's cells is told, and ``--retry`` makes it again; nothing that is whole is lost."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from lightning_adv.cli import main
from lightning_adv.commands.study.mending import put_damage_aside, upstream_again
from lightning_adv.commands.study.work import run_cell
from lightning_adv.studies.attempts import Failure, is_done, result_of, set_aside, write_failure
from lightning_adv.studies.cells import Cell
from tests.commands.study import small

HERE = "--engine=tests.commands.study.here.InThisProcess"
BEST = "{pretrain}/checkpoints/best.ckpt"
STUDY = {
    "threads": 1,
    "set": {**small.SMALL, "trainer.max_epochs": 1, "trainer.limit_train_batches": 2},
    "stages": {
        "pretrain": {"config": "digits/standard"},
        "retrain": {"config": "digits/blockwise", "set": {"model.init_args.backbone.checkpoint": BEST}},
        "attacked": {"command": "evaluate", "config": "evaluation/quick",
            "set": {"checkpoint": "{retrain}/checkpoints/best.ckpt", "images": 16, "accelerator": "cpu"}},
    },
}  # fmt: skip


@pytest.fixture
def study(tmp_path, monkeypatch, capfd):
    """Run the study; return its exit status and what it printed, and the folders of its cells by stage."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(STUDY))

    def run(*arguments):
        status = 0
        try:
            main(["study", "--config", "mine.yaml", HERE, *arguments])
        except SystemExit as ended:
            status = ended.code
        folders = {path.name.partition("-")[0]: path for path in tmp_path.glob("runs/mine/cells/*-*")}
        return status, capfd.readouterr(), folders

    return run


def results(folders):
    names = {"pretrain": "fit", "retrain": "fit", "attacked": "evaluate"}
    paths = {stage: result_of(folders[stage], command) for stage, command in names.items()}
    return {stage: small.without_times(json.loads(path.read_text())) for stage, path in paths.items()}


def of_another_file(found):
    """Leave out what tells one file of the same weights from another."""
    found["attacked"]["settings"].pop("network")
    return found


def truncate(path):
    path.write_bytes(path.read_bytes()[:1000])
    return path


def statuses(tmp_path):
    cells = json.loads((tmp_path / "runs/mine/study.json").read_text())["cells"].values()
    return {cell["stage"]: (cell["status"], cell["error"]) for cell in cells}


@pytest.mark.slow
def test_what_is_damaged_is_told_and_made_again_when_that_is_asked_for(study, tmp_path):
    status, said, folders = study()
    assert status == 0
    assert "runs/mine/study.csv has besides: attacked_clean_accuracy, attacked_robust_accuracy." in said.out
    before = of_another_file(results(folders))
    checkpoints = {name: (folders["retrain"] / f"version_0/checkpoints/{name}.ckpt") for name in ("best", "last")}
    whole = {name: path.read_bytes() for name, path in checkpoints.items()}

    # results: what they are of is there
    for stage, name in (("retrain", "version_0/results.json"), ("attacked", "result/evaluation.json")):
        (folders[stage] / name).write_text("{")
    status, said, _ = study()
    assert status == 1
    assert "retrain seed=0: results.json cannot be read: it is no JSON" in said.err
    assert {stage: told[0] for stage, told in statuses(tmp_path).items()} == {
        "pretrain": "done", "retrain": "failed", "attacked": "waits",
    }  # fmt: skip
    assert "it is no JSON" in statuses(tmp_path)["retrain"][1]
    status, _, _ = study("--retry")
    assert status == 0
    assert of_another_file(results(folders)) == before
    assert {name: path.read_bytes() for name, path in checkpoints.items()} == whole
    assert (folders["attacked"] / "result/aside-evaluation.json").read_text() == "{"

    # the checkpoint that training would go on from
    (folders["retrain"] / "version_0/results.json").unlink()
    (folders["attacked"] / "result/evaluation.json").unlink()
    truncated = truncate(checkpoints["last"]).read_bytes()
    status, said, _ = study()
    assert status == 1
    assert "last.ckpt cannot be read" in said.err
    status, _, _ = study("--retry")
    assert status == 0
    assert of_another_file(results(folders)) == before
    aside = folders["retrain"] / "aside-version_0/checkpoints"
    assert ((aside / "last.ckpt").read_bytes(), (aside / "best.ckpt").read_bytes()) == (truncated, whole["best"])

    # a file of a cell that is done: it is needed again only where what reads it is to be run
    (folders["pretrain"] / "version_0/checkpoints/best.ckpt").unlink()
    logs = {stage: (folder / "log.txt").read_text() for stage, folder in folders.items()}
    assert study("--retry")[0] == 0
    assert {stage: (folder / "log.txt").read_text() for stage, folder in folders.items()} == logs
    weights = torch.load(checkpoints["best"], weights_only=True)["state_dict"]
    set_aside(folders["retrain"] / "version_0")
    status, said, _ = study()
    assert status == 1
    assert "stages.retrain: its first cell fails in a trial of one batch: " in said.err
    assert "best.ckpt" in said.err
    status, said, _ = study("--retry")
    assert status == 0
    assert (
        f"pretrain seed=0: run again, since retrain seed=0 needs {folders['pretrain']}/version_0/checkpoi" in said.out
    )
    assert of_another_file(results(folders)) == before
    again = torch.load(checkpoints["best"], weights_only=True)["state_dict"]
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    assert (folders["pretrain"] / "aside-version_0/results.json").is_file()


def make(tmp_path, name, command, needs=(), **configuration):
    cell = Cell(name, name, command, {}, tmp_path / name, tuple(needs), configuration, 1)
    path = result_of(cell.folder, command)
    (path.parent / "checkpoints").mkdir(parents=True)
    path.write_text("{}")
    torch.save({"state_dict": {}}, path.parent / "checkpoints/best.ckpt")
    return cell


def test_which_cells_are_run_again_for_a_file_that_is_lost(tmp_path):
    """Upwards from what is to be run; damage is as a loss, and what only an error names counts too."""
    a, b, c, d = (tmp_path / name / "version_0" for name in "abcd")
    best = "checkpoints/best.ckpt"
    cells = [
        make(tmp_path, "a", "fit"),
        make(tmp_path, "b", "fit", "a", model={"backbone": f"{a}/{best}"}),
        make(tmp_path, "c", "fit", "b", model={"backbone": f"{b}/{best}"}),
        make(tmp_path, "d", "fit"),
        make(tmp_path, "e", "evaluate", "d", checkpoint=f"{d}/{best}"),
        make(tmp_path, "f", "fit", "c", model={"backbone": f"{c}/{best}"}),
    ]
    (a / best).unlink()
    (d / best).unlink()
    truncate(b / best)
    assert upstream_again(cells) == []  # all are done
    set_aside(tmp_path / "c/version_0")
    (tmp_path / "f/version_0/results.json").unlink()
    again = upstream_again(cells)
    assert [(one.cell.id, one.lost, one.reader.id) for one in again] == [("b", b / best, "c"), ("a", a / best, "b")]
    assert [is_done(cell.folder, cell.command) for cell in cells] == [False, False, False, True, True, False]
    assert upstream_again(cells) == []
    result_of(tmp_path / "e", "evaluate").unlink()
    torch.save({"state_dict": {}}, d / best)
    assert upstream_again(cells) == []
    write_failure(tmp_path / "e", Failure(f"initial_weights: there is no file {d}/checkpoints/init.ckpt."))
    assert [one.lost.name for one in upstream_again(cells)] == ["init.ckpt"]


def test_only_the_damaged_parts_of_an_evaluation_are_put_aside(tmp_path):
    cell = make(tmp_path, "a", "evaluate")
    parts = tmp_path / "a/result/parts"
    parts.mkdir()
    for number, content in enumerate(("{}", "{", "[]")):
        (parts / f"{number:06}.json").write_text(content)
    assert list(put_damage_aside(cell)) == [(parts / "000001.json", parts / "aside-000001.json")]
    assert sorted(path.name for path in parts.iterdir()) == ["000000.json", "000002.json", "aside-000001.json"]


@pytest.mark.slow
def test_a_run_that_nothing_goes_on_from_is_kept_beside_the_next(tmp_path):
    settings = {"trainer.max_epochs": 1, "last_checkpoint.every_n_epochs": 2}
    [cell] = small.make_cells(
        tmp_path, {"stages": {"train": {"config": "digits/standard"}}, "set": small.SMALL | settings}
    )
    run_cell(str(cell.folder))
    before = small.result(cell)
    run = cell.folder / "version_0"
    (run / "results.json").write_text("")
    (run / "checkpoints/last.ckpt").unlink(missing_ok=True)
    run_cell(str(cell.folder))
    assert small.result(cell) == before
    assert (cell.folder / "aside-version_0/checkpoints/best.ckpt").is_file()
