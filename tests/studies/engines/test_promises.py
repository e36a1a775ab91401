"""Every engine keeps the same promises; test_ray.py has that of Ray."""

import pytest

from lightning_adv.studies.engines.base import Engine, WorkerLostError
from lightning_adv.studies.engines.local import LocalEngine
from lightning_adv.studies.engines.slurm import SlurmEngine
from lightning_adv.testing import check_engine


@pytest.mark.slow
@pytest.mark.parametrize("engine", [LocalEngine(), SlurmEngine(cluster="local")], ids=["local", "slurm"])
def test_engines_of_this_package(engine, tmp_path):
    check_engine(engine, tmp_path)


class InThisProcess(Engine):
    """An engine of one's own, which would keep all promises if its cells did not end with this process."""

    slots = 1

    def open(self, work, *, workers, threads):
        self.work, self.ended = work, []

    def submit(self, folder):
        error = None
        try:
            if folder.endswith("die"):
                raise WorkerLostError("it died")
            self.work(folder)
        except Exception as raised:
            error = raised
        self.ended.append((folder, error))

    def wait(self, seconds):
        ended, self.ended = self.ended, []
        return ended

    def close(self):
        pass


class RunsTwice(InThisProcess):
    def submit(self, folder):
        if "write" in folder:
            self.work(folder)
        super().submit(folder)


class TellsTwice(InThisProcess):
    def submit(self, folder):
        super().submit(folder)
        self.ended *= 2


class TellsNoError(InThisProcess):
    def wait(self, seconds):
        return [(folder, None) for folder, _ in super().wait(seconds)]


class TellsNoLoss(InThisProcess):
    def wait(self, seconds):
        return [(folder, RuntimeError(error) if error else None) for folder, error in super().wait(seconds)]


class Elsewhere(InThisProcess):
    def submit(self, folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir("/")
            super().submit(folder)


@pytest.mark.parametrize(
    ("engine", "promise"),
    [
        (RunsTwice(), "Each cell runs once"),
        (TellsTwice(), "Each cell runs once"),
        (Elsewhere(), "working directory"),
        (TellsNoError(), "What the work raises is told"),
        (TellsNoLoss(), "What the work raises is told"),
    ],
)
def test_a_broken_promise_is_named(engine, promise, tmp_path):
    with pytest.raises(AssertionError, match=promise):
        check_engine(engine, tmp_path)
