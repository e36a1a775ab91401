import pytest
import torch
from torch import nn

from lightning_adv.attacks import FGSM, GD, PGD
from lightning_adv.evaluation import StepsCurve, evaluate
from lightning_adv.evaluation.figures import plot_accuracy_over_eps, plot_accuracy_over_steps


@pytest.fixture(scope="module")
def summary():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x = torch.rand(60, 3, 2, 2)
    curve = StepsCurve(PGD(eps=1, step_size=0.1), steps=(1, 10, 2000), images=4)
    eps = {"linf": ["4/255", "16/255"], "l2": [0.25]}
    return evaluate(network, x, network(x).argmax(1), [FGSM(), GD()], eps, steps_curve=curve)


@pytest.mark.slow
def test_accuracy_over_eps_begins_with_the_clean_accuracy(summary):
    left, right = plot_accuracy_over_eps(summary).axes
    (line,) = left.lines
    found = [accuracy.accuracy for threat, accuracy in summary.all_or_nothing.items() if threat.norm == "linf"]
    assert list(line.get_xdata()) == [0, 4 / 255, 16 / 255]
    assert list(line.get_ydata()) == pytest.approx([100 * value for value in (summary.clean.accuracy, *found)])
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["0", "4/255", "16/255"]
    assert (left.get_xlabel(), right.get_xlabel()) == ("eps in Linf", "eps in L2")


def test_accuracy_over_steps_has_a_curve_for_each_norm(summary):
    (axes,) = plot_accuracy_over_steps(summary).axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[1, 10, 2000]] * 2
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["Linf 16/255", "L2 0.25"]
    assert list(axes.lines[0].get_ydata()) == [100 * found.accuracy for found in summary.curves[0].accuracies]


def test_nothing_to_draw(summary):
    without = summary._replace(curves=(), all_or_nothing={})
    with pytest.raises(ValueError, match="must have a threat model with a norm"):
        plot_accuracy_over_eps(without)
    with pytest.raises(ValueError, match="must have a curve over steps"):
        plot_accuracy_over_steps(without)
