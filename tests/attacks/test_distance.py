import pytest

from lightning_adv.attacks.distance import parse_distance


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0, 0.0),
        (0.25, 0.25),
        (1, 1.0),
        ("1e-3", 1e-3),
        ("8/255", 8 / 255),
        (" 16 / 255 ", 16 / 255),
        ("0.5/9", 0.5 / 9),
    ],
)
def test_numbers_and_fractions(value, number):
    assert parse_distance(value, "eps", 1.0) == number


def test_every_float_is_kept_to_the_last_bit():
    assert all(parse_distance(k / 255, "eps") == k / 255 for k in range(256))


@pytest.mark.parametrize("value", ["", "eight", "8/", "/255", "8/0", "8/255/1", "8:255", None, [8], True])
def test_what_is_no_number(value):
    with pytest.raises(ValueError, match="step_size must be a number or a fraction such as 8/255, got"):
        parse_distance(value, "step_size")


@pytest.mark.parametrize("value", [-0.1, "-8/255", 1.5, 8, "nan", float("inf")])
def test_what_lies_outside(value):
    with pytest.raises(ValueError, match="eps must be between 0 and 1, got"):
        parse_distance(value, "eps", 1.0)


@pytest.mark.parametrize("value", [-1, "nan", "inf"])
def test_what_lies_outside_without_a_maximum(value):
    with pytest.raises(ValueError, match="eps must be at least 0 and finite, got"):
        parse_distance(value, "eps")


def test_grey_levels_get_a_hint():
    with pytest.raises(ValueError, match="write 8 grey levels as 8/255"):
        parse_distance(8, "eps", 1.0)
