"""``lightning-adv report``: what the command writes, refuses and follows. The page itself: ``tests/report``."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_adv.cli import main
from lightning_adv.commands import report as report_module
from lightning_adv.commands.report import Report
from lightning_adv.commands.report import follow as follow_runs
from lightning_adv.core.files import write_whole
from tests.report.fake_runs import write_run
from tests.report.fake_studies import write_study

PATIENCE = 120  # seconds; other tests may keep the machine busy


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path / "runs" / "madry" / "version_0")


def data(page="report.html"):
    """What the page knows of its runs."""
    return json.loads(re.search(r'id="report-data">(.*?)</script>', Path(page).read_text())[1])


def names(page="report.html"):
    return [run["name"] for run in data(page)["runs"]]


def refused(capsys, *arguments, status=1):
    with pytest.raises(SystemExit) as end:
        main(["report", *map(str, arguments)])
    assert end.value.code == status
    return capsys.readouterr().err


@pytest.mark.slow
def test_writes_one_page(run, capsys):
    main(["report", str(run)])
    assert names() == ["madry"]
    assert data()["reload"] is None
    assert "The report is report.html (" in capsys.readouterr().out
    write_run(Path("runs/sat/version_0"))
    main(["report", *map(str, sorted(Path("runs").glob("*/version_0"))), "-o", "new/folder/page.html"])
    assert names("new/folder/page.html") == ["madry", "sat"]
    assert [path.name for path in Path("new/folder").iterdir()] == ["page.html"]


def test_a_run_given_twice_is_shown_once(run):
    main(["report", str(run), f"{run.parent}/../madry/version_0/"])
    assert names() == ["madry"]


def test_a_folder_that_is_no_run_is_refused_before_anything_is_written(run, capsys):
    Path("report.html").write_text("as it was")
    assert refused(capsys, run.parent) == (
        f"lightning-adv: error: RUN: {run.parent} is no run folder: config.yaml, metrics.csv, results.json, analyses/ "
        f"and figures/ are missing. Did you mean {run}?\n"
    )
    assert "nowhere is not there" in refused(capsys, "nowhere", run)
    assert Path("report.html").read_text() == "as it was"


def test_a_run_that_cannot_be_shown_does_not_take_the_others_with_it(run, capsys):
    other = Path("runs/sat/version_0")
    other.mkdir(parents=True)
    (other / "results.json").write_text("[" * 100_000)
    main(["report", str(run), str(other)])
    said = "nothing in runs/sat/version_0 can be read: results.json cannot be read (it is nested too deeply)"
    assert capsys.readouterr().err == (
        f"lightning-adv report: warning: sat: It is not shown: {said}: its results are not known.\n"
    )
    assert names() == ["madry"]
    assert f"<b>sat</b> It is not shown: {said}" in Path("report.html").read_text()
    assert refused(capsys, other) == f"lightning-adv: error: RUN: {said}: its results are not known.\n"


@pytest.mark.slow
def test_what_cannot_be_read_is_said_on_the_terminal_once(run, capsys):
    (run / "config.yaml").write_text("a: &a [*a]")
    report = Report([run], Path("report.html"))
    report.write()
    said = "config.yaml cannot be read (it refers to itself): its settings are not known."
    assert capsys.readouterr().err == f"lightning-adv report: warning: madry: {said}\n"
    (run / "metrics.csv").write_text("epoch,step\n0,1,2\n")
    report.write()
    assert capsys.readouterr().err.startswith("lightning-adv report: warning: madry: metrics.csv is damaged")
    (run / "figures").joinpath("\x1b[31m.png").write_bytes(b"")
    report.write()
    assert "figures/\\x1b[31m.png cannot be read (it is no PNG)" in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback(run, monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("a figure that cannot be")

    monkeypatch.setattr(report_module, "build_page", fail)
    with pytest.raises(ValueError, match="a figure that cannot be"):
        main(["report", str(run)])


def test_an_output_that_cannot_be_written_is_refused(run, capsys):
    Path("file").write_text("")
    error = refused(capsys, run, "-o", "file/report.html")
    assert re.fullmatch(r"lightning-adv: error: --output: file/report.html cannot be written \(.+\)\.\n", error)
    assert "runs is a folder; give a file, such as runs/report.html" in refused(capsys, run, "-o", "runs")


def test_arguments_that_do_not_parse(run, capsys):
    assert "RUN" in refused(capsys, status=2)
    for given in ("0", "abc", "nan", "inf", "-1"):
        said = f"argument --interval: must be a positive number of seconds, got {given}"
        assert said in refused(capsys, run, f"--interval={given}", status=2)


@pytest.mark.slow
def test_starts_without_torch_and_lightning(run):
    code = f"import sys; from lightning_adv.cli import main; main(['report', {str(run)!r}]); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in eval(done.stdout.splitlines()[-1])}
    assert not loaded & {"torch", "lightning", "jsonargparse", "matplotlib", "timm"}


class Following:
    """The command in a process of its own, with a look at the folders every tenth of a second."""

    def __init__(self, *runs):
        command = [sys.executable, "-m", "lightning_adv", "report", *map(str, runs), "--follow", "--interval", "0.1"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def wait_for(self, condition):
        end = time.monotonic() + PATIENCE
        while not (Path("report.html").exists() and condition()):
            assert time.monotonic() < end
            assert self.process.poll() is None
            time.sleep(0.05)

    def end(self):
        assert self.process.wait(PATIENCE) == 0
        return data()


@pytest.fixture
def follow():
    started = []
    # A shell makes what it starts in the background deaf to Ctrl-C, and so would the command be.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)

    def follow(*runs):
        started.append(Following(*runs))
        return started[-1]

    yield follow
    signal.signal(signal.SIGINT, handler)
    for each in started:
        each.process.kill()
        each.process.wait()


@pytest.mark.slow
def test_follows_until_every_run_has_results(run, follow):
    going = write_run(Path("runs/sat/version_0"), epochs=2, of=3)
    following = follow(run, going)
    following.wait_for(lambda: data()["reload"] == 0.1)
    with (going / "metrics.csv").open("a") as file:
        file.write(",100,0.005" + "," * 5 + "\n")
    rates = lambda: data()["metrics"]["lr-"]["data"][1]["x"]  # noqa: E731
    following.wait_for(lambda: rates() == [0, 1, 2])
    (going / "results.json").write_text((run / "results.json").read_text())
    shown = following.end()
    assert shown["reload"] is None
    assert [trace["meta"] for trace in shown["results"][0]["data"]] == [0, 0, 1, 1]


@pytest.mark.slow
def test_follows_a_study_until_no_cell_will_run(follow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = {"eps": ["1", "2"]}
    going = write_study(tmp_path / "study", grid, status={0: "begun", 1: "missing"}, epochs=1)
    following = follow(going)
    following.wait_for(lambda: data()["reload"] == 0.1)
    ended = write_study(tmp_path / "ended", grid, status={1: "failed"}, epochs=1)
    for name in ("study.csv", "study.json"):  # as the study writes them
        write_whole(going / name, (ended / name).read_text())
    shown = following.end()
    assert shown["reload"] is None
    assert shown["studies"][0]["status"] == ["done", "failed"]


def test_a_study_between_runs(run, capsys):
    other = write_run(Path("runs/sat/version_0"), analyses=())
    study = write_study(Path("runs/blocks"), {"eps": ["1", "2"]}, epochs=1)
    main(["report", str(run), str(study), str(other), f"{study}/../blocks"])
    assert names() == ["madry", "sat"]
    assert [each["name"] for each in data()["studies"]] == ["blocks"]
    assert capsys.readouterr().err == ""
    (study / "study.csv").write_text("")
    main(["report", str(study)])
    said = "study.csv cannot be read (it is empty): there are no accuracies."
    assert capsys.readouterr().err == f"lightning-adv report: warning: blocks: {said}\n"
    (study / "study.json").write_text("{")
    assert "blocks: It is not shown: runs/blocks is the folder of a study that cannot be read" in (
        main(["report", str(run), str(study)]) or capsys.readouterr().err
    )
    assert names() == ["madry"]
    assert refused(capsys, study).startswith("lightning-adv: error: RUN: runs/blocks is the folder of a study that")


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_following_with_a_page_that_stays(follow, tmp_path, monkeypatch, end):
    monkeypatch.chdir(tmp_path)
    following = follow(write_run(tmp_path / "run", epochs=2, of=3))
    following.wait_for(lambda: data()["reload"] == 0.1)
    following.process.send_signal(end)
    assert following.end()["reload"] is None


def test_a_run_that_stands_still_is_told_once(tmp_path, monkeypatch, capsys):
    folder = write_run(tmp_path / "run", epochs=2, of=3)
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 4:
            raise KeyboardInterrupt

    clock = iter(range(0, 10_000, 400))
    monkeypatch.setattr(report_module, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: next(clock)))
    follow_runs(Report([folder], tmp_path / "report.html"), 400)
    assert capsys.readouterr().out.count("No file has changed for 10 minutes: the run may have stopped") == 1
    assert looks == [400] * 4


def test_a_path_that_cannot_be_followed_is_refused(run, capsys):
    Path("loop").symlink_to("loop")
    for path in ("loop", "x" * 300, "two\nlines"):
        error = refused(capsys, run, path)
        assert error.startswith("lightning-adv: error: RUN: ")
        assert error.count("\n") == 1
