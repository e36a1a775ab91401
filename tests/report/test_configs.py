"""The settings of runs, side by side."""

import yaml

from lightning_adv.report.configs import differences, flatten, shared

CONFIG = """
seed_everything: 0
trainer:
  precision: null
  logger: [{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {version: 7}}]
  callbacks:
  - {class_path: lightning_adv.callbacks.BatchNormDrift, init_args: {every_n_epochs: 2}}
  - {class_path: lightning_adv.callbacks.BatchNormDrift, init_args: {every_n_epochs: 3}}
model:
  class_path: lightning_adv.regimes.MadryTraining
  init_args:
    attack: {class_path: lightning_adv.attacks.PGD, init_args: {eps: 8/255, project: true}}
    mean: [0.5, 0.25]
ckpt_path: some/where.ckpt
"""


def test_a_class_is_the_value_of_its_key():
    assert flatten(yaml.safe_load(CONFIG)) == {
        "seed_everything": "0",
        "trainer.precision": "null",
        "trainer.callbacks.BatchNormDrift": "BatchNormDrift",
        "trainer.callbacks.BatchNormDrift.every_n_epochs": "2",
        "trainer.callbacks.BatchNormDrift#1": "BatchNormDrift",
        "trainer.callbacks.BatchNormDrift#1.every_n_epochs": "3",
        "model": "MadryTraining",
        "model.attack": "PGD",
        "model.attack.eps": "8/255",
        "model.attack.project": "true",
        "model.mean": "[0.5, 0.25]",
    }


def test_differences_and_what_is_shared():
    first, second = {"seed": "0", "model": "Madry", "lr": "0.1"}, {"seed": "1", "model": "Madry"}
    assert differences([first, None, second]) == {"seed": ["0", None, "1"], "lr": ["0.1", None, None]}
    assert shared([first, None, second]) == {"model": "Madry"}
    assert differences([first, first]) == {}
    assert differences([{"a": "null"}, {}]) == {}
    assert differences([None]) == {}
    assert shared([None]) == {}


def test_a_part_of_some_runs_is_one_row_with_its_main_settings():
    """PGD has sixteen settings; beside a run without an attack only its eps is worth a row."""
    attacked = {"model.attack": "PGD", "model.attack.eps": "0.2", "model.attack.restarts": "1"}
    assert list(differences([attacked, {"model.attack": "null"}])) == ["model.attack", "model.attack.eps"]
    assert list(differences([attacked, attacked | {"model.attack.restarts": "2"}])) == ["model.attack.restarts"]
