"""Which cells a study has, what makes two the same, and which of them wait for which."""

import copy

import pytest

from lightning_adv.core.errors import UsageError
from lightning_adv.studies.cells import count_cells, identity, make_plan
from lightning_adv.studies.folder import write_cell
from lightning_adv.studies.grid import expand
from lightning_adv.studies.study_file import make_study

STAGES = {
    "pretrain": {"config": "p"},
    "retrain": {"config": "r", "set": {"m.checkpoint": "{pretrain}/checkpoints/best.ckpt"}},
    "attacked": {"command": "evaluate", "config": "e", "set": {"checkpoint": "{retrain}/checkpoints/best.ckpt"}},
}
FIT = {
    "seed_everything": 0,
    "trainer": {
        "max_epochs": 3, "logger": {"save_dir": "a"}, "enable_progress_bar": None, "enable_model_summary": True,
    },
    "model": {"class_path": "M", "init_args": {"checkpoint": "{cell:0123456789}/best.ckpt", "eps": 0.1}},
    "trust": ["x"],
}  # fmt: skip


def resolve(stage, settings):
    """Say what a parser would: the settings, as they are."""
    return {"stage": stage, "trainer": {}, **settings}


def plan_of(content, folder, resolve=resolve):
    study = make_study({"stages": STAGES, **content}, name="n")
    points = expand(study)
    plan = make_plan(study, points, resolve, folders=dict.fromkeys(study.stages, folder), threads=1)
    assert count_cells(study, points) == len(plan.cells)
    return plan


def changed(key, value):
    content = copy.deepcopy(FIT)
    *above, last = key.split(".")
    inner = content
    for name in above:
        inner = inner[name]
    inner[last] = value
    return content


def test_a_text_that_looks_like_a_mark_is_a_text(tmp_path):
    odd = "__cell_0000000000__/{pretrain}"
    plan = plan_of({"grid": {"retrain/m.note": [odd, "__cell_0123456789__"]}}, tmp_path)
    pretrained, *retrained = (cell for cell in plan.cells.values() if cell.command == "fit")
    assert retrained[0].configuration["m.note"] == f"__cell_0000000000__/{pretrained.folder}/version_0"
    assert retrained[1].configuration["m.note"] == "__cell_0123456789__"


def test_identity_is_of_what_is_computed():
    known = identity("fit", FIT)
    assert len(known) == 10
    assert known == identity("fit", dict(reversed(FIT.items())))
    for key, value in (
        ("trainer.logger", None), ("trainer.enable_progress_bar", False), ("trainer.enable_model_summary", False),
        ("trust", None),
    ):  # fmt: skip
        assert identity("fit", changed(key, value)) == known, key
    others = {
        identity("fit", changed("seed_everything", 1)),
        identity("fit", changed("trainer.max_epochs", 4)),
        identity("fit", changed("trainer.max_epochs", 3.0)),
        identity("fit", changed("model.init_args.eps", "1/10")),
        identity("fit", changed("model.init_args.checkpoint", "{cell:0123456780}/best.ckpt")),
        identity("fit", changed("data", {"class_path": "D"})),
        identity("evaluate", FIT),
    }
    assert len(others - {known}) == 7
    for command in ("evaluate", "transfer"):
        settings = {"checkpoint": "c", "output": "o", "overwrite": False, "name": "n", "seed": 0}
        elsewhere = {**settings, "output": "p", "overwrite": True, "name": "m"}
        assert identity(command, settings) == identity(command, elsewhere)
        assert identity(command, settings) != identity(command, {**settings, "seed": 1})


def test_points_share_the_cells_that_are_the_same(tmp_path):
    plan = plan_of(
        {"grid": [{"m.cutoff": ["m1", "m2"]}, {"setting": {"only": {"retrain": None}}}], "seeds": [0, 1]}, tmp_path
    )
    # two pretrained networks, for each of them two retrained, and three attacked
    assert [cell.stage for cell in plan.cells.values()].count("pretrain") == 2
    assert len(plan.cells) == 2 * (1 + 2 + 3)
    pretrain, retrain, attacked = (plan.cells[id_] for id_ in plan.chains[0].values())
    assert (retrain.needs, attacked.needs) == ((pretrain.id,), (retrain.id,))
    assert pretrain.names == {"seed": "0"}
    assert retrain.names == {"cutoff": "m1", "seed": "0"}
    assert retrain.folder == tmp_path / f"retrain-cutoff=m1-seed=0-{retrain.id}"
    assert retrain.configuration["m.checkpoint"] == f"{pretrain.folder}/version_0/checkpoints/best.ckpt"
    assert retrain.configuration["trainer"]["logger"]["init_args"] == {
        "save_dir": str(tmp_path), "name": retrain.folder.name, "version": None,
    }  # fmt: skip
    assert attacked.configuration["output"] == str(attacked.folder / "result")
    # where retrain is left out, the pretrained network is attacked
    only = plan.chains[-2]
    assert list(only) == ["pretrain", "attacked"]
    assert plan.cells[only["attacked"]].needs == (pretrain.id,)


def test_cells_come_after_those_that_they_need_in_whatever_order_stages_are_written(tmp_path):
    stages = dict(reversed(STAGES.items()))
    plan = plan_of({"stages": stages, "grid": {"m.cutoff": ["m1", "m2"]}}, tmp_path)
    seen = set()
    for cell in plan.cells.values():
        assert set(cell.needs) <= seen
        seen.add(cell.id)


def test_one_pretrained_network_for_all_seeds(tmp_path):
    stages = {**STAGES, "pretrain": {"config": "p", "seed": 7}}
    plan = plan_of({"stages": stages, "seeds": [0, 1, 2]}, tmp_path)
    assert [cell.names for cell in plan.cells.values() if cell.stage == "pretrain"] == [{"seed": "7"}]


def test_another_study_finds_a_cell_by_what_it_is(tmp_path):
    first = plan_of({"grid": {"m.cutoff": ["m1", "m2"]}}, tmp_path)
    for cell in first.cells.values():
        write_cell(cell)
    stages = {
        "start": {**STAGES["pretrain"]},
        "again": {"config": "r", "set": {"m.checkpoint": "{start}/checkpoints/best.ckpt"}},
    }

    def same(stage, settings):
        return resolve({"start": "pretrain", "again": "retrain"}[stage], settings)

    second = plan_of({"stages": stages, "grid": {"variant": {"one": {"m.cutoff": "m2"}}}}, tmp_path, same)
    known = {cell.id: cell.folder for cell in first.cells.values()}
    assert [cell.folder for cell in second.cells.values()] == [known[id_] for id_ in second.cells]


def test_changing_the_grid_keeps_the_cells_that_are_still_in_it(tmp_path):
    before = plan_of({"grid": {"m.cutoff": ["m1", "m2"]}, "seeds": [0]}, tmp_path)
    after = plan_of({"grid": {"m.cutoff": ["m2", "m3"]}, "seeds": [0, 1]}, tmp_path)
    kept = set(before.cells) & set(after.cells)
    assert sorted(before.cells[id_].stage for id_ in kept) == ["attacked", "pretrain", "retrain"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"pretrain": "{retrain}/x"}, "stages.pretrain: it waits for itself: pretrain → retrain → pretrain."),
        ({"pretrain": "{pretrain}/x"}, "stages.pretrain: it waits for itself: pretrain → pretrain."),
        ({"retrain": ["{pretrian}/x"]}, "stages.retrain: {pretrian} is no stage. Did you mean 'pretrain'?"),
    ],
)
def test_a_stage_that_waits_for_itself_is_refused(settings, told, tmp_path):
    stages = copy.deepcopy(STAGES)
    for stage, value in settings.items():
        stages[stage].setdefault("set", {})["m.other"] = value
    with pytest.raises(UsageError) as error:
        plan_of({"stages": stages}, tmp_path)
    assert str(error.value).startswith(told)


def test_a_stage_that_waits_for_nothing_but_what_is_left_out_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"^stages\.retrain: it waits for pretrain, which is left out.*n=a"):
        plan_of({"grid": {"n": {"a": {"pretrain": None}}}}, tmp_path)


def test_a_long_name_is_cut_and_made_of_plain_characters(tmp_path):
    plan = plan_of({"grid": {"n": {"Ä very/long name " * 9: {}}}}, tmp_path)
    for cell in plan.cells.values():
        slug = cell.folder.name.removesuffix(f"-{cell.id}")
        assert len(slug) <= 60
        assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789.=+_-")
