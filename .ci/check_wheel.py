"""Look at what is in a built wheel, and run the main command from it alone, in a fresh environment.

Usage: ``python3 check_wheel.py FOLDER``. The folder holds the wheel and gets the environment. Needs nothing but Python.
"""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def packed(path: str) -> str | None:
    """Return where a file of the repository must be in the wheel; None where it must not be there."""
    assets = path.startswith("lightning_adv/report/assets/")
    return (
        path if path.startswith("lightning_adv/") and (assets or path.endswith((".py", "py.typed", ".yaml"))) else None
    )


def check_contents(wheel: Path) -> None:
    """Compare the wheel's files with those that git tracks: what setuptools misses, it misses silently."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    expected = {name for path in tracked.splitlines() if (name := packed(path)) is not None}
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    if expected != found:
        raise SystemExit(f"Missing in the wheel: {sorted(expected - found)}; too much: {sorted(found - expected)}")


def check_run(wheel: Path, folder: Path) -> None:
    """Install the wheel alone, and train from a folder that is not the repository."""
    venv.create(folder / "venv", with_pip=True)
    bin_ = folder / "venv" / "bin"
    subprocess.run([bin_ / "pip", "install", "--quiet", wheel], check=True)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    command = [bin_ / "lightning-adv", "fit", "--config", "digits/madry", "--trainer.max_epochs=1"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([*command, "--trainer.enable_progress_bar=false"], cwd=elsewhere, env=clean, check=True)
    subprocess.run(
        [bin_ / "lightning-adv", "report", "runs/digits-madry/version_0"], cwd=elsewhere, env=clean, check=True
    )
    results = json.loads((elsewhere / "runs/digits-madry/version_0/results.json").read_text())
    print(f"The wheel trains: {results['regime']}, {results['clean_accuracy']:.3f} clean after one epoch.")


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    (built,) = target.glob("*.whl")
    check_contents(built)
    check_run(built, target)
