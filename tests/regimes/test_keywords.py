"""Keyword arguments that a regime hands on: a type checker knows their names and types."""

import inspect
import re
from pathlib import Path
from typing import get_type_hints

from mypy import api

import lightning_adv
from lightning_adv.regimes import (
    AdvPropTraining,
    BlockwiseRetraining,
    MadryTraining,
    Regime,
    SmoothAdversarialTraining,
)
from lightning_adv.regimes.keywords import AdversarialKeywords, MadryKeywords, RegimeKeywords

FOLDER = Path(lightning_adv.__file__).parent / "regimes"


def keywords(kind):
    """By name, the types of the arguments that a class has by itself, without those that it hands on."""
    given = inspect.signature(kind).parameters.values()
    names = [argument.name for argument in given if argument.kind is inspect.Parameter.KEYWORD_ONLY]
    hints = get_type_hints(kind.__init__)
    return {name: hints[name] for name in names}


def test_names_and_types_are_those_of_the_class_that_takes_them():
    assert get_type_hints(RegimeKeywords) == keywords(Regime)
    assert get_type_hints(MadryKeywords) == {**keywords(Regime), **keywords(MadryTraining)}
    own = keywords(BlockwiseRetraining)
    left = {name: kind for name, kind in get_type_hints(MadryKeywords).items() if name not in own}
    assert get_type_hints(AdversarialKeywords) == left


def test_a_mistyped_keyword_is_reported_by_the_type_checker(tmp_path):
    kinds = {"madry": MadryTraining, "sat": SmoothAdversarialTraining, "advprop": AdvPropTraining}
    kinds["blockwise"] = BlockwiseRetraining
    snippet = [f"from lightning_adv.regimes.{name} import {kind.__name__}" for name, kind in kinds.items()]
    expected = set()
    for kind in kinds.values():
        for argument, code in (("label_smoothing=0.1", None), ("lable=1", "call-arg"), ("compile='a'", "arg-type")):
            snippet.append(f"{kind.__name__}(object(), num_classes=10, {argument})")
            expected |= set() if code is None else {(len(snippet), code)}
    (tmp_path / "snippet.py").write_text("\n".join(snippet))
    # What other files define is of any type: this takes a second, and the whole package a minute.
    options = ["--follow-imports=skip", "--config-file=", f"--cache-dir={tmp_path / 'cache'}"]
    files = [tmp_path / "snippet.py", *(FOLDER / f"{name}.py" for name in (*kinds, "keywords"))]
    files.append(FOLDER.parent / "core/keywords.py")
    told = api.run([*options, *map(str, files)])[0]
    found = re.findall(r"snippet\.py:(\d+): error: .*\[([\w-]+)\]$", told, flags=re.MULTILINE)
    assert {(int(line), code) for line, code in found} == expected, told
