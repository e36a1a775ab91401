import json

import pytest

from lightning_adv.attacks import FGSM, PGD
from lightning_adv.run.results import attack_name, print_results, write_results

RESULTS = {
    "dataset": "digits",
    "network": "small_cnn",
    "regime": "MadryTraining",
    "seed": 0,
    "test_images": 1360,
    "clean_accuracy": 0.5,
    "clean_interval": [0.4, 0.6],
    "robust_accuracy": 0.25,
    "robust_interval": [0.2, 0.3],
    "evaluation_attack": {"name": "PGD-20", **PGD(eps="8/255").to_config()},
    "versions": {"lightning-adv": "0", "torch": "1", "lightning": "2"},
}


@pytest.mark.parametrize(
    ("attack", "name"),
    [(PGD(steps=20), "PGD-20"), (FGSM(), "FGSM"), (PGD(steps=50, restarts=10), "PGD-50 × 10 restarts")],
)
def test_name(attack, name):
    assert attack_name(attack) == name


def test_table(capsys, tmp_path):
    print_results(RESULTS | {"training_seconds": 12.34, "images_per_second": 5678.9}, tmp_path)
    printed = capsys.readouterr().out
    for words in ("50.0 %  (95 %: 40.0 to 60.0 %)", "25.0 %", "Linf, eps 0.03137", "12.3 s", "5,679", "1,360"):
        assert words in printed


def test_file_is_whole_or_absent(tmp_path):
    write_results(RESULTS, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == RESULTS
    with pytest.raises(TypeError):
        write_results({"x": object()}, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == RESULTS
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
