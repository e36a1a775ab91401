"""The page of a study as text: its table, its size, and that nothing in a study can become part of the page itself."""

import json
import shutil
from datetime import datetime

import pytest

from lightning_adv.report.page import build_page
from lightning_adv.report.runs import read_run_folder
from lightning_adv.report.studies import read_study_folder
from tests.report.fake_runs import write_run
from tests.report.fake_studies import SUBSETS, write_study
from tests.report.test_page import ATTACK, Page, rows

NOW = datetime(2026, 1, 2, 3, 4)


def page_of(*folders, runs=(), **options):
    studies = {folder.name: read_study_folder(folder) for folder in folders}
    found = [read_run_folder(run) for run in runs]
    return build_page([run.name for run in runs], found, built=NOW, studies=studies, **options)


def cells(text):
    """The rows of the table, without the first column."""
    return rows(text.split('<div class="scrolling tall"')[1].split("</table>")[0])


def test_the_table(tmp_path):
    status = {1: "failed", 2: "missing", 3: "begun"}
    folder = write_study(tmp_path / "study", {"eps": ["0.1", "0.2", "0.3", "0.4"]}, status=status, error="it is <NaN>")
    head, first, failed, missing, begun = cells(page_of(folder))
    assert head.startswith("Curvesepsseedstatusclean_accuracy%, 95 % intervalrobust_accuracy%")
    assert "low" not in head
    assert first.startswith("0.10done94.491.6 to 96.416.713.2 to 20.936012.2 s1 min 12 scells/retrain-")
    assert failed == "0.20failedretrain: it is <NaN>12.2 s"
    assert missing == "0.30missing12.2 s"
    assert begun == "0.40begun12.2 s"
    shutil.rmtree(folder / "cells")
    assert cells(page_of(folder))[1].startswith("0.10doneno training curves94.4")


def test_a_page_of_runs_alone_has_nothing_of_studies(tmp_path):
    page = Page(build_page(["a"], [read_run_folder(write_run(tmp_path / "a", analyses=()))], built=NOW))
    data = json.loads(page.scripts["report-data"])
    assert set(data) == {"reload", "runs", "themes", "forms", "results", "metrics", "sections"}
    assert not [a for _, a in page.tags if a.get("class") == "study"]


@pytest.mark.slow
def test_studies_and_runs(tmp_path):
    folders = [write_study(tmp_path / name, {"eps": ["1", "2"]}, title=f"Of {name}") for name in ("one", "other")]
    text = page_of(*folders, runs=[write_run(tmp_path / "alone")], left_out={"third": "RUN: it is damaged."})
    assert [line for line in ("Of one", "Of other", "Summary") if f"<h2>{line}</h2>" in text] == [
        *("Of one", "Of other", "Summary")
    ]
    assert "2 studies, 1 run · built" in text
    assert "<b>third</b> It is not shown: it is damaged." in text
    only = page_of(*folders, left_out={"third": "RUN: it is damaged."})
    assert "<b>third</b> It is not shown: it is damaged." in only
    assert "<h2>Summary</h2>" not in only


def test_nothing_from_a_study_becomes_part_of_the_page(tmp_path):
    harmless = Page(page_of(write_study(tmp_path / "study", {"a": ["b", "c"]}, epochs=1)))
    odd = ATTACK.replace("\n", "")
    folder = write_study(
        tmp_path / "other", {odd: ["</script>", odd]}, status={1: "failed"}, error=odd, title=odd, epochs=1
    )
    said = json.loads((folder / "study.json").read_text())
    said["stages"] = {odd: {"command": odd}, **said["stages"]}
    said["figure"] = {"kind": odd, "x": odd, "lines": odd, "y": [odd], "reference": {odd: odd}}
    said["cells"] = {odd: {"stage": odd, "names": {odd: odd}, "folder": odd, "status": odd}, **said["cells"]}
    said |= {"measures": [odd, "clean_accuracy", "run"]}
    (folder / "study.json").write_text(json.dumps(said))
    table = (folder / "study.csv").read_text().replace("failed", f'"{odd.replace(chr(34), chr(34) * 2)}"')
    (folder / "study.csv").write_text(table)
    run = folder / next(cell["folder"] for cell in said["cells"].values() if cell["folder"] != odd) / "version_0"
    (run / "metrics.csv").write_text(f'epoch,step,"{odd}"\n0,1,0.5\n')
    studies = {odd: read_study_folder(folder)}
    page = Page(build_page([], [], built=NOW, studies=studies))
    assert page.scripts.keys() == harmless.scripts.keys()
    assert page.scripts["code"] == harmless.scripts["code"]
    assert [tag for tag, _ in page.tags if tag in ("script", "img")] == [
        tag for tag, _ in harmless.tags if tag in ("script", "img")
    ]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert odd in page.texts  # as a reader would see it
    assert odd in {metric["name"] for metric in json.loads(page.scripts["study-0-runs"])["metrics"]}


@pytest.mark.slow
def test_200_cells_of_30_epochs_are_a_page_that_can_be_sent_by_mail(tmp_path):
    """Nothing of their curves is left out; Plotly alone is 4.7 MB."""
    grid = {"modules": SUBSETS, "eps": ["1", "2", "3"]}
    folder = write_study(tmp_path / "study", grid, epochs=30)
    text = page_of(folder)
    runs = json.loads(Page(text).scripts["study-0-runs"])["runs"]
    assert len(runs) == 190
    assert {len(values) for run in runs.values() for _, _, values in run} == {160}  # 30 numbers of four bytes
    assert len(text.encode()) < 6e6
