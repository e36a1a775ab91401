"""Cells as jobs of Slurm, through submitit."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Literal

from lightning_adv.core.errors import UsageError
from lightning_adv.studies.engines.base import Engine, WorkerLostError
from lightning_adv.studies.engines.place import InPlace

_LOOKS = 1.0  # seconds between two looks at the jobs' results; submitit asks Slurm itself less often
_LAST_LOOK = 5.0  # seconds: how long closing waits for the end of jobs, which Slurm may take half a minute to end


class SlurmEngine(Engine):
    """Runs each cell as a job of Slurm; at most as many as there are workers are queued or running.

    A job that Slurm stops for its time or for another job is queued again and goes on from the cell's last checkpoint;
    three times for its time, after which the cell has failed. Ctrl-C cancels the jobs. If the command is killed, they
    go on, and the same command started again waits for them. All nodes see the study's folder and the installed
    packages under the same paths. What a job prints before and after the cell is in the cell's folder, in ``slurm/``.

    Args:
        partition: Slurm's partition; default: the cluster's.
        timeout: Minutes that a job is given.
        gpus_per_cell: GPUs that a cell reserves.
        memory: Memory that a cell reserves, in GB; default: the cluster's.
        parameters: More of submitit's parameters of Slurm, such as ``account``, ``qos``, ``constraint``, ``setup``, or
            ``additional_parameters`` for any other option of ``sbatch``.
        cluster: ``local`` runs the jobs on this machine, without Slurm, to try a study.

    Example:
        >>> SlurmEngine(partition="gpu", timeout=120, gpus_per_cell=1, parameters={"account": "vision"})
        SlurmEngine(cluster='slurm', partition='gpu')
    """

    def __init__(
        self,
        partition: str | None = None,
        timeout: int = 240,
        gpus_per_cell: int = 0,
        memory: float | None = None,
        parameters: Mapping[str, Any] | None = None,
        cluster: Literal["slurm", "local"] = "slurm",
    ) -> None:
        self.cluster, self.partition = cluster, partition
        self._asked: dict[str, Any] = {"timeout_min": timeout, "gpus_per_node": gpus_per_cell or None, "mem_gb": memory}
        self._asked |= {
            f"slurm_{name}": value for name, value in {"partition": partition, **(parameters or {})}.items()
        }
        self._slots = 1
        self._jobs: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"SlurmEngine(cluster={self.cluster!r}, partition={self.partition!r})"

    @property
    def slots(self) -> int:
        """How many jobs are queued or running at once."""
        return self._slots

    def open(self, work: Callable[[str], None], *, workers: int, threads: int) -> None:
        """Check that there is a Slurm and that submitit knows the parameters.

        Raises:
            UsageError: submitit is not installed, this machine submits no jobs, or a parameter does not exist.
        """
        cloudpickle = _submitit().core.utils.cloudpickle
        missing = [name for name in ("sbatch", "srun", "sacct") if self.cluster == "slurm" and not shutil.which(name)]
        if missing:
            raise UsageError(
                f"engine: SlurmEngine needs a machine that submits jobs to Slurm, and this one has no {missing[0]}; "
                "cluster: local runs the jobs here."
            )
        self._slots = workers
        self._asked |= {"cpus_per_task": threads, "nodes": 1, "tasks_per_node": 1, "name": "lightning-adv"}
        self._job = Job(InPlace(cloudpickle.dumps(work)))
        with tempfile.TemporaryDirectory() as folder:
            self._executor(Path(folder))

    def submit(self, folder: str) -> None:
        """Queue a job for a cell, unless one that an earlier command has queued is still there.

        Raises:
            UsageError: Slurm refuses the job.
        """
        logs = Path(folder) / "slurm"
        job = self._left_by_another(logs)
        if job is None:
            try:
                job = self._executor(logs).submit(self._job, folder)
            except _submitit().core.utils.FailedJobError as error:
                raise UsageError(f"engine: sbatch says {' '.join(str(error).split())!r}.") from error
        self._jobs[folder] = job

    def wait(self, seconds: float) -> list[tuple[str, BaseException | None]]:
        """Wait for the jobs that have ended."""
        until = time.monotonic() + seconds
        while True:
            ended = [folder for folder, job in self._jobs.items() if job.done() or _preempted(job)]
            if ended or time.monotonic() >= until:
                return [(folder, _exception(self._jobs.pop(folder))) for folder in ended]
            time.sleep(max(0.0, min(_LOOKS, until - time.monotonic())))

    def close(self) -> None:
        """Cancel the jobs. Slurm ends them within its ``KillWait``, half a minute, for which a new study waits."""
        for job in self._jobs.values():
            job.cancel(check=False)
        until = time.monotonic() + _LAST_LOOK
        while any(not job.done() for job in self._jobs.values()) and time.monotonic() < until:
            time.sleep(0.05)
        self._jobs.clear()

    def _executor(self, folder: Path) -> Any:
        """Return what submits the job whose files are in a folder."""
        executor = _submitit().AutoExecutor(folder=folder, cluster=self.cluster)
        try:
            executor.update_parameters(**self._asked)
        except (NameError, AssertionError) as error:  # submitit's, of a name and of a value
            raise UsageError(f"engine: submitit says {' '.join(str(error).split())!r}.") from error
        return executor

    def _left_by_another(self, logs: Path) -> Any:
        """Return a cell's job that is queued or running; None if there is none."""
        for submitted in logs.glob("*_submitted.pkl") if self.cluster == "slurm" else ():
            job = _submitit().SlurmJob(logs, submitted.name.removesuffix("_submitted.pkl"))
            if not job.done(force_check=True) and not _preempted(job):
                return job
        return None


class Job:
    """What a job does: it is what submitit calls, and asks what to queue again."""

    def __init__(self, work: InPlace) -> None:
        self.work = work

    def __call__(self, folder: str) -> BaseException | None:
        """Run the cell, and return what it has raised."""
        # Lightning would take the job for one process of several, that Slurm has started; this name tells it not to
        os.environ["SLURM_JOB_NAME"] = "interactive"
        _end_at_once_when_stopped()
        return self.work(folder)

    def checkpoint(self, folder: str) -> Any:
        """Queue the same again, which goes on from the cell's checkpoint."""
        return _submitit().helpers.DelayedSubmission(self, folder)


def _end_at_once_when_stopped() -> None:
    """Let submitit's signal end the process: it raises SystemExit, which a cell may take for the end of its command."""
    number = getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"))
    requeue = signal.getsignal(number)

    def handle(signum: int, frame: FrameType | None) -> None:
        try:
            if callable(requeue):
                requeue(signum, frame)
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(int(end.code or 0) & 0xFF)

    signal.signal(number, handle)


def _preempted(job: Any) -> bool:
    """Whether Slurm has stopped a job for another one and has not queued it again; submitit waits until it does."""
    return bool(job.state.upper().startswith("PREEMPTED"))


def _exception(job: Any) -> BaseException | None:
    """Return what the work of a job that has ended has raised."""
    lost = _preempted(job)
    if lost:
        job.cancel(check=False)  # so that it is not queued again beside its successor
    error: BaseException | None = None if lost else job.exception()
    if lost or isinstance(error, _submitit().core.utils.UncompletedJobError):
        return WorkerLostError(f"job {job.job_id} has ended without a result (state {job.state})")
    if error is None:
        error = job.result()
    return error


def _submitit() -> ModuleType:
    """Import submitit."""
    try:
        import submitit
    except ImportError as error:
        raise UsageError("engine: SlurmEngine needs submitit: pip install 'lightning-adv[slurm]'.") from error
    module: ModuleType = submitit
    return module
