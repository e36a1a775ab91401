"""Slurm's part is played by shell scripts of its commands' names; the jobs of submitit are real."""

import os
import signal
import stat
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from lightning_adv.core.errors import UsageError
from lightning_adv.studies.engines.base import WorkerLostError
from lightning_adv.studies.engines.slurm import SlurmEngine
from tests.studies.engines.test_local import run, wait_until

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]

SLURM = {
    "sbatch": """
grep -q refused "$1" && { echo "sbatch: error: invalid partition specified" >&2; exit 1; }
for job in 1 2 3 4 5; do mkdir "$SLURM_TEST/$job" 2> /dev/null && break; done
cp "$1" "$SLURM_TEST/$job/script"
SLURM_JOB_ID=$job SLURM_NTASKS=1 setsid bash "$1" > "$SLURM_TEST/$job/out" 2>&1 &
echo $! > "$SLURM_TEST/$job/pid"
echo "Submitted batch job $job"
""",
    "srun": """
while [ "${1#-}" != "$1" ]; do case $1 in --output|--error) shift 2;; *) shift;; esac; done
exec "$@"
""",
    "sacct": """
echo "JobID|State|NodeList"
for job in $(ls "$SLURM_TEST"); do
  if [ -f "$SLURM_TEST/$job/state" ]; then state=$(cat "$SLURM_TEST/$job/state")
  elif kill -0 -- -$(cat "$SLURM_TEST/$job/pid") 2> /dev/null; then state=RUNNING; else state=COMPLETED; fi
  echo "$job|$state|here"
done
""",
    "scancel": 'kill -9 -- -$(cat "$SLURM_TEST/$1/pid") 2> /dev/null; true',
    "scontrol": """
echo REQUEUED > "$SLURM_TEST/$2/state"
(SLURM_JOB_ID=$2 SLURM_NTASKS=1 setsid bash "$SLURM_TEST/$2/script" > "$SLURM_TEST/$2/again" 2>&1 &
 echo $! > "$SLURM_TEST/$2/pid"; rm "$SLURM_TEST/$2/state") > /dev/null 2>&1 &
""",
}


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """The folder of the jobs of a machine that submits to Slurm."""
    (tmp_path / "bin").mkdir()
    for name, script in SLURM.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{script}")
        (tmp_path / "bin" / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_TEST", str(tmp_path / "jobs"))
    monkeypatch.syspath_prepend(ROOT)  # the jobs find this file as the command finds it
    (tmp_path / "jobs").mkdir()
    return tmp_path / "jobs"


def stop_once(folder):
    """Be stopped by Slurm in the first attempt, and take the exit for the end of a command."""
    attempts = Path(folder, "attempts")
    attempts.write_text(attempts.read_text() + "x" if attempts.exists() else "x")
    if attempts.read_text() == "x":
        try:
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(60)
        except SystemExit:
            attempts.write_text("caught")
    Path(folder, "name").write_text(os.environ.get("SLURM_JOB_NAME", ""))


def last_long(folder):
    Path(folder, "pid").write_text(str(os.getpid()))
    time.sleep(60 if Path(folder).name == "long" else 3)


def cell(path, name):
    (path / name).mkdir()
    return str(path / name)


def test_a_job_that_is_stopped_is_queued_again_and_has_what_was_asked_for(jobs, tmp_path):
    folder = cell(tmp_path, "cell")
    asked = {"partition": "gpu", "timeout": 90, "gpus_per_cell": 1, "memory": 8.0}
    with closing(SlurmEngine(**asked, parameters={"account": "vision"})) as engine:
        engine.open(stop_once, workers=3, threads=2)
        assert engine.slots == 3
        assert run(engine, [folder]) == {folder: None}
    assert Path(folder, "attempts").read_text() == "xx"
    assert Path(folder, "name").read_text() == "interactive"  # Lightning takes it for no job of several processes
    script = (jobs / "1" / "script").read_text()
    for option in ("partition=gpu", "time=90", "gpus-per-node=1", "mem=8GB", "cpus-per-task=2", "account=vision"):
        assert f"#SBATCH --{option}\n" in script
    assert str(Path(folder, "slurm")) in script


def test_a_new_command_waits_for_the_job_of_one_that_was_killed(jobs, tmp_path):
    folder = cell(tmp_path, "short")
    killed = SlurmEngine()
    killed.open(last_long, workers=1, threads=1)
    killed.submit(folder)
    with closing(SlurmEngine()) as engine:
        engine.open(last_long, workers=1, threads=1)
        assert run(engine, [folder]) == {folder: None}
    assert [job.name for job in jobs.iterdir()] == ["1"]


def test_a_preempted_job_is_lost_and_closing_cancels(jobs, tmp_path):
    folder = cell(tmp_path, "long")
    with closing(SlurmEngine()) as engine:
        engine.open(last_long, workers=1, threads=1)
        engine.submit(folder)
        wait_until(lambda: Path(folder, "pid").exists())
        (jobs / "1" / "state").write_text("PREEMPTED")
        [(told, error)] = engine.wait(60)
        assert told == folder
        assert isinstance(error, WorkerLostError)
        assert "PREEMPTED" in str(error)
        Path(folder, "pid").unlink()
        engine.submit(folder)
        pid = int(wait_until(lambda: Path(folder, "pid").exists() and Path(folder, "pid").read_text()))
    wait_until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_text())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"parameters": {"accoount": "vision"}}, "accoount"),
        ({"partition": "refused"}, "sbatch says 'sbatch: error: invalid partition specified'"),
    ],
)
def test_what_slurm_does_not_take_is_told(jobs, tmp_path, arguments, said):
    def begin():
        engine = SlurmEngine(**arguments)
        engine.open(last_long, workers=1, threads=1)
        engine.submit(cell(tmp_path, "cell"))

    with pytest.raises(UsageError, match=said):
        begin()


def test_a_machine_without_slurm_and_without_submitit_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="this one has no sbatch; cluster: local runs the jobs here"):
        SlurmEngine().open(last_long, workers=1, threads=1)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"pip install 'lightning-adv\[slurm\]'"):
        SlurmEngine().open(last_long, workers=1, threads=1)
