"""SIGKILL at any moment: each file is whole or absent, and the same command, or the resume, ends in the same bits."""

import csv
import json
import os
import random
import re
import shutil
import tempfile
import time
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load

from tests.commands.shortened import FAST_ATTACK
from tests.faults.commands import Command

pytestmark = pytest.mark.slow

FIT = [
    "fit", "--config=digits/madry", "--trainer.logger.init_args.version=0", "--last_checkpoint.every_n_train_steps=1",
    "--trainer.max_epochs=3", "--trainer.limit_train_batches=3", "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1", "--trainer.num_sanity_val_steps=0", "--trainer.accelerator=cpu",
    "--model.init_args.backbone={name: small_cnn, options: {width: 4}}", *FAST_ATTACK,
]  # fmt: skip
RUN = Path("runs/digits-madry/version_0")


def parse(path):
    """Read a file whole, or fail."""
    kind = path.suffix
    if kind == ".ckpt":
        assert torch.load(path, weights_only=True)["state_dict"]
    elif kind == ".json":
        json.loads(path.read_text())
    elif kind == ".yaml":
        assert yaml.safe_load(path.read_text())
    elif kind == ".csv":  # lines are appended to a table: the last one may be cut
        columns, *rows = csv.reader(path.read_text().splitlines(keepends=True))
        assert all(len(row) == len(columns) for row in rows[:-1])
    elif kind == ".png":
        with Image.open(path) as image:
            image.load()
    elif kind == ".safetensors":
        assert load(path.read_bytes())
    elif kind == ".html":
        assert path.read_text().rstrip().endswith("</html>")
    else:
        raise AssertionError(f"{path} is no file of a run")


def unfinished(folder):
    # pathlib's own walk fails where a folder is removed meanwhile
    return [name for _, _, names in os.walk(folder) for name in names if name.endswith(".part")]


def check_whole(folder):
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.endswith((".part", ".lock", ".txt")):
            parse(path)


def moments(folder, number, longest, files=12):
    """Ways to wait for a moment to kill at: times, and the moment at which the n-th unfinished file is there."""
    draw = random.Random(number)

    def by_time(command):
        return command.kill_after(draw.uniform(0, longest))

    def by_file(command):
        seen, nth = set(), draw.randint(1, files)

        def there():
            seen.update(unfinished(folder))
            return len(seen) >= nth

        return command.kill_when(there)

    while True:
        yield by_file
        yield by_time


@pytest.fixture
def elsewhere(tmp_path):
    """A temporary folder on another file system, if there is one: a move there is a copy."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm")) if os.path.isdir("/dev/shm") else tmp_path / "temporary"
    folder.mkdir(exist_ok=True)
    yield folder
    shutil.rmtree(folder)


def resume(folder):
    last = folder / RUN / "checkpoints" / "last.ckpt"
    return ["fit", f"--config={RUN / 'config.yaml'}", f"--ckpt_path={last}"] if last.is_file() else FIT


def finish(command):
    status, said = command.wait()
    assert status == 0, said[-3000:]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that nobody killed."""
    folder = tmp_path_factory.mktemp("trained")
    finish(Command(folder, *FIT))
    return folder


def test_a_fit_ends_in_the_same_bits(tmp_path, trained, elsewhere):
    kills = 0
    for kill, _ in zip(moments(tmp_path, 0, longest=3.0), range(4), strict=False):
        kills += kill(Command(tmp_path, *resume(tmp_path), temporary=elsewhere))
        check_whole(tmp_path)
    assert kills >= 2
    finish(Command(tmp_path, *resume(tmp_path), temporary=elsewhere))
    check_whole(tmp_path)
    assert not unfinished(tmp_path)
    assert not list(tmp_path.rglob("*.lock"))
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = (
            torch.load(folder / RUN / "checkpoints" / name, weights_only=True) for folder in (tmp_path, trained)
        )
        assert ours["global_step"] == theirs["global_step"]
        assert all(torch.equal(ours["state_dict"][key], value) for key, value in theirs["state_dict"].items())


def without_times(path):
    return re.sub(r'"(seconds|since|checkpoint|path)": .*', "", path.read_text())


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (
            [
                "evaluate", "--eps.linf=[0.1]", "--attacks=[{class_path: PGD, init_args: {eps: 0.1, steps: 3}}]",
                "--images=60", "--batch_size=5", "--suspicion_images=4", "--output=out", "--accelerator=cpu",
            ],
            ["evaluation.json", "verdicts.csv", "accuracy_over_eps.png"],
        ),
        (["export", "--output=out"], ["model.json", "model.safetensors"]),
        (["report", "--output=out/report.html"], ["report.html"]),
    ],
    ids=["evaluate", "export", "report"],
)  # fmt: skip
def test_the_same_command_again_ends_in_the_same_files(tmp_path, trained, elsewhere, arguments, found):
    run = trained / RUN
    given = [str(run)] if arguments[0] == "report" else [f"--checkpoint={run / 'checkpoints' / 'best.ckpt'}"]
    command = [*arguments, *given]
    began = time.monotonic()
    finish(Command(trained, *command))
    longest = time.monotonic() - began
    shutil.move(trained / "out", tmp_path / "expected")
    kills = 0
    for kill, _ in zip(moments(tmp_path, 1, longest, files=len(found)), range(6), strict=False):
        kills += kill(Command(tmp_path, *command, temporary=elsewhere))
        check_whole(tmp_path)
        if kills == 2:
            break
        if (tmp_path / "out" / found[0]).is_file():  # it had ended before it was killed
            shutil.rmtree(tmp_path / "out")
    assert kills >= 1
    finish(Command(tmp_path, *command, temporary=elsewhere))
    check_whole(tmp_path)
    assert not unfinished(tmp_path)
    for name in found:
        ours, theirs = tmp_path / "out" / name, tmp_path / "expected" / name
        if name.endswith(".json"):
            assert without_times(ours) == without_times(theirs)
        elif name.endswith(("csv", "safetensors")):
            assert ours.read_bytes() == theirs.read_bytes()
