"""Installed packages that announce parts, without an installation: a module and its metadata in a folder."""

from pathlib import Path


def install(folder: Path, name: str, entries: dict[str, str], modules: dict[str, str], version: str = "1.0") -> None:
    """Write a package as pip leaves it.

    Args:
        folder: A folder on ``sys.path``.
        name: The distribution's name.
        entries: What it announces: names and the paths that they stand for.
        modules: The files, such as ``my_package/attacks.py``, and what is in them.
        version: The distribution's version.
    """
    for path, text in modules.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{key} = {value}" for key, value in entries.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[lightning_adv.plugins]", *lines, ""]))
