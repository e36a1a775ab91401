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
begin, end = ([kl[layer, epoch] for layer in tracked_batchnorms(regime.network, "main")] for epoch in (1, EPOCHS))
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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(CLAIMS[path.stem]))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert pictures


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_without_its_outputs(path):
    assert all(not cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells)
