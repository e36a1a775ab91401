"""Numbers that may be whole or not, whoever wrote the type first."""

from typing import Union

import pytest

from lightning_adv.cli import main
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


@pytest.mark.slow
def test_a_name_beside_classes_is_that_name_and_a_misspelled_one_is_told_what_is_near(capsys):
    """As the loss of an attack, which is one of some names or a class."""
    arguments = ["fit", "--config", "digits/madry", "--print_config", "--model.init_args.attack.init_args.loss"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "margin"])
    assert end.value.code == 0
    with pytest.raises(SystemExit) as end:
        main([*arguments, "margim"])
    assert end.value.code == 2
    assert "Did you mean 'margin'?" in capsys.readouterr().err
