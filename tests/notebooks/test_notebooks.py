"""Every notebook runs from top to bottom, and what its text says of the results is so."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))

# Run behind a notebook's last cell. The bounds leave room for what other seeds, and so other machines, make of it.
CLAIMS = {
    "first_attack": """
adversarial = {r: evaluation(r, x, y, generator=torch.Generator().manual_seed(0)) for r in (standard, robust)}
assert min(accuracy(r, x) for r in (standard, robust)) > 0.8
assert accuracy(robust, adversarial[robust]) > accuracy(standard, adversarial[standard]) + 0.2
""",
    "is_my_model_robust": """
standard, madry, rounding = (summaries[name] for name in ("standard", "Madry", "rounding"))
large, l2_large = ("linf", 0.2), ("l2", 1.0)

def left(summary, threat):
    return summary.all_or_nothing[threat].accuracy

for summary in summaries.values():
    low, high = summary.all_or_nothing[large].interval
    assert high - low < 2 * 0.07
    for before, found in zip(summary.cases, summary.cases[1:], strict=False):
        if found.case.threat.norm == before.case.threat.norm:
            assert found.attacked == before.left.correct == found.broken + found.left.correct
in_linf, in_l2 = ([found for found in madry.cases if found.case.threat == threat] for threat in (large, l2_large))
assert [found.case.attack.steps for found in in_linf[:2]] == [1, 20] and len(in_linf[2].stages) == 3
assert all(abs(found[1].case.attack.step_size - 0.1 * found[0].case.threat.eps) < 1e-9 for found in (in_linf, in_l2))
names = [found.case.name for found in in_linf]
assert [found.case.name for found in in_l2] == [name for name in names if not name.startswith("Carlini")] != names

assert in_linf[0].left.accuracy > left(madry, large) + 0.08
assert sum(found.broken for found in in_linf[2:]) > 0
assert in_linf[-1].left == madry.all_or_nothing[large]

assert max(left(standard, large), left(standard, l2_large)) < 0.03
assert 0.4 < left(madry, large) / madry.clean.accuracy < 0.7 and left(madry, l2_large) < 0.3
for over_steps in madry.curves:
    at = dict(zip(over_steps.steps, [found.accuracy for found in over_steps.accuracies], strict=True))
    assert at[1] - at[20] > 0.15 and at[50] - at[100] < 0.05
    assert left(madry, over_steps.threat) < at[100]

assert len(networks["rounding"].round(x).unique()) == 4
assert abs(rounding.clean.accuracy - standard.clean.accuracy) < 0.03
assert [found.broken for found in rounding.cases if found.case.name == "FGSM"] == [0] * 5
for threat in madry.all_or_nothing:
    assert left(rounding, threat) > max(left(madry, threat), left(standard, threat))
assert all(len(set(over_steps.accuracies)) == 1 for over_steps in rounding.curves)

assert not suspicions["standard"] and not suspicions["Madry"]
seen = {each.name: each.evidence for each in suspicions["rounding"]}
assert seen["zero_gradients"]["zero"] == seen["zero_gradients"]["images"] == 100
assert seen["more_steps_do_not_help"]["loss_grown"] == 0
assert seen["blackbox_beats_whitebox"]["blackbox_only"] > 10
assert seen["full_eps_leaves_accuracy"]["unbroken"] == seen["full_eps_leaves_accuracy"]["images"] > 90
assert seen["full_eps_leaves_accuracy"]["eps"] == 1

with torch.no_grad():
    for images in (x, transferred, torch.rand(x.shape, generator=torch.Generator().manual_seed(0))):
        assert torch.equal(surrogate(images), networks["rounding"](images))
assert max(left(truth, large), left(truth, l2_large), transfer) < 0.03
assert all(left(truth, threat) < left(rounding, threat) for threat in truth.all_or_nothing)
""",
    "what_batchnorm_sees": """
def share_of_larger_variances(eps):
    main, adversarial = (runs[eps][1][-1][domain] for domain in ("main", "adversarial"))
    return [float((adversarial[k].variance > main[k].variance).float().mean()) for k in main]

assert max(share_of_larger_variances(0.1)) < 0.3
first, *others = share_of_larger_variances(0.3)
assert first < 0.3 and min(others) > 0.7
assert all(attacked[eps].var() < x.var() for eps in runs)

drift = {(row.name, row.domain, row.epoch): row.value for row in strong if row.statistic == "kl_from_start"}
for name, domain in {key[:2] for key in drift}:
    assert drift[name, domain, 1] > 0.25 * drift[name, domain, EPOCHS]
    assert abs(drift[name, domain, 12] / drift[name, domain, EPOCHS] - 1) < 0.15

kl = {(row.name, row.epoch): row.value for row in strong if row.statistic == "kl_from_main"}
norms = tracked_batchnorms(InDomain(regime.network, "main"))
begin, end = ([kl[layer, epoch] for layer in norms] for epoch in (1, EPOCHS))
assert max(begin) == begin[0] and max(end) == end[1]
assert all(now > 5 * before for before, now in zip(begin[1:], end[1:], strict=True))

def variance_gap(domain, kind, size):
    found = moments(domain, kinds[kind], size)
    gaps = [statistics_gap(history[-1][domain][k], of_layer).relative_variance.mean() for k, of_layer in found.items()]
    return float(sum(gaps) / len(gaps))

for domain, kind in (("main", "clean"), ("adversarial", "adversarial")):
    assert variance_gap(domain, kind, 1280) < 0.4 * variance_gap(domain, kind, 64)
assert variance_gap("main", "adversarial", 1280) > 0.7 * variance_gap("main", "adversarial", 64)
""",
    "why_weight_decay": """
def last(weight_decay, name, statistic):
    return series(runs[weight_decay][1], name, "", statistic)[-1][1]

weak, middle, strong = runs
assert last(weak, "", "quadratic_sum") > 1.5 * last(middle, "", "quadratic_sum") > 3 * last(strong, "", "quadratic_sum")
for layer in shares[weak]:
    assert last(strong, layer, "max") < 0.75 * last(weak, layer, "max")
    assert last(strong, layer, "total") < 0.6 * last(weak, layer, "total")
    assert shares[strong][layer] > 0.8 * shares[weak][layer]
assert last(strong, "", "relative_kernel_variance") < last(weak, "", "relative_kernel_variance") - 0.01
assert abs(last(strong, "", "high_frequency_share") - last(weak, "", "high_frequency_share")) < 0.04
assert last(strong, "", "clean accuracy") < last(weak, "", "clean accuracy") - 0.01
""",
}


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == set(CLAIMS)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(CLAIMS[path.stem]))
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert pictures


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_without_its_outputs(path):
    assert all(not cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells)
