import os
import re
import signal
import subprocess
import sys

import pytest

from lightning_adv.core.files import clear_unfinished, set_aside, write_whole, writing
from tests.faults.disk import full_disk


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_files_are_set_aside_under_new_names(tmp_path):
    for number in (1, 2):
        (tmp_path / "results.json").write_text(str(number))
        assert set_aside(tmp_path / "results.json") == tmp_path / f"results-until-resume-{number}.json"
    assert contents(tmp_path) == {"results-until-resume-1.json": "1", "results-until-resume-2.json": "2"}
    assert set_aside(tmp_path / "results.json") is None


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "table.csv"
    write_whole(path, "one")
    write_whole(path, b"two")
    assert contents(path.parent) == {"table.csv": "two"}
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "three")
    assert path.read_text() == "two"


def test_nothing_set_aside_is_overwritten(tmp_path):
    for text in ("a", "b", "c"):
        (tmp_path / "table.csv").write_text(text)
        set_aside(tmp_path / "table.csv")
    (tmp_path / "table-until-resume-1.csv").unlink()
    (tmp_path / "table.csv").write_text("d")
    set_aside(tmp_path / "table.csv")
    assert sorted(contents(tmp_path).values()) == ["b", "c", "d"]


def test_a_link_is_followed_and_a_pipe_left_alone(tmp_path):
    (tmp_path / "link.html").symlink_to(tmp_path / "page.html")
    write_whole(tmp_path / "link.html", "one")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "page.html").read_text() == "one"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is no file that could be written"):
        write_whole(tmp_path / "pipe", "one")
    assert (tmp_path / "pipe").is_fifo()


def test_a_full_disk_is_told_by_the_files_name_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "table.csv"
    write_whole(path, "one")
    with full_disk(1000), pytest.raises(OSError, match=re.escape(str(path))):
        write_whole(path, "x" * 2000)
    assert contents(tmp_path) == {"table.csv": "one"}


WRITER = """
import sys, time
from pathlib import Path
from lightning_adv.core.files import writing
with writing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_cleared_and_what_is_being_written_is_not(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "a.csv"], stdout=subprocess.PIPE)
    assert killed.stdout.readline()
    clear_unfinished(tmp_path)
    (half,) = tmp_path.iterdir()  # it is being written
    assert half.read_bytes() == b"half"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (tmp_path / "mine.part").touch()
    with writing(tmp_path / "b.csv") as file:
        clear_unfinished(tmp_path, "c.csv")
        assert half.exists()
        clear_unfinished(tmp_path)
        file.write(b"whole")
    assert contents(tmp_path) == {"b.csv": "whole", "mine.part": ""}
