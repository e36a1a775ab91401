"""Damaged folders of runs and evaluations: every reader returns or says one sentence, in little time.

Each reader gets a folder in which one file was changed at random, by seed. What it may raise is a UsageError of one
line, which the commands print as it is.
"""

import json
import random
import shutil
import signal
import warnings
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from lightning_adv.analysis.training_curves import plot_training_curves, salvage_metrics
from lightning_adv.attacks import FGSM, PGD
from lightning_adv.commands.evaluate.corruptions import read_baseline
from lightning_adv.commands.evaluate.folder import EvaluationFolder
from lightning_adv.commands.evaluate.output import to_plain
from lightning_adv.commands.evaluate.suspicions import is_suspicion, print_suspicions
from lightning_adv.commands.export.checkpoint import _results
from lightning_adv.commands.shared.presets import _data_of_run
from lightning_adv.commands.shared.run_folder import continue_metrics
from lightning_adv.core.errors import UsageError
from lightning_adv.core.table import continue_table, read_table
from lightning_adv.evaluation import CommonCorruptions, StepsCurve, make_plan, summarise
from lightning_adv.evaluation.verdicts import evaluate_chunk
from lightning_adv.nn.weights.export import FORMAT, read_description
from lightning_adv.report.page import build_page
from lightning_adv.report.runs import read_run_folder
from lightning_adv.report.summary import problem_lists, settings_tables, summary_table
from lightning_adv.report.tables import pack_table
from tests.faults.mutations import mutate
from tests.report.fake_runs import png

RUN = Path(__file__).parents[1] / "fixtures" / "v0.1.0" / "madry"
SECONDS = 5  # for one reader and one folder; each takes some hundredths


@contextmanager
def at_most(seconds):
    """Of processor time, and some more of waiting: other tests may keep the machine busy."""

    def too_long(number, frame):
        raise AssertionError(f"it took more than {seconds} s")

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, seconds), signal.SIGALRM: (signal.ITIMER_REAL, 20 * seconds)}
    before = {number: signal.signal(number, too_long) for number in timers}
    for timer, length in timers.values():
        signal.setitimer(timer, length)
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def fuzz(read, whole, folder, cases):
    """Give a reader a folder with one file changed, `cases` times; return how often it refused.

    Args:
        read: Reads the folder.
        whole: The contents of the files that are changed, by path in the folder.
        folder: The folder.
        cases: How many.
    """
    refused = 0
    for case in range(cases):
        chance = random.Random(f"{read.__name__} {case}")
        name = chance.choice(sorted(whole))
        (folder / name).write_bytes(mutate(whole[name], chance))
        try:
            with at_most(SECONDS):
                read(folder)
        except Exception as error:
            # nothing of a library's or of Python's own
            told = isinstance(error, UsageError) and str(error).isprintable() and 10 < len(str(error)) < 1500
            if not told:
                error.add_note(f"{read.__name__}, case {case}: {name} was changed")
                raise
            refused += 1
        (folder / name).write_bytes(whole[name])
    return refused


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(RUN, folder, ignore=shutil.ignore_patterns("*.ckpt", "evaluation-quick", "bn_gap.csv"))
    (folder / "figures").mkdir()
    (folder / "figures" / "training_curves.png").write_bytes(png())
    torch.save({"global_step": 30}, folder / "checkpoints" / "best.ckpt")
    return folder


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.slow
def test_report(run):
    """One file of a run never takes the rest with it: no case is refused."""
    whole = contents(run)
    del whole["checkpoints/best.ckpt"]

    def read(folder):
        found = read_run_folder(folder)
        for html in (summary_table(["a"], [found]), settings_tables(["a"], [found]), problem_lists(["a"], [found], {})):
            assert isinstance(html, str)
        assert all(pack_table(table) for table in found.tables.values())

    def read_as_page(folder):
        build_page(["a"], [read_run_folder(folder)], built=datetime(2026, 1, 2))

    assert fuzz(read, whole, run, 60) == 0
    assert fuzz(read_as_page, whole, run, 3) == 0


@pytest.mark.slow
def test_tables_and_training_curves(run):
    names = ["metrics.csv", *(f"analyses/{name}.csv" for name in ("bn_drift", "smoothness"))]
    whole = {name: (run / name).read_bytes() for name in names}

    def read(folder):
        for name in names[1:]:
            read_table(folder / name)
            continue_table(folder / name, 30)
        salvage_metrics(folder / "metrics.csv")

    def draw(folder):
        plot_training_curves(salvage_metrics(folder / "metrics.csv")[0]).savefig(folder / "curves.png", dpi=20)

    assert fuzz(read, whole, run, 30) > 2
    assert fuzz(draw, {"metrics.csv": whole["metrics.csv"]}, run, 3) < 3


def test_resume_goes_on_without_what_is_damaged(run):
    def resume(folder):
        logger = SimpleNamespace(log_dir=str(folder), experiment=SimpleNamespace())
        continue_metrics(logger, folder / "checkpoints" / "best.ckpt")

    assert fuzz(resume, {"metrics.csv": (run / "metrics.csv").read_bytes()}, run, 30) == 0


@pytest.mark.slow
def test_what_lies_beside_a_checkpoint(run):
    checkpoint = run / "checkpoints" / "best.ckpt"
    whole = {name: (run / name).read_bytes() for name in ("config.yaml", "results.json")}
    tested = json.loads(whole["results.json"])["checkpoint"]
    content = {"epoch": tested["epoch"], "global_step": tested["step"]}

    def read(folder):
        _results(checkpoint, content)
        _data_of_run(str(checkpoint))

    assert fuzz(read, whole, run, 40) > 4


def test_description_of_an_export(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    description = json.loads((RUN.parent / "advprop" / "export" / "model.json").read_text())
    assert description["format"] == FORMAT
    whole = {"model.json": json.dumps(description).encode()}
    cases = 30
    refused = fuzz(lambda folder: read_description(folder / "model.safetensors", argument="a"), whole, tmp_path, cases)
    assert refused > cases / 2  # of other weights at the least, where it is still a description of ours


def evaluated():
    """A plan, and what it finds on some digits."""
    curve = StepsCurve(PGD(eps=0.1, step_size=0.05), steps=(1, 2), images=4)
    corruptions = CommonCorruptions(names=["contrast", "brightness"], severities=[1])
    plan = make_plan([FGSM(), PGD(steps=2)], {"linf": [0.1, 0.2]}, steps_curve=curve, corruptions=corruptions)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    x, y = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    return plan, [evaluate_chunk(network, x, y, plan, number=number) for number in range(2)]


def test_unfinished_evaluation(tmp_path, capsys):
    plan, chunks = evaluated()
    settings = {"images": 12, "eps": {"linf": [0.1]}, "seed": 0}
    started = EvaluationFolder(tmp_path)
    started.begin(settings, overwrite=False)
    suspicion = {"name": "a", "message": "b", "evidence": {"eps": 1.0}, "norm": "linf", "eps": 0.1, "images": 2}
    for chunk in chunks:
        started.write(chunk)
    started.remember("suspicions", lambda: [suspicion], is_suspicion)

    def go_on(path):
        folder = EvaluationFolder(path)
        assert folder.begin(settings, overwrite=False)
        print_suspicions(folder.remember("suspicions", list, is_suspicion), looked=False)
        known = folder.read_all(2)
        for chunk in known:
            y = torch.tensor(chunks[0].labels)
            evaluate_chunk(torch.nn.Identity(), torch.zeros(len(y), 1), y, plan, number=chunk.chunk, known=chunk)
        to_plain(plan, summarise(plan, known), None)

    assert fuzz(go_on, contents(tmp_path), tmp_path, 50) > 30
    assert [asdict(chunk) for chunk in started.read_all(2)] == [asdict(chunk) for chunk in chunks]


def test_baseline_of_corruptions(tmp_path):
    plan, chunks = evaluated()
    whole = {"evaluation.json": json.dumps(to_plain(plan, summarise(plan, chunks), None), indent=2).encode()}
    asked = CommonCorruptions(
        names=["contrast", "brightness"], severities=[1], baseline=str(tmp_path / "evaluation.json")
    )

    def read(folder):
        assert 0 <= read_baseline(asked).clean_error <= 1

    assert fuzz(read, whole, tmp_path, 40) > 8
