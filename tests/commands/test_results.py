import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from scipy.stats import binomtest

from lightning_adv.attacks import FGSM, GD, PGD
from lightning_adv.commands.fit.results import (
    collect_results,
    describe_checkpoint,
    describe_training,
    print_results,
    write_results,
)
from lightning_adv.nn.batchnorm import domain, domain_norms
from lightning_adv.regimes import (
    TRADES,
    AdvPropTraining,
    BlockwiseRetraining,
    MadryTraining,
    SmoothAdversarialTraining,
    StandardTraining,
)
from tests.regimes.toy import BACKBONE, ToyData, quiet_trainer

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
    "threat_model": {"norm": "Linf", "eps": 8 / 255},
    "checkpoint": {"path": "checkpoints/best.ckpt", "epoch": 3, "step": 80},
    "versions": {"lightning-adv": "0", "torch": "1", "lightning": "2"},
}


def test_table_of_a_targeted_attack_in_no_ball(capsys):
    attack = {"name": "GD-5, random targets", **GD(label="random").to_config()}
    print_results(RESULTS | {"evaluation_attack": attack, "threat_model": None, "checkpoint": None}, None)
    printed = capsys.readouterr().out
    assert "GD-5 robust accuracy, random targets" in printed
    assert "no ball of a norm" in printed
    assert "checkpoint" not in printed


@pytest.mark.slow
def test_domains_have_results_of_their_own(tmp_path, capsys):
    """Counted by hand through each BatchNorm, one of which is spoilt."""
    attack = PGD(eps=0.1, steps=2, step_size=0.05, start="zero")
    torch.manual_seed(0)
    regime = AdvPropTraining(
        BACKBONE, num_classes=2, evaluation_attack=attack, attack=attack, inference_domain="adversarial",
        optimizer=partial(torch.optim.SGD, lr=0.1),
    )  # fmt: skip
    data, trainer = ToyData(), quiet_trainer(tmp_path, max_epochs=5)
    trainer.fit(regime, data)
    with torch.no_grad():
        for norm in domain_norms(regime.network, "adversarial")[-1:]:
            norm.bias.normal_()
    metrics = trainer.test(regime, data, verbose=False)[0]
    found = collect_results(trainer, regime, data, metrics, seed=7)
    regime.eval()
    assert list(found["domains"]) == ["main", "adversarial"]
    assert found["inference_domain"] == "adversarial"
    counts = {}
    for name, numbers in found["domains"].items():
        x_adv = attack(regime.network, data.x, data.y, domain=name)
        for kind, x in (("clean", data.x), ("robust", x_adv)):
            with torch.no_grad(), domain(regime.network, name):
                correct = int((regime.network(x).argmax(1) == data.y).sum())
            counts[name, kind] = correct
            assert numbers[f"{kind}_accuracy"] == correct / 32
            interval = binomtest(correct, 32).proportion_ci(0.95, method="wilson")
            assert numbers[f"{kind}_interval"] == pytest.approx([interval.low, interval.high])
    assert len(set(counts.values())) >= 3, "the domains must differ for this test to say anything"
    for name, value in found["domains"]["adversarial"].items():
        assert found[name] == value, "the numbers of the network are those of its inference domain"
    json.dumps(found)
    print_results(found, None)
    lines = [line for line in capsys.readouterr().out.splitlines() if " %" in line or "BatchNorm" in line]
    assert [line.split()[1] for line in lines] == ["main", "clean", "PGD-2", "adversarial", "clean", "PGD-2"]
    assert "(inference)" in lines[3]
    assert "(inference)" not in lines[0]
    for line, correct in zip([lines[i] for i in (1, 2, 4, 5)], counts.values(), strict=True):
        assert f" {100 * correct / 32:.1f} %" in line


def test_a_network_without_domains_has_none(tmp_path):
    regime = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=FGSM())
    data, trainer = ToyData(), quiet_trainer(tmp_path)
    metrics = trainer.test(regime, data, verbose=False)[0]
    found = collect_results(trainer, regime, data, metrics, seed=7)
    assert not {"domains", "inference_domain"} & found.keys()
    assert (found["seed"], found["data_seed"], found["checkpoint"]) == (7, None, None)
    assert found["backbone"]["options"] == {"width": 4}
    assert found["backbone"]["mean"] == [0.5]


def test_checkpoint_is_named_from_the_run_folder(tmp_path):
    content = {"epoch": 3, "global_step": 80}
    best = tmp_path / "version_0" / "checkpoints" / "best.ckpt"
    assert describe_checkpoint(best, content, str(tmp_path / "version_0"))["path"] == "checkpoints/best.ckpt"
    described = describe_checkpoint(best, content, str(tmp_path / "version_1"))
    assert described == {"path": "../version_0/checkpoints/best.ckpt", "epoch": 3, "step": 80}


def test_what_trained_the_network():
    standard = describe_training(StandardTraining(BACKBONE, label_smoothing=0.1))
    assert standard["attack"] is None
    assert standard["label_smoothing"] == 0.1
    madry = describe_training(MadryTraining(BACKBONE, attack=PGD(eps="8/255", steps=7), objective=TRADES(beta=4)))
    assert madry["attack"]["name"] == "PGD-7"
    assert madry["attack"]["init_args"]["eps"] == 8 / 255
    assert madry["attack"]["init_args"]["norm"]["class_path"].endswith(".Linf")
    assert madry["objective"]["class_path"].endswith(".TRADES")
    assert madry["objective"]["init_args"]["beta"] == 4
    assert describe_training(SmoothAdversarialTraining(BACKBONE, activation="gelu"))["activation"] == "gelu"
    conventional = BlockwiseRetraining(BACKBONE, attack=None, cutoff=2, side="after")
    described = describe_training(conventional)
    assert described["attack"] is None
    assert (described["cutoff"], described["side"]) == (2, "after")
    json.dumps([standard, madry, described])


def test_retrained_blocks_by_name(tmp_path):
    torch.save(BACKBONE.build(2).state_dict(), tmp_path / "weights.pth")
    regime = BlockwiseRetraining(
        replace(BACKBONE, checkpoint=str(tmp_path / "weights.pth")), cutoff=2, attack=None, evaluation_attack=FGSM()
    )
    quiet_trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(regime, ToyData())
    assert describe_training(regime)["retrained_blocks"] == ["m0", "m1"]


def test_what_was_not_looked_at_in_full_is_told(tmp_path, capsys):
    regime = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=FGSM())
    data = ToyData(y=torch.zeros(32, dtype=torch.long))
    limits = {"limit_train_batches": 1, "limit_val_batches": 2, "limit_test_batches": 3}
    trainer = quiet_trainer(tmp_path, **limits)
    trainer.fit(regime, data)
    found = collect_results(trainer, regime, data, trainer.test(regime, data, verbose=False)[0], seed=7)
    assert found["coverage"] == {
        "test_images": {"used": 24, "available": 32},
        "test_classes": {"used": 1, "available": 2},
        "training_batches": {"used": 1, "available": 4},
        "validation_images": {"used": 16, "available": 32},
    }
    print_results(found, None)
    printed = capsys.readouterr().out
    for told in ("24 of 32", "1 of 2", "16 of 32", "1 of 4", "none: the last weights"):
        assert told in printed


def test_untrained_weights_are_told(tmp_path, capsys):
    regime = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=FGSM())
    trainer = quiet_trainer(tmp_path, max_epochs=0)
    trainer.fit(regime, ToyData())
    metrics = trainer.test(regime, ToyData(), verbose=False)[0]
    found = collect_results(trainer, regime, ToyData(), metrics, seed=7, weights="untrained")
    assert found["coverage"].keys() == {"test_images", "test_classes"}
    print_results(found, None)
    printed = capsys.readouterr().out
    assert "were not trained" in printed
    assert " of " not in printed.partition("test images")[2].partition("clean")[0]


@pytest.mark.parametrize("run", ["validate", "test", "predict"])
def test_a_network_of_nan_is_not_measured(tmp_path, run):
    regime = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=FGSM())
    with torch.no_grad():
        next(regime.network.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"ckpt_path: the network holds NaN or infinite numbers in network\S+, 1 of"):
        getattr(quiet_trainer(tmp_path), run)(regime, ToyData())


@pytest.mark.parametrize("run", ["validate", "test"])
def test_a_network_that_computes_no_numbers_is_not_measured(tmp_path, run):
    """Its weights are numbers, and overflow."""
    regime = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=FGSM())
    with torch.no_grad():
        for parameter in regime.network.parameters():
            parameter.mul_(1e30)
    with pytest.raises(FloatingPointError, match="mean nothing"):
        getattr(quiet_trainer(tmp_path), run)(regime, ToyData())


def test_what_is_no_number_is_null(tmp_path):
    write_results(RESULTS | {"robust_loss": float("nan"), "more": [1.0, float("-inf")]}, tmp_path)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert (read["robust_loss"], read["more"]) == (None, [1.0, None])
    assert read["not_finite"] == {"robust_loss": "nan", "more.1": "-inf"}


def test_file_is_whole_or_absent(tmp_path):
    write_results(RESULTS, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == RESULTS
    with pytest.raises(TypeError):
        write_results({"x": object()}, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == RESULTS
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
