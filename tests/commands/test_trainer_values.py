import pytest
from jsonargparse import Namespace

from lightning_adv.commands.fit.trainer_values import check_trainer, check_values
from tests.faults.told import check_readable, told


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed_everything", -1), ("seed_everything", 2**32), ("trainer.max_epochs", -2), ("trainer.max_steps", -2),
        ("trainer.accumulate_grad_batches", 0), ("trainer.limit_predict_batches", 1.5),
        ("trainer.limit_train_batches", -1), ("trainer.overfit_batches", float("nan")),
        ("trainer.val_check_interval", 0), ("trainer.check_val_every_n_epoch", 0),
        ("trainer.gradient_clip_val", float("nan")), ("trainer.gradient_clip_val", -1.0),
        ("trainer.gradient_clip_val", float("inf")), ("trainer.gradient_clip_algorithm", "max"),
        ("trainer.num_nodes", 0), ("best_checkpoint.every_n_epochs", 0),
    ],
)  # fmt: skip
def test_values_that_make_no_sense(key, value):
    with pytest.raises(ValueError, match=rf"^{key} must be .*, got {value!r}\.$"):
        check_values(Namespace({key: value}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed_everything", True), ("trainer.max_epochs", -1), ("trainer.max_epochs", None),
        ("trainer.limit_train_batches", 1.0), ("trainer.limit_train_batches", 0), ("trainer.gradient_clip_val", 0),
        ("trainer.val_check_interval", "00:00:10"), ("trainer.val_check_interval", 0.25),
        ("trainer.gradient_clip_algorithm", "norm"), ("trainer.num_sanity_val_steps", -1),
        ("trainer.fast_dev_run", False),
    ],
)  # fmt: skip
def test_values_that_have_a_meaning(key, value):
    check_values(Namespace({key: value}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trainer.gradient_clip_val=-1"], ["trainer.gradient_clip_val must be a finite number", "got -1"]),
        (["--trainer.strategy=fast"], ["trainer cannot be built", "'fast'"]),
        (["--trainer.accelerator=abacus"], ["trainer cannot be built", "abacus"]),
        (["--trainer.logger=CometLogger"], ["comet"]),
        (["--trainer.default_root_dir=" + 5000 * "x", "--trainer.max_epochs=-7"], ["max_epochs"]),
    ],
)
def test_told_before_anything_is_written(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, said = told("fit", "--config", "digits/madry", *arguments)
    assert status == 1
    check_readable(status, said)
    assert all(word in said for word in words), said
    assert not list(tmp_path.iterdir())


def test_observers_of_one_class_need_a_name_each():
    def trainer(*names):
        path = "lightning_adv.callbacks.LocalResponse"
        callbacks = [Namespace(class_path=path, init_args=Namespace(name=name)) for name in names]
        return Namespace(strategy="auto", enable_checkpointing=True, callbacks=callbacks)

    check_trainer(trainer("fgsm", None, "pgd"))
    for names in ((None, None), ("fgsm", "fgsm")):
        with pytest.raises(ValueError, match=r"LocalResponse 2 times, but it runs once.*a name each"):
            check_trainer(trainer(*names))
