"""What workers do in the tests of engines; processes import it by its name."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def write_environment(folder):
    told = {name: os.environ.get(name) for name in NAMES} | {"pid": os.getpid(), "torch": "torch" in sys.modules}
    Path(folder, "told.json").write_text(json.dumps(told))
    time.sleep(0.3)  # the other worker has the other cell


class UnpicklableError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def fail(folder):
    raise {"value": ValueError("no"), "own": UnpicklableError(1, 2), "exit": SystemExit(3)}[Path(folder).name]


def die_once(folder):
    """Die the first time, as by a crash in native code."""
    if not (died := Path(folder, "died")).exists():
        died.touch()
        os.abort()
    Path(folder, "lived").touch()


def hang(folder):
    """Take for ever, beside a process that does too."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    Path(folder, "pids.part").write_text(f"{os.getpid()} {child.pid}")
    Path(folder, "pids.part").rename(Path(folder, "pids"))
    child.wait()
