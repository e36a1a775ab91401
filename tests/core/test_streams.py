import os
import subprocess
import sys

import pytest

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
