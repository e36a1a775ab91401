import os
import re
import signal
import subprocess
import sys

import pytest

from lightning_adv.core.locks import alone

HOLDER = """
import sys, time
from pathlib import Path
from lightning_adv.core.locks import alone
with alone(Path(sys.argv[1]), "it", instead="go"):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    return process


def test_the_second_is_told_who_holds_it_until_that_process_is_killed(tmp_path):
    path = tmp_path / "new" / ".lock"
    holder = hold(path)
    told = rf"output: x is being written by process {holder.pid} on \S+, since 20.*: wait until .*, or give more\."
    with pytest.raises(ValueError, match=told), alone(path, "output: x", instead="give more"):
        pass
    assert holder.poll() is None
    assert path.is_file(), "that of the other is left alone"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with alone(path, "output: x", instead="give more"):
        assert re.search(rf'"pid": {os.getpid()}\b', path.read_text())
    assert not path.exists()


@pytest.mark.slow
def test_waiting_for_one_that_ends(tmp_path):
    holder = hold(tmp_path / ".lock")
    subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {holder.pid}"])
    with alone(tmp_path / ".lock", "x", instead="go", wait=10):
        pass
    holder.communicate()


def test_folders_that_were_made_for_it_go_unless_something_is_in_them(tmp_path):
    for name in ("", "kept"):
        with alone(tmp_path / "a" / "b" / ".lock", "x", instead="go"):
            if name:
                (tmp_path / "a" / name).touch()
        assert (tmp_path / "a").exists() == bool(name)
    assert not (tmp_path / "a" / "b").exists()


def test_a_forked_process_that_stays_holds_nothing(tmp_path):
    """A loader's worker may outlive a process that is killed."""
    with alone(tmp_path / ".lock", "x", instead="go"):
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        with alone(tmp_path / ".lock", "x", instead="go"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
