"""Numbers that may be whole or not, whoever wrote the type first."""

from typing import Union

import pytest

from lightning_adv.commands.shared.parser import Parser


class Limits:
    def __init__(self, float_first: Union[float, int, None] = None, int_first: Union[int, float, None] = 1.0) -> None:  # noqa: UP007
        pass


@pytest.mark.parametrize("name", ["float_first", "int_first"])
@pytest.mark.parametrize(("given", "value"), [("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("0", 0)])
def test_one_is_one_and_not_all(name, given, value):
    parser = Parser()
    parser.add_class_arguments(Limits, "trainer")
    parsed = parser.parse_args([f"--trainer.{name}={given}"]).trainer[name]
    assert (parsed, type(parsed)) == (value, type(value))
    parsed = parser.parse_object({"trainer": {name: value}}).trainer[name]
    assert (parsed, type(parsed)) == (value, type(value))
