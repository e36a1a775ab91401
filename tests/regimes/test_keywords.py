"""Keyword arguments that a regime hands on: a type checker knows their names and types."""

import inspect
from typing import get_type_hints

from lightning_adv.regimes import (
    BlockwiseRetraining,
    MadryTraining,
    Regime,
)
from lightning_adv.regimes.keywords import AdversarialKeywords, MadryKeywords, RegimeKeywords


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
