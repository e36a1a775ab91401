"""Several processes of one command, without Lightning: which end when which has ended, with which status and words."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

# Both wait in C code for ever, as in a collective operation that nobody else enters.
LAUNCHER = """
import os, subprocess, sys
from lightning_adv.commands.shared.processes import follow_launcher, keep_together
follow_launcher()
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=os.environ | {"LOCAL_RANK": "1"})
keep_together([child], lambda: " Go on so.")
print(child.pid, flush=True)
import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()
"""
CHILD = """
from lightning_adv.commands.shared.processes import follow_launcher, keep_together
follow_launcher()
keep_together([], lambda: " Go on so.")
print("ready", flush=True)
import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()
"""


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
@pytest.mark.parametrize(
    ("to", "number", "status", "words"),
    [
        ("launcher", signal.SIGTERM, 143, "^Stopped by SIGTERM. Go on so.$"),
        ("launcher", signal.SIGKILL, -9, r"^Process \d+, which launched this one \(rank 1\), has ended"),
        ("child", signal.SIGTERM, 143, r"^Rank 1 \(process \d+\) has ended by SIGTERM: the others end too. Go on so.$"),
        ("child", signal.SIGKILL, 137, r"^Rank 1 \(process \d+\) has ended by SIGKILL: the others end too. Go on so.$"),
    ],
)
def test_when_one_has_ended_all_end_and_say_why(to, number, status, words):
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, CHILD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines = sorted([launcher.stdout.readline().strip(), launcher.stdout.readline().strip()])
    child = int(lines[0])
    assert lines[1] == "ready"
    os.kill(launcher.pid if to == "launcher" else child, number)
    _, told = launcher.communicate(timeout=20)  # the child holds the other end of it too
    assert launcher.returncode == status
    assert re.search(words, told.strip())
    for _ in range(100):
        if not alive(child):
            break
        time.sleep(0.05)
    assert not alive(child)


def test_an_error_of_one_process_ends_the_others_with_its_status():
    launcher = subprocess.run(
        [sys.executable, "-c", LAUNCHER, "raise SystemExit(3)"], capture_output=True, text=True, timeout=20
    )
    assert launcher.returncode == 3
    assert "has ended with status 3: the others end too." in launcher.stderr


def test_a_process_that_something_else_started_outlives_it():
    """As under nohup: LOCAL_RANK is set by hand there, and the shell has ended."""
    shell = f"LOCAL_RANK=1 {sys.executable} -c '{CHILD}' & read line"
    started = subprocess.Popen(["bash", "-c", shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout.readline() == "ready\n"
    with open(f"/proc/{started.pid}/task/{started.pid}/children") as file:
        child = int(file.read().split()[0])
    started.kill()
    started.wait()
    time.sleep(0.6)
    assert alive(child)
    os.kill(child, signal.SIGKILL)


FAILING = """
import os, sys
from lightning_adv.commands.shared.processes import follow_launcher, let_launcher_end
follow_launcher()
print("ready", flush=True)
sys.stdin.read()
let_launcher_end()
print("it fails", file=sys.stderr, flush=True)
"""
FAILING_LAUNCHER = """
import os, subprocess, sys
from lightning_adv.commands.shared.processes import follow_launcher
follow_launcher()
environment = os.environ | {"LOCAL_RANK": "1"}
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=environment, stdin=subprocess.PIPE)
child.wait()
"""


def test_an_error_that_comes_from_the_launchers_end_is_told_as_such():
    """As where a collective operation fails at once: here the end of a pipe."""
    launcher = subprocess.Popen(
        [sys.executable, "-c", FAILING_LAUNCHER, FAILING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert launcher.stdout.readline() == "ready\n"
    launcher.kill()
    _, told = launcher.communicate(timeout=20)
    assert re.fullmatch(r"Process \d+, which launched this one \(rank 1\), has ended: it ends too\.\n", told)
