import os
import subprocess
import sys

import pytest

from lightning_adv.core.streams import output_into

PRINT = """
import sys
sys.argv = ["lightning-adv", "report", "x"]
from lightning_adv import cli
from lightning_adv.commands import running
def run(arguments):
    from rich.console import Console
    from rich.table import Table
    table = Table(title="5 × 5 – 90 °")
    table.add_row("é", "ε")
    for _ in range(3000):
        Console().print(table)
    print("to the end: 8 × 8", file=sys.stderr)
running._load = lambda *_: run
cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_no_encoding_ends_a_command(encoding):
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    ended = subprocess.run([sys.executable, "-c", PRINT], env=environment, capture_output=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert b"to the end: 8 " in ended.stderr
    assert b"5 ? 5" in ended.stdout or "5 × 5".encode(encoding, errors="ignore") in ended.stdout


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_no_command():
    process = subprocess.Popen([sys.executable, "-c", PRINT], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert "to the end" in process.stderr.read().decode()
    assert process.wait() == 0


@pytest.mark.slow
def test_a_full_disk_under_the_output_ends_no_command():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with open("/dev/full", "w") as full:
        ended = subprocess.run([sys.executable, "-c", PRINT], stdout=full, stderr=subprocess.PIPE)
    assert ended.returncode == 0
    assert b"to the end" in ended.stderr


def test_all_output_of_a_block_goes_into_a_file(tmp_path, capfd):
    (log := tmp_path / "log.txt").write_text("before\n")
    print("outside")
    with output_into(log):
        print("printed")
        os.write(1, b"written\n")
        os.write(2, b"written as an error\n")
        subprocess.run(["echo", "by a process"], check=True)
        print("told: 8 × 8", file=sys.stderr)
    print("outside again")
    said = ["before", "printed", "written", "written as an error", "by a process", "told: 8 × 8"]
    assert log.read_text().splitlines() == said
    assert capfd.readouterr().out.splitlines() == ["outside", "outside again"]


def test_output_goes_back_where_it_went_after_an_error(tmp_path, capfd):
    def fail():
        with output_into(tmp_path / "log.txt"):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 (ours)
        fail()
    os.write(1, b"outside\n")
    print("printed")
    assert sorted(capfd.readouterr().out.splitlines()) == ["outside", "printed"]
