"""The figures that are drawn are those of the rows."""

import io

import numpy as np
import pytest

from lightning_adv.evaluation.corruptions.errors import CorruptionError
from lightning_adv.evaluation.corruptions.figures import plot_corruption_errors


def rows_of(errors):
    return [
        CorruptionError(name, severity, "cifar, regenerated", 100 - wrong, 100)
        for name, several in errors.items()
        for severity, wrong in enumerate(several, start=1)
    ]


def test_cells_hold_the_errors_and_their_means():
    standard = rows_of({"fog": [10, 30], "gaussian_noise": [60, 80]})
    robust = rows_of({"gaussian_noise": [0, 10], "fog": [20, 25]})
    figure = plot_corruption_errors({"standard": standard, "robust": robust})
    first, second = figure.axes[:2]
    assert [label.get_text() for label in first.get_yticklabels()] == ["gaussian noise", "fog"]
    assert [label.get_text() for label in first.get_xticklabels()] == ["1", "2", "mean"]
    assert np.allclose(first.images[0].get_array(), [[0.6, 0.8, 0.7], [0.1, 0.3, 0.2]])
    assert np.allclose(second.images[0].get_array(), [[0, 0.1, 0.05], [0.2, 0.25, 0.225]])
    assert [text.get_text() for text in first.texts] == ["60", "80", "70", "10", "30", "20"]
    assert [axes.get_title() for axes in (first, second)] == [
        "standard: mean error 45.0 %",
        "robust: mean error 13.8 %",
    ]
    assert "regenerated" in figure.axes[-1].get_ylabel()
    assert {image.get_clim() for axes in (first, second) for image in axes.images} == {(0, 1)}
    edges = [line.get_ydata()[0] for line in first.lines if line.get_ydata()[0] == line.get_ydata()[1]]
    assert edges == [0.5]  # noise | weather
    figure.savefig(io.BytesIO())


def test_tables_that_do_not_match_are_told():
    fog = rows_of({"fog": [10, 30]})
    for tables, told in [
        ({}, "at least one network"),
        ({"a": []}, "got none"),
        ({"a": fog, "b": rows_of({"snow": [1, 2]})}, "same corruptions and severities, b has others"),
        ({"a": fog + rows_of({"snow": [1]})}, "snow at the severities of the others"),
    ]:
        with pytest.raises(ValueError, match=told):
            plot_corruption_errors(tables)
