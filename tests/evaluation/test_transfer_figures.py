"""The figures show the numbers that they are given."""

import itertools

import numpy as np
import pytest

from lightning_adv.evaluation.transfer.figures import plot_ensemble_transfer, plot_transfer
from lightning_adv.evaluation.transfer.rates import TransferRate

ATTACKS = ["FGSM", "I-FGSM"]


def single(sources, targets, attacks=ATTACKS):
    return [
        TransferRate(attack, source, target, source == target, 100 * a + 10 * s + t, 200)
        for a, attack in enumerate(attacks)
        for s, source in enumerate(sources)
        for t, target in enumerate(targets)
    ]


def ensembles(names, attacks=ATTACKS):
    return [
        TransferRate(attack, f"-{name}", target, target != name, 10 * a + n + 50 * (target != name), 100)
        for a, attack in enumerate(attacks)
        for n, name in enumerate(names)
        for target in (f"-{name}", name)
    ]


def panels(figure):
    return [axes for axes in figure.axes if axes.images and axes.texts]


def top_names(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def frames(axes):
    return {(round(patch.get_y() + 0.46), round(patch.get_x() + 0.46)) for patch in axes.patches}


def test_sources_by_targets_for_each_attack(tmp_path):
    figure = plot_transfer(single(["b", "a"], ["a", "b", "c"]))
    figure.savefig(tmp_path / "figure.png")
    first, second = panels(figure)
    assert [first.get_xlabel(), second.get_xlabel()] == ATTACKS
    assert first.images[0].get_array().tolist() == [[0, 0.5, 1], [5, 5.5, 6]]
    assert second.images[0].get_array().data == pytest.approx(np.array([[50, 50.5, 51], [55, 55.5, 56]]))
    assert {axes.images[0].get_clim() for axes in (first, second)} == {(0, 100)}
    assert top_names(first) == ["a", "b", "c"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["b", "a"]
    assert frames(first) == frames(second) == {(0, 1), (1, 0)}
    assert [text.get_text() for text in second.texts] == ["50", "50", "51", "55", "56", "56"]
    assert [text.get_position() for text in first.texts] == [(j, i) for i in range(2) for j in range(3)]
    assert "white-box" in figure.get_suptitle()


def test_what_is_not_there_is_left_empty(tmp_path):
    rows = single(["a", "b"], ["a", "b"])
    figure = plot_transfer(rows[:3] + rows[4:])
    figure.savefig(tmp_path / "figure.png")
    first, second = panels(figure)
    assert np.isnan(first.images[0].get_array().filled(np.nan)).tolist() == [[False, False], [False, True]]
    assert len(first.texts) == 3
    assert len(second.texts) == 4


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 10])
@pytest.mark.parametrize("attacks", [1, 4, 7])
def test_every_name_and_number_is_inside_the_picture(count, attacks):
    names = [f"wide_resnet28_10 against PGD {i}, auxiliary BatchNorm" for i in range(count)]
    attacks = [f"M-DI²-FGSM {i}" for i in range(attacks)]
    for figure in (plot_transfer(single(names, names, attacks)), plot_ensemble_transfer(ensembles(names, attacks))):
        figure.draw_without_rendering()
        width, height = figure.bbox.size
        texts = [label for axes in panels(figure) for label in (*axes.texts, *axes.get_yticklabels(), axes.xaxis.label)]
        texts += [*panels(figure)[0].get_xticklabels(), figure._suptitle]
        boxes = [text.get_window_extent() for text in texts if text.get_visible() and text.get_text()]
        assert len(boxes) > len(attacks) * count
        assert min(box.x0 for box in boxes) > -1
        assert min(box.y0 for box in boxes) > -1
        assert max(box.x1 for box in boxes) < width + 1
        assert max(box.y1 for box in boxes) < height + 1
        for line in (panels(figure)[0].get_xticklabels(), panels(figure)[0].get_yticklabels()):
            extents = [label.get_window_extent() for label in line]
            assert not any(a.overlaps(b) for a, b in itertools.pairwise(extents))


def test_ensembles_above_and_networks_held_out_below(tmp_path):
    figure = plot_ensemble_transfer(ensembles(["a", "b", "c"]))
    figure.savefig(tmp_path / "figure.png")
    above, below = panels(figure)
    assert above.get_xlabel() == "Ensemble\n(white-box)"
    assert below.get_xlabel() == "Held out\n(black-box)"
    assert above.images[0].get_array().tolist() == [[50, 51, 52], [60, 61, 62]]
    assert below.images[0].get_array().tolist() == [[0, 1, 2], [10, 11, 12]]
    assert {axes.images[0].get_clim() for axes in (above, below)} == {(0, 100)}
    assert top_names(above) == ["a", "b", "c"]
    assert [label.get_text() for label in below.get_yticklabels()] == ATTACKS


@pytest.mark.parametrize("plot", [plot_transfer, plot_ensemble_transfer])
def test_rows_that_cannot_be_drawn(plot):
    with pytest.raises(ValueError, match="rates must have rows, got none"):
        plot([])
    rows = single(["a", "b"], ["a", "b"])
    with pytest.raises(ValueError, match="got 9 rows for 8: add up those of several chunks by add_rates"):
        plot([*rows, rows[0]])
