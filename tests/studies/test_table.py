"""The table of a study: the numbers of the result files, to the bit, and what is told of those that cannot be read."""

import csv
import json
import math
import shutil
from pathlib import Path

import pytest

from lightning_adv.core.errors import UsageError
from lightning_adv.core.shares import Share
from lightning_adv.core.threat_model import ThreatModel
from lightning_adv.studies.attempts import result_of
from lightning_adv.studies.collect import CollectPath, NotThereError, parse_collect, to_number
from lightning_adv.studies.results import CellReader, StageResult
from lightning_adv.studies.rows import TablePoint, build_table
from lightning_adv.studies.table import check_columns, expected_measures, interval_columns, read_study_folder

FIXTURES = Path(__file__).parents[1] / "fixtures" / "v0.1.0"
STAGES = {"pretrain": "fit", "retrain": "fit", "attacked": "evaluate", "moved": "transfer"}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def fit_results(clean, robust, total=360, **more):
    shares = {"clean": Share(clean, total), "robust": Share(robust, total)}
    told = {f"{kind}_accuracy": share.accuracy for kind, share in shares.items()}
    told |= {f"{kind}_interval": list(share.interval) for kind, share in shares.items()}
    return {"test_images": total, **told, **more}


def evaluation(clean, *robust, total=100):
    models = [
        {"norm": "linf", "eps": eps, "all_or_nothing": Share(correct, total).to_plain()} for eps, correct in robust
    ]
    return {"clean": Share(clean, total).to_plain(), "threat_models": models}


@pytest.fixture
def cell(tmp_path):
    """Writes the folder of a cell, and returns it as the result of a stage."""

    def make(name, command, content, status="done", seconds=None):
        folder = tmp_path / "study" / "cells" / name
        if content is not None:
            write(result_of(folder, command), content)
        if seconds is not None:
            write(folder / "seconds.json", {"seconds": seconds})
        return StageResult(command, status, folder)

    return make


def table(points, tmp_path, *, axes=("cutoff",), stages=None, collect=None, **more):
    stages = stages or {stage: result.command for point in points for stage, result in point.stages.items()}
    paths = parse_collect(collect or {}, stages)
    return build_table(points, axes=axes, stages=stages, collect=paths, folder=tmp_path / "study", **more)


# Numbers --------------------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_last_fit_stage_to_the_bit_and_come_back_so(cell, tmp_path):
    own = fit_results(271, 113)
    points = [
        TablePoint({"setting": "before", "cutoff": "m1"}, 0, {
            "pretrain": cell("pre", "fit", fit_results(1, 0), seconds=2.5),
            "retrain": cell("re", "fit", own, seconds=1 / 3),
        }),
        TablePoint({"setting": "only pretrained"}, 0, {"pretrain": cell("pre", "fit", fit_results(1, 0), seconds=2.5)}),
    ]  # fmt: skip
    found = table(points, tmp_path, axes=("setting", "cutoff"), stages={"pretrain": "fit", "retrain": "fit"})
    first, second = found.rows
    for kind in ("clean", "robust"):
        assert first[f"{kind}_accuracy"] == own[f"{kind}_accuracy"]
        assert [first[f"{kind}_low"], first[f"{kind}_high"]] == own[f"{kind}_interval"]
        assert interval_columns(f"{kind}_accuracy") == (f"{kind}_low", f"{kind}_high")
    assert first["run"] == "cells/re/version_0"
    assert second["clean_accuracy"] == 1 / 360  # where the stage is left out, the last that there is
    assert second["run"] == "cells/pre/version_0"
    assert found.columns == (
        "setting", "cutoff", "seed", "status", "clean_accuracy", "clean_low", "clean_high", "robust_accuracy",
        "robust_low", "robust_high", "test_images", "pretrain_seconds", "retrain_seconds", "run",
    )  # fmt: skip
    assert found.measures == ("clean_accuracy", "robust_accuracy")
    assert found.told == ()
    found.write(tmp_path / "study")
    back = read_study_folder(tmp_path / "study")
    assert (back.axes, back.columns, back.measures) == (found.axes, found.columns, found.measures)
    assert back.rows == found.rows
    assert back.to_csv() == found.to_csv()


def test_python_s_own_reader_and_pandas_read_the_file(cell, tmp_path):
    pandas = pytest.importorskip("pandas")
    table([TablePoint({"cutoff": "m0+m2"}, 3, {"fit": cell("a", "fit", fit_results(10, 7))})], tmp_path).write(tmp_path)
    with (tmp_path / "study.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["robust_accuracy"]) == 7 / 360
    assert pandas.read_csv(tmp_path / "study.csv")["robust_accuracy"][0] == pytest.approx(7 / 360, rel=1e-15)


def test_domains_have_columns_of_their_own(cell, tmp_path):
    folder = cell("advprop", "fit", None).folder
    shutil.copytree(FIXTURES / "advprop", folder / "version_0")
    written = json.loads((folder / "version_0" / "results.json").read_text())
    (row,) = (found := table([TablePoint({}, 0, {"fit": StageResult("fit", "done", folder)})], tmp_path)).rows
    for domain in ("main", "adversarial"):
        assert row[f"{domain}_robust_accuracy"] == written["domains"][domain]["robust_accuracy"]
        assert row[f"{domain}_clean_high"] == written["domains"][domain]["clean_interval"][1]
    assert "adversarial_robust_accuracy" in found.measures
    assert "adversarial_robust_low" not in found.measures


def test_an_evaluation_has_its_worst_case_and_radii_only_where_there_are_several(cell, tmp_path):
    folder = cell("attacked", "evaluate", None).folder
    shutil.copytree(FIXTURES / "madry" / "evaluation-quick", folder / "result")
    one = StageResult("evaluate", "done", folder)
    several = cell("radii", "evaluate", evaluation(90, (0.1, 40), (8 / 255, 60)))
    (row,) = table([TablePoint({}, 0, {"attacked": one})], tmp_path).rows
    assert (row["attacked_clean_accuracy"], row["attacked_robust_accuracy"]) == (0.75, 0.18)
    assert row["attacked_robust_low"] == Share(18, 100).interval[0]
    found = table([TablePoint({}, 0, {"attacked": several}), TablePoint({}, 1, {"attacked": one})], tmp_path)
    assert found.rows[0]["attacked_robust_accuracy_Linf_8/255"] == 0.6
    assert found.rows[0]["attacked_robust_high_Linf_0.1"] == Share(40, 100).interval[1]
    assert found.rows[1]["attacked_robust_accuracy_Linf_0.2"] == 0.18
    assert ThreatModel.parse("Linf 8/255") == ThreatModel("linf", 8 / 255)
    assert interval_columns("attacked_robust_accuracy_Linf_0.1")[1] == "attacked_robust_high_Linf_0.1"


def test_a_grid_over_the_radius_has_one_column(cell, tmp_path):
    points = [
        TablePoint({"cutoff": str(eps)}, 0, {"attacked": cell(f"{eps}", "evaluate", evaluation(90, (eps, 50)))})
        for eps in (0.1, 0.2)
    ]
    found = table(points, tmp_path)
    assert [row["attacked_robust_accuracy"] for row in found.rows] == [0.5, 0.5]
    assert not any("Linf" in column for column in found.columns)


def test_the_rates_of_a_transfer_are_over_all_pairs_of_two_networks(cell, tmp_path):
    rows = [("a", "a", 9), ("a", "b", 2), ("b", "a", 5), ("b", "b", 8)]
    rates = [{"source": s, "target": t, "white_box": s == t, "fooled": n, "total": 10} for s, t, n in rows]
    (row,) = table([TablePoint({}, 0, {"moved": cell("t", "transfer", {"rates": rates})})], tmp_path).rows
    assert row["moved_black_box_rate"] == (2 + 5) / 20
    assert row["moved_white_box_rate"] == (9 + 8) / 20


# What is not there ----------------------------------------------------------------------------------------------------


def test_cells_that_have_not_ended_are_empty_and_all_columns_are_there(cell, tmp_path):
    points = [
        TablePoint({"cutoff": "m0"}, 0, {
            "pretrain": cell("p", "fit", None, "failed", seconds=4), "retrain": cell("r", "fit", None, "waits"),
        }),
        TablePoint({"cutoff": "m1"}, 0, {"retrain": cell("b", "fit", None, "begun")}),
        TablePoint({"cutoff": "m2"}, 0, {"retrain": cell("m", "fit", None, "missing")}),
    ]  # fmt: skip
    found = table(points, tmp_path, stages=STAGES)
    assert [row["status"] for row in found.rows] == ["failed", "begun", "missing"]
    assert found.rows[0]["pretrain_seconds"] == 4  # of the attempts that failed
    assert found.rows[0]["run"] is None
    assert found.rows[1]["run"] == "cells/b/version_0"
    assert {"attacked_robust_high", "moved_black_box_rate", "robust_accuracy", "moved_seconds"} <= set(found.columns)
    assert found.measures == tuple(expected_measures(STAGES))
    assert found.told == ()


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"clean_accuracy": 1e999}', "\x00", '{"test_images": "many"}'], ids=repr
)
def test_damaged_results_are_told_and_never_end_a_study(cell, tmp_path, content):
    """Those that cannot be read are failures (test_attempts); here they were damaged after they were looked at."""
    points = [
        TablePoint({"cutoff": "m0"}, 0, {"fit": cell("bad", "fit", content)}),
        TablePoint({"cutoff": "m1"}, 0, {"fit": cell("good", "fit", fit_results(9, 3))}),
    ]
    found = table(points, tmp_path)
    assert found.rows[0]["clean_accuracy"] is None
    assert found.rows[1]["clean_accuracy"] == 9 / 360
    assert len(found.told) == 1
    assert "bad" in found.told[0]
    assert "results.json" in found.told[0]


def test_a_value_of_another_kind_is_left_out_alone(cell, tmp_path):
    content = fit_results(9, 3) | {"clean_accuracy": "90 %", "robust_interval": [0.5]}
    found = table([TablePoint({}, 0, {"fit": cell("odd", "fit", content)})], tmp_path)
    assert found.rows[0]["robust_accuracy"] == 3 / 360
    assert [found.rows[0][column] for column in ("clean_accuracy", "clean_low", "robust_low")] == [None] * 3
    assert found.told == (
        "values in results.json that are of another kind are left out: 2, the first clean_accuracy of odd",
    )


def test_a_reader_reads_each_result_once_and_sees_what_ends_later(cell, tmp_path, monkeypatch):
    reader = CellReader({})
    done = TablePoint({"cutoff": "m0"}, 0, {"fit": cell("done", "fit", fit_results(9, 3))})
    pending = TablePoint({"cutoff": "m1"}, 0, {"fit": cell("later", "fit", None, "missing")})
    assert table([done, pending], tmp_path, reader=reader).rows[1]["clean_accuracy"] is None
    shutil.rmtree(done.stages["fit"].folder)  # not looked at again
    ended = TablePoint({"cutoff": "m1"}, 0, {"fit": cell("later", "fit", fit_results(8, 2))})
    rows = table([done, ended], tmp_path, reader=reader).rows
    assert [row["clean_accuracy"] for row in rows] == [9 / 360, 8 / 360]


@pytest.mark.parametrize(
    "content",
    [None, "", "a,b\n1,2\n", "cutoff,seed,status,seed\n", b"\xff\xfe", "cutoff,seed\n"],
    ids=["none", "empty", "other", "twice", "bytes", "no status"],
)
def test_what_is_no_table_of_a_study_is_one_sentence(tmp_path, content):
    if content is not None:
        (tmp_path / "study.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=r"study\.csv is not the table of a study"):
        read_study_folder(tmp_path)


def test_damaged_lines_and_a_damaged_description_are_told(tmp_path):
    (tmp_path / "study.csv").write_text("cutoff,seed,status,loss\nm0,0,done,0.5\nm1,0\nm2,0,done,\nunfinished")
    (tmp_path / "study.json").write_text("{")
    found = read_study_folder(tmp_path)
    assert [row["loss"] for row in found.rows] == [0.5, None]
    assert found.measures == ("loss",)
    assert len(found.told) == 2


# What is collected ----------------------------------------------------------------------------------------------------

CONTENT = {
    "a": {"b": [{"eps": 8 / 255, "name": "x.y", "ok": True, "none": None}, {"eps": 0.2, "name": "z"}]},
    "n": [[1, 2], [3, 4]],
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("s:a.b[eps=8/255].name", "x.y"),
        ("s:a.b[name=x.y].eps", 8 / 255),
        ("s:a.b[eps=0.2,name=z].eps", 0.2),
        ("s:a.b[ok=true].name", "x.y"),
        ("s:a.b[none=null].name", "x.y"),
        ("s:a.b[-1].name", "z"),
        ("s:n[1][0]", 3),
    ],
)
def test_a_path_finds_what_python_finds(path, value):
    assert CollectPath.parse(path).find(CONTENT) == value


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("s:a.c", "there is no 'c'"),
        ("s:a.b[name=q]", "no items are"),
        ("s:a.b.c", "there is no 'c'"),
        ("s:a.b[7]", "no item 7 among 2"),
        ("s:a[0]", "there is no list"),
        ("s:n[0].x", "there is no 'x'"),
    ],
)
def test_a_path_that_leads_nowhere_says_at_which_step(path, told):
    with pytest.raises(NotThereError, match=told):
        CollectPath.parse(path).find(CONTENT)
    twice = {"a": [{"k": 1}, {"k": 1}]}
    with pytest.raises(NotThereError, match="2 items"):
        CollectPath.parse("s:a[k=1]").find(twice)


@pytest.mark.parametrize(
    "path", ["", "a.b", "s:", ":a", "s:a..b", "s:a[", "s:a]b", "s:a[b]", "s:a[=1]", "s:a[]", 3, None]
)
def test_a_path_that_cannot_be_read_is_one_error(path):
    with pytest.raises(UsageError, match=r"^collect\.x: ") as error:
        parse_collect({"x": path}, {"s": "fit"})
    assert repr(path) in str(error.value)


def test_collected_values_have_columns_and_missing_ones_are_told_in_one_line(cell, tmp_path):
    more = {"epochs": 7, "training": {"attack": {"name": "PGD-7"}}, "nan": math.nan, "flag": True, "map": {}}
    with_more = cell("with", "fit", fit_results(9, 3, **more))
    points = [TablePoint({}, 0, {"fit": with_more})]
    points += [TablePoint({}, seed, {"fit": cell(f"without-{seed}", "fit", fit_results(8, 2))}) for seed in (1, 2)]
    collect = {"epochs": "fit:epochs", "attack": "fit:training.attack.name", "nan": "fit:nan", "flag": "fit:flag"}
    found = table(points, tmp_path, collect=collect)
    assert [found.rows[0][name] for name in collect] == [7, "PGD-7", None, "true"]
    assert found.rows[1]["epochs"] is None
    assert found.told[0] == (
        "collect.epochs: there is no 'epochs' in the results.json of some cells: 2, the first without-1"
    )
    assert found.measures == ("clean_accuracy", "robust_accuracy", "epochs", "nan")
    assert "not one value" in table(points[:1], tmp_path, collect={"x": "fit:map"}).told[0]


def test_the_numbers_of_an_observer_are_those_of_its_last_look(cell, tmp_path):
    first, other, damaged = (cell(name, "fit", fit_results(9, 3)) for name in ("with", "without", "damaged"))
    rows = ["0,9,conv1,,max,1.5", "0,9,,,norm,7", "1,19,conv1,,max,0.1", "1,19,conv1,aux,max,0.30000000000000004"]
    head = "epoch,step,name,domain,statistic,value\n"
    write(first.folder / "version_0" / "analyses" / "responses.csv", head + "\n".join(rows) + "\n1,19,,,norm,6\n1,1")
    write(damaged.folder / "version_0" / "analyses" / "responses.csv", "a,b\n1,2\n")
    points = [TablePoint({}, seed, {"fit": made}) for seed, made in enumerate((first, other, damaged))]
    of = "fit:analyses/responses.csv"
    collect = {
        "conv1": f"{of}[name=conv1,domain=,statistic=max].value",
        "auxiliary": f"{of}[domain=aux].value",
        "norm": f"{of}[statistic=norm].value",
        "epoch": f"{of}[-1].epoch",
        "gone": f"{of}[name=conv2].value",
    }
    found = table(points, tmp_path, collect=collect)
    assert [found.rows[0].get(name) for name in collect] == [0.1, 0.30000000000000004, 6.0, 1, None]
    assert not any(row.get(name) for row in found.rows[1:] for name in collect)
    assert [clause.partition(" (")[0] for clause in found.told] == [
        "collect.gone: no items are [name=conv2] in the responses.csv of some cells: 1, with",
        "responses.csv cannot be read",
        "responses.csv cannot be read",
    ]
    assert "its columns are ['a', 'b']" in found.told[2]


def test_a_stage_that_is_left_out_collects_nothing_and_tells_nothing(cell, tmp_path):
    found = table(
        [TablePoint({}, 0, {"pretrain": cell("p", "fit", fit_results(9, 3))})],
        tmp_path,
        stages={"pretrain": "fit", "retrain": "fit"},
        collect={"x": "retrain:epochs", "y": "pretrain:test_images"},
    )
    assert (found.rows[0]["x"], found.rows[0]["y"], found.told) == (None, 360, ())


@pytest.mark.parametrize(
    ("axes", "collect"),
    [(["status"], []), (["attacked_robust_accuracy"], []), (["eps"], ["eps"]), ([], ["retrain_seconds"])],
)
def test_columns_of_one_name_are_an_error(axes, collect):
    with pytest.raises(UsageError, match=r"is named '.*' already"):
        check_columns(axes, STAGES, collect)


def test_numbers_as_settings_are_written():
    assert [to_number(text) for text in ("8/255", "1e-3", "-2")] == [8 / 255, 1e-3, -2.0]
    assert [to_number(text) for text in ("", "nan", "inf", "m0", "1/0", "1/2/3", "1_0")] == [None] * 7
