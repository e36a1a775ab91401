"""Study files: how several become one, and what is refused."""

from datetime import date

import pytest
import yaml

from lightning_adv.core.errors import UsageError
from lightning_adv.studies.study_file import make_study, read_study_files


def written(folder, *contents):
    paths = [folder / f"{number}.yaml" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(yaml.safe_dump(content))
    return paths


STAGES = {"a": {"config": "digits/standard", "set": {"trainer.max_epochs": 3}}, "b": {"config": ["x.yaml", "y.yaml"]}}


def test_a_later_file_and_the_command_line_override_key_by_key(tmp_path):
    paths = written(
        tmp_path,
        {"title": "T", "stages": STAGES, "grid": {"p.q": [1, 2]}, "seeds": [0, 1], "set": {"x.y": 1, "x.z": 2}},
        {"stages": {"a": {"set": {"trainer.precision": "32-true"}}}, "grid": {"r.s": [3]}, "set": {"x.y": 5}},
    )
    overrides = [
        ("seeds", [7]),
        ("set.trainer.max_epochs", 1),
        ("stages.b.set.model.init_args.cutoff", "m1"),
        ("stages.b.seed", 4),
        ("grid.t.u", [9]),
    ]
    study = make_study(read_study_files(paths, overrides), name="given")
    assert (study.title, study.name, study.seeds) == ("T", "given", (7,))
    assert study.grid == ({"r.s": [3], "t.u": [9]},)  # the axes of a file are replaced together
    assert study.settings == {"x.y": 5, "x.z": 2, "trainer.max_epochs": 1}
    assert study.stages["a"].settings == {"trainer.max_epochs": 3, "trainer.precision": "32-true"}
    assert study.stages["b"].settings == {"model.init_args.cutoff": "m1"}
    assert (study.stages["b"].seed, study.stages["b"].configs) == (4, ("x.yaml", "y.yaml"))


def test_a_stage_that_is_null_is_out_and_config_is_one_stage(tmp_path):
    paths = written(tmp_path, {"stages": STAGES}, {"stages": {"b": None}})
    assert list(make_study(read_study_files(paths), name="n").stages) == ["a"]
    one = written(tmp_path, {"config": "digits/madry", "set": {"x.y": 1}})
    study = make_study(read_study_files(one, [("stages.fit.set.x.z", 2)]), name="n")
    assert study.stages["fit"].configs == ("digits/madry",)
    assert study.stages["fit"].settings == {"x.z": 2}


def test_what_is_written_down_makes_the_same_study():
    study = make_study(
        {
            "stages": {**STAGES, "c": {"command": "evaluate", "config": "evaluation/quick", "cells": "shared"}},
            "grid": [{"p.q": [1]}, {"n": {"only": {"b": None}}}],
            "seeds": [0, 3],
            "threads": 2,
            "collect": {"k": "a:seconds"},
            "figure": {"x": "q"},
        },
        name="whole",
    )
    assert make_study({**study.to_plain(), "points": []}, name="other") == study


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"stage": {}}, "a study has no key 'stage'. Did you mean 'stages'?"),
        ({"grid": {}}, "config: a study must have config, of what is trained, or stages."),
        ({"config": "a", "stages": STAGES}, "stages: it stands beside config"),
        ({"stages": {"a": {"comand": "fit"}}}, "stages.a: a stage has no key 'comand'. Did you mean 'command'?"),
        ({"stages": {"a": {"command": "train"}}}, "stages.a.command: it must be fit, evaluate, transfer, got 'train'."),
        ({"stages": {"a b": {}}}, "stages: a stage's name is letters, digits, _ and -, from a letter on, got 'a b'."),
        ({"stages": {"a": {"command": "evaluate"}}}, "stages: at least one must be a fit"),
        ({"stages": {**STAGES, "c": {"command": "evaluate", "seed": 1}}}, "stages.c.seed: only a fit has it"),
        ({"config": 3}, "config: it must be a configuration's name or file, or a list of them, got 3."),
        ({"config": "a", "seeds": []}, "seeds: it must be a list of whole numbers, such as [0, 1, 2], got []."),
        ({"config": "a", "seeds": [-1]}, "seeds: a seed is a whole number between 0 and 4294967295, got -1."),
        ({"config": "a", "seeds": [1, 1]}, "seeds: each must stand there once, got [1, 1]."),
        ({"config": "a", "threads": 0}, "threads: it must be a whole number of at least 1, got 0."),
        ({"config": "a", "set": ["x"]}, "set: it must be a mapping, whose keys are text, got ['x']."),
        ({"config": "a", "set": {"seed_everything": 1}}, "set: seed_everything is set by seeds"),
        ({"config": "a", "set": {"ckpt_path": "x"}}, "set: ckpt_path is the study's to set"),
        ({"config": "a", "grid": []}, "grid: it must be a mapping of axes, or a list of such mappings"),
        ({"config": "a", "title": 3}, "title: it must be text, got 3."),
        ({"config": "a", "name": "a\0b"}, r"name: a name is one line without control characters, got 'a\x00b'."),
        ({"config": "a", "name": "/tmp/x"}, "name: it must be the name of a folder below runs, got '/tmp/x'"),
        ({"config": "a", "name": "a/../../b"}, "name: it must be the name of a folder below runs, got"),
        ({"config": "a", "cells": "a\0b"}, "cells: a name is one line"),
        ({"stages": {"a": {"cells": "a\0b"}}}, "stages.a.cells: a name is one line"),
        ({"config": "a", "collect": {"x\ny": "fit:a"}}, "collect: a name is one line"),
        (
            {"config": "a", "set": {"x.y": date(2026, 1, 2)}},
            "set.x.y: it must be text, a number, a list or a mapping, got the date 2026-01-02.",
        ),
        (
            {"config": "a", "grid": [{"x.y": [[b"a"]]}]},
            "grid.x.y: it must be text, a number, a list or a mapping, got the bytes",
        ),
    ],
)
def test_a_mistake_is_one_sentence(content, told):
    with pytest.raises(UsageError) as error:
        make_study(content, name="n")
    assert str(error.value).startswith(told)


def test_files_and_options_that_are_none_are_told(tmp_path):
    with pytest.raises(UsageError, match=r"0\.yaml: a study has no key 'seed_everything'"):
        read_study_files(written(tmp_path, {"seed_everything": 0}))
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UsageError, match=r"must be a mapping of a study's keys"):
        read_study_files([tmp_path / "list.yaml"])
    with pytest.raises(UsageError, match=r"missing\.yaml cannot be read: it is not there"):
        read_study_files([tmp_path / "missing.yaml"])
    paths = written(tmp_path, {"config": "a", "grid": [{"x.y": [1]}]})
    with pytest.raises(UsageError, match=r"^--grid\.x\.y: this study's grid is a list of mappings"):
        read_study_files(paths, [("grid.x.y", [2])])
    with pytest.raises(UsageError, match=r"^--seeds\.a: seeds has no keys below it"):
        read_study_files(paths, [("seeds.a", 2)])
