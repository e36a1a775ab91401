"""Run folders that somebody damaged: what cannot be read is named, the rest is shown, in little time."""

import contextlib
import json
import os
import time
from datetime import datetime

import pytest

from lightning_adv.report.page import build_page
from lightning_adv.report.runs import is_finished, read_run_folder, signature
from tests.report.fake_runs import png, write_run
from tests.report.test_page import ATTACK, Page

METRICS, RESULTS, CONFIG = "metrics.csv", "results.json", "config.yaml"
GAP, PICTURE = "analyses/bn_gap.csv", "figures/training_curves.png"
HEAD = "epoch,step,name,domain,statistic,value\n"
WIDE = HEAD + "0,9,bn1,,norm,1\n"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
BOMB += "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 12))

DAMAGE = {
    "yaml nested": (CONFIG, "[" * 200_000, "it is no YAML"),
    "yaml of itself": (CONFIG, "model: &a {b: {c: *a}}", "refers to itself"),
    "yaml merged with itself": (CONFIG, "model: &a {<<: *a, x: 1}", "refers to itself"),
    "yaml bomb": (CONFIG, BOMB, "more than 200,000 values"),
    "yaml key twice": (CONFIG, "model: {a: 1}\nmodel: {a: 2}\n", "the key model is given twice"),
    "yaml documents": (CONFIG, "a: 1\n---\nb: 2\n", "a second document, from line"),
    "yaml of code": (CONFIG, "a: !!python/object/apply:os.system [false]", "could not determine a constructor"),
    "yaml tag of another kind": (CONFIG, "a: !!bool maybe", "not of the kind that it is marked as"),
    "yaml hexadecimal": (CONFIG, "a: 0x" + "f" * 5000, "digits"),
    "yaml key that is a list": (CONFIG, "{[a]: 1}", "unhashable key"),
    "yaml nul": (CONFIG, "a: \0", "it is no YAML"),
    "yaml list": (CONFIG, "[1]", "it holds no settings"),
    "yaml large": (CONFIG, "a: 1\n" * 300_000, "larger than 1 MB"),
    "json nested": (RESULTS, "[" * 100_000, "nested too deeply"),
    "json list": (RESULTS, "[]", "it holds no results"),
    "json half": (RESULTS, '{"regime": "Mad', "it is no JSON"),
    "json latin-1": (RESULTS, '{"dataset": "zürich"}'.encode("latin-1"), "not UTF-8"),
    "json key twice": (RESULTS, '{"clean_accuracy": 0.1, "clean_accuracy": 0.9}', "clean_accuracy is given twice"),
    "json number": (RESULTS, '{"epochs": ' + "1" * 5000 + "}", "too many digits"),
    "csv wider": (METRICS, "epoch,step,a\n0,1,1\n1,2,3,4\n", "than there are columns are left out: 1, in line 3"),
    "csv narrower": (METRICS, "epoch,step,a\n0,1,1\n1,2\n", "than there are columns are left out: 1, in line 3"),
    "csv words": (METRICS, "epoch,step,a\n0,1,one\n1,2,two\n2,3,4\n", "left out: 2, the first a in line 2"),
    "csv column twice": (METRICS, "epoch,step,a,a,b\n0,1,1,2,3\n", "columns that stand twice are left out: 1, a"),
    "csv epoch twice": (METRICS, "epoch,step,epoch\n0,1,1\n", "it has no column epoch or step, or has it twice"),
    "csv epoch of words": (METRICS, "epoch,step,a\nfirst,1,1\n", "an epoch that cannot be are left out: 1, in line 2"),
    "csv epochs back": (METRICS, "epoch,step,a\n0,1,1\n1,2,1\n0,1,1\n", "epochs go back, and the curves with them: 1"),
    "csv quotation mark": (METRICS, 'epoch,step,a\n0,1,1\n1,2,"3\n2,3,4\n', "are left out: 1, in line 3"),
    "csv latin-1": (METRICS, "epoch,step,é\n0,1,1\n".encode("latin-1"), "not UTF-8: its byte 11 is 0xe9"),
    "csv nan": (METRICS, "epoch,step,a\n0,1,nan\n", "has 1 value that is NaN or infinite"),
    "table of other columns": (GAP, "epoch,step\n0,1\n", "its columns are ['epoch', 'step']"),
    "table wider": (GAP, WIDE + "1,19,bn1,,norm,1,2\n", "are left out: 1, in line 3"),
    "table narrower": (GAP, WIDE + "1,19,bn1\n", "are left out: 1, in line 3"),
    "table of words": (GAP, WIDE + "1,19,bn1,,norm,much\n", "without numbers where they belong are left out: 1"),
    "table with a step too large": (GAP, WIDE + f"1,{'9' * 30},bn1,,norm,1\n", "without numbers where they belong"),
    "table quotation mark": (GAP, WIDE + '1,19,"bn1,,norm,1\n2,29,bn1,,norm,1\n', "are left out: 1, in line 3"),
    "table of too many series": (GAP, HEAD + "".join(f"0,1,a{k},,norm,1\n" for k in range(100_001)), "than a page can"),
    "picture of text": (PICTURE, "no picture", "it is no PNG"),
    "picture with another byte": (PICTURE, png()[:50] + b"!" + png()[51:], "it is a damaged PNG"),
    "picture of pixels": (PICTURE, png(width=200_000, height=600), "it is of 200000 × 600 pixels"),
    "picture large": (PICTURE, png() + b"\0" * 20_000_000, "larger than 20 MB"),
}


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run", epochs=2, layers=("bn1",), channels=2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_is_named_and_the_rest_is_shown(folder, kind):
    name, content, reason = DAMAGE[kind]
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    run = shown(folder)
    assert list(run.damaged) == [name]
    (sentence,) = run.damaged[name]
    assert sentence.startswith(f"{name} ")
    assert reason in sentence
    assert len(sentence) < 450
    assert sentence.isprintable()
    assert run.missing == []
    assert (run.config is None) == (name == CONFIG)
    assert len(run.tables) >= 3


def shown(folder):
    """The run, which is read in some seconds."""
    begin = time.process_time()
    run = read_run_folder(folder)
    assert time.process_time() - begin < 5
    return run


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((CONFIG, kind) for kind in ("pipe", "device", "folder", "loop", "link out", "link to nothing")),
        *((name, "pipe") for name in ("config-resumed.yaml", METRICS, GAP, PICTURE)),
        *(("figures", kind) for kind in ("folder", "link out")),
        *((name, "link out") for name in (RESULTS, "analyses")),
    ],
)
def test_what_is_no_file_is_named_and_never_waited_for(folder, name, kind):
    path = folder / name
    if path.is_dir():
        path.rename(path.with_name("moved"))
    path.unlink(missing_ok=True)
    other = write_run(folder.parent / "other", epochs=1)
    place = {
        "pipe": os.mkfifo,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "folder": lambda path: path.mkdir() if path.suffix else path.write_text("a file in its place"),
        "loop": lambda path: path.symlink_to(path.name),
        "link out": lambda path: path.symlink_to(other / name),
        "link to nothing": lambda path: path.symlink_to("nowhere"),
    }
    place[kind](path)
    run = shown(folder)
    assert list(run.damaged) == [name]
    if kind == "link out":
        assert "it is a link that leads out of the run folder" in next(iter(run.damaged.values()))[0]
    assert is_finished(folder)
    assert signature(folder) == signature(folder)


def test_links_inside_the_folder_are_followed(folder):
    (folder / "metrics.csv").rename(folder / "old.csv")
    (folder / "metrics.csv").symlink_to("old.csv")
    link = folder.parent / "link"
    link.symlink_to(folder)
    run = shown(link)
    assert run.damaged == {}
    assert run.metrics


def test_a_byte_too_many_costs_one_cell(folder):
    before = read_run_folder(folder).metrics["train/loss"]
    lines = (folder / METRICS).read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b".", b"\xff", 1)
    (folder / METRICS).write_bytes(b"\n".join(lines))
    run = read_run_folder(folder)
    assert run.damaged[METRICS][0].startswith("metrics.csv is damaged: it is not UTF-8: its byte ")
    assert run.damaged[METRICS][1].endswith("cells that are no numbers are left out: 1, train/loss in line 3.")
    assert run.metrics["train/loss"] == before[1:]


def test_marks_and_ends_of_lines_of_other_systems_are_read(folder):
    before = read_run_folder(folder)
    for name in (METRICS, RESULTS, CONFIG, GAP):
        text = (folder / name).read_text()
        (folder / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    after = read_run_folder(folder)
    assert after.damaged == {}
    assert (after.metrics, after.results, after.config) == (before.metrics, before.results, before.config)
    assert after.tables.keys() == before.tables.keys()


def test_values_that_are_referred_to_are_read(folder):
    (folder / CONFIG).write_text("model: &a {eps: 1}\nother: *a\nthird: {<<: *a, steps: 2}\n")
    run = read_run_folder(folder)
    assert run.config == {"model.eps": "1", "other.eps": "1", "third.eps": "1", "third.steps": "2"}


def test_a_row_that_is_being_written_is_no_damage(folder):
    """Also where a crash left zeros at the end."""
    for end in ("3,199,,0.4", '3,"', "\0" * 4096):
        with (folder / METRICS).open("a") as file:
            file.write(end)
        run = read_run_folder(folder)
        assert run.damaged == {}
        assert len(run.metrics["train/loss"]) == 2


def test_a_run_that_has_just_begun_has_a_learning_rate_and_no_epoch(folder):
    (folder / METRICS).write_text("lr-SGD,step\n0.1,0\n")
    run = read_run_folder(folder)
    assert run.damaged == {}
    assert run.metrics == {"lr-SGD": [(0, 0.1)]}


@pytest.mark.slow
def test_many_rows(folder):
    lines = "".join(f"{k // 1000},{k},{k * 1e-3}\n" for k in range(200_000))
    (folder / METRICS).write_text("epoch,step,train/loss\n" + lines)
    begin = time.process_time()
    run = read_run_folder(folder)
    assert time.process_time() - begin < 5
    assert len(run.metrics["train/loss"]) == 200_000


@contextlib.contextmanager
def as_nobody(*folders):
    """Without the rights of root, whom no permission holds up."""
    root = os.geteuid() == 0
    for folder in folders:
        folder.chmod(0o755)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of another kind")
@pytest.mark.parametrize("name", [CONFIG, RESULTS, METRICS, "analyses", "figures"])
def test_what_nobody_may_read_is_named(folder, name):
    (folder / name).chmod(0)
    try:
        with as_nobody(*[parent for parent in folder.parents if str(parent).startswith("/tmp/")]):
            run = shown(folder)
    finally:
        (folder / name).chmod(0o755)
    assert all("Permission denied" in said for of in run.damaged.values() for said in of)
    assert list(run.damaged) == [name]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of another kind")
def test_a_folder_that_nobody_may_read_is_named(folder):
    folder.chmod(0)
    try:
        with (
            as_nobody(*[parent for parent in folder.parents if str(parent).startswith("/tmp/")]),
            pytest.raises(ValueError, match=r"nothing in .*run can be read: .*Permission denied"),
        ):
            read_run_folder(folder)
    finally:
        folder.chmod(0o755)


NAMES = [ATTACK.replace("/", "|"), "x" * 240, "a\nb", "\x1b[31m", "\udcff", "‮gnp", "__proto__"]


def test_no_name_is_more_than_text(folder):
    """Names of files, of layers and of metrics, and what a results.json says."""
    for name in NAMES:
        (folder / "figures" / f"{name}.png").write_bytes(png())
        (folder / "figures" / f"{name}!.png").write_bytes(b"")
    results = json.loads((folder / RESULTS).read_text())
    (folder / RESULTS).write_text(json.dumps(results | {"regime": "\ud800" + ATTACK, "domains": {"": {}, ATTACK: {}}}))
    with (folder / GAP).open("a") as file:
        file.write(f"0,9,{ATTACK},{ATTACK},{ATTACK},1\n")
    run = shown(folder)
    assert len(run.figures) == 1 + len(NAMES)
    assert [len(said) for said in run.damaged.values()] == [1] * len(NAMES)
    assert all(said.isprintable() for (said,) in run.damaged.values())
    text = build_page([NAMES[0] + "\udcff"], [run], built=datetime(2026, 1, 2))
    page = Page(text.encode().decode())
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 8
    assert not [tag for tag, attributes in page.tags if tag == "img" or any(name[:2] == "on" for name in attributes)]
    assert set(json.loads(page.scripts["figures-0"])) == {"training_curves", *NAMES}
    shown_result = json.loads(page.scripts["report-data"])["results"][0]["data"][0]
    assert shown_result["x"] == [100 * results["clean_accuracy"]]


def test_the_page_says_what_cannot_be_read_and_the_status_does_not_promise(folder):
    (folder / RESULTS).write_text('{"regime": "Mad')
    (folder / CONFIG).write_text("model: [")
    text = " ".join(
        "".join(Page(build_page(["a"], [read_run_folder(folder)], built=datetime(2026, 1, 2))).texts).split()
    )
    assert "What cannot be read or shown" in text
    assert "a results.json cannot be read (it is no JSON: Unterminated string" in text
    assert "a config.yaml cannot be read (it is no YAML:" in text
    assert "results cannot be read: epoch 2" in text
    assert "no results yet" not in text
    assert "the run goes on" not in text


@pytest.mark.slow
def test_a_long_setting_is_cut_on_the_page(folder):
    (folder / CONFIG).write_text(json.dumps({"model": {"class_names": list(range(20_000))}}))
    text = build_page(["a"], [read_run_folder(folder)], built=datetime(2026, 1, 2))
    assert "(128,890 characters)" in text
