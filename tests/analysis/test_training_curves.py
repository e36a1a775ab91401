from lightning_adv.analysis.training_curves import plot_training_curves, read_metrics

CSV = """epoch,lr-SGD,step,train/loss,val/clean_accuracy,val/robust_accuracy
,0.1,0,,,
0,,19,,0.5,0.25
0,,19,2.5,,
,0.01,20,,,
1,,39,,0.75,0.5
1,,39,1.5,,
"""


def test_values_at_their_epochs(tmp_path):
    """A learning rate has no epoch of its own: it is that of the epoch which begins."""
    (tmp_path / "metrics.csv").write_text(CSV)
    assert read_metrics(tmp_path / "metrics.csv") == {
        "lr-SGD": [(0, 0.1), (1, 0.01)],
        "val/clean_accuracy": [(0, 0.5), (1, 0.75)],
        "val/robust_accuracy": [(0, 0.25), (1, 0.5)],
        "train/loss": [(0, 2.5), (1, 1.5)],
    }


def test_figure_shows_the_curves(tmp_path):
    (tmp_path / "metrics.csv").write_text(CSV)
    figure = plot_training_curves(read_metrics(tmp_path / "metrics.csv"))
    accuracy, loss, rate = figure.axes
    assert {line.get_label(): list(line.get_ydata()) for line in accuracy.lines} == {
        "clean": [50, 75],
        "robust": [25, 50],
    }
    assert [line.get_label() for line in loss.lines] == ["train"]
    assert list(rate.lines[0].get_ydata()) == [0.1, 0.01]
    assert rate.get_yscale() == "log"


def test_parameter_groups_with_one_rate_are_one_curve():
    curves = {"lr-SGD/decay": [(0, 0.1)], "lr-SGD/no_decay": [(0, 0.1)]}
    assert len(plot_training_curves(curves).axes[2].lines) == 1


def test_a_run_that_logged_nothing_has_empty_panels():
    assert all(not axes.lines for axes in plot_training_curves({}).axes)


def test_domains_have_curves_of_their_own():
    kinds = ("clean_accuracy", "clean_accuracy_adversarial", "clean_accuracy_main", "robust_accuracy_main")
    curves = {f"val/{name}": [(0, k / 10)] for k, name in enumerate(kinds)}
    accuracy = plot_training_curves(curves).axes[0]
    assert {line.get_label(): list(line.get_ydata()) for line in accuracy.lines} == {
        "clean, main": [20],
        "robust, main": [30],
        "clean, adversarial": [10],
    }
