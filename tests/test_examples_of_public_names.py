"""Each public function of the rooms has a short example, which the doctests run."""

import importlib
import inspect

import pytest

ROOMS = (
    "attacks", "nn", "regimes", "analysis", "analysis.images", "analysis.signals", "callbacks", "data", "evaluation",
    "evaluation.suspicion", "evaluation.corruptions", "evaluation.transfer", "testing",
)  # fmt: skip


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_function_has_an_example(room):
    module = importlib.import_module(f"lightning_adv.{room}")
    functions = filter(inspect.isfunction, (getattr(module, name) for name in module.__all__))
    assert not [found.__name__ for found in functions if "Example:\n    >>> " not in inspect.getdoc(found)]
