"""The page of what ``lightning-adv interpret`` wrote."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from torch import nn

from lightning_adv.attacks import FGSM
from lightning_adv.cli import main
from lightning_adv.core.files import write_whole
from lightning_adv.interpretation import Finding, interpret
from lightning_adv.interpretation.written import write_sections
from lightning_adv.report.interpretations import COLUMNS, read_interpretation_folder
from tests.interpretation.own_sections import Brightness


@pytest.fixture
def folder(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    found = interpret({"a&b": network, "c": network}, x, y, {"fgsm": FGSM()}, [Brightness()])
    found["brightness"].findings.append(Finding("c", "clean", "conv1", "share", 0.5, 0.25, 0.75, 3))
    folder = tmp_path / "interpretation"
    told = {
        "images": 3, "networks": {"a&b": {"checkpoint": "a.ckpt"}, "c": {"checkpoint": "c.ckpt"}},
        "attacks": {"fgsm": {"class_path": "FGSM"}}, "sections": write_sections(found, folder),
    }  # fmt: skip
    write_whole(folder / "interpretation.json", json.dumps(told))
    return folder


def page(folder, *others):
    main(["report", str(folder), *map(str, others), "-o", str(folder.parent / "page.html")])
    return (folder.parent / "page.html").read_text()


def test_numbers_and_pictures_of_all_networks_are_side_by_side(folder):
    html = page(folder)
    section = html.partition('<section id="interpretation-0">')[2].partition("</section>")[0]
    assert "a&amp;b, c on 3 images, under fgsm." in section
    assert re.findall(r'<th scope="col" class="number">(.*?)</th>', section) == ["a&amp;b", "c"]
    row = "<td>clean</td><td>conv1</td><td>Share</td>"
    assert f'{row}<td class="number"></td><td class="number">0.5 <small>0.25 to 0.75</small></td>' in section
    assert section.count('src="data:image/png;base64,') == 1
    assert "1 interpretation ·" in html


def test_columns_are_those_that_are_written():
    assert Finding._fields == COLUMNS


def test_a_run_and_an_interpretation_are_on_one_page(folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.csv").write_text("epoch,step,train/loss\n0,9,0.5\n1,19,0.25\n")
    html = page(folder, run)
    assert "1 interpretation, 1 run ·" in html


def damage_table(folder):
    with (folder / "brightness.csv").open("a") as file:
        file.write("c,clean,,share,many,,,3\nc,clean\n")


def lose_table(folder):
    (folder / "brightness.csv").unlink()


def cut_picture(folder):
    picture = folder / "figures" / "brightness_line.png"
    picture.write_bytes(picture.read_bytes()[:-20])


def strange_section(folder):
    told = json.loads((folder / "interpretation.json").read_text())
    told["sections"]["../../secret"] = {"table": "../../secret.csv"}
    (folder / "interpretation.json").write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("damage", "told"),
    [(damage_table, "rows without numbers where they belong are left out"), (lose_table, "There is no brightness.csv"),
     (cut_picture, "it is no whole PNG"), (strange_section, "is no name of one")],
)  # fmt: skip
def test_what_is_damaged_is_told_and_the_rest_is_shown(damage, told, folder):
    damage(folder)
    html = page(folder)
    assert told in html
    assert '<section id="interpretation-0">' in html


@pytest.mark.parametrize("content", ["[1]", "{", '{"sections": {}}'])
def test_what_describes_no_interpretation_is_one_line(content, folder, capsys):
    (folder / "interpretation.json").write_text(content)
    with pytest.raises(SystemExit) as ended:
        page(folder)
    error = capsys.readouterr().err.splitlines()
    assert (ended.value.code, len(error)) == (1, 1)
    assert "interpretation.json" in error[0]


def test_pictures_belong_to_the_section_with_the_longer_name(folder):
    told = json.loads((folder / "interpretation.json").read_text())
    told["sections"]["brightness_of"] = {"table": "brightness_of.csv"}
    (folder / "interpretation.json").write_text(json.dumps(told))
    shutil.copy(folder / "brightness.csv", folder / "brightness_of.csv")
    shutil.copy(folder / "figures" / "brightness_line.png", folder / "figures" / "brightness_of_ink.png")
    found = read_interpretation_folder(folder)
    assert {name: list(section.pictures) for name, section in found.sections.items()} == {
        "brightness": ["line"], "brightness_of": ["ink"],
    }  # fmt: skip
