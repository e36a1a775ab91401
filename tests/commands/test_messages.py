from lightning_adv.commands.shared.messages import explain


def test_nearest_key():
    expected = "There is no key 'trainer.max_epoch'. Did you mean 'trainer.max_epochs'?"
    keys = ["trainer.max_epochs", "model"]
    assert explain("unrecognized arguments: --trainer.max_epoch 3", keys) == expected
    assert explain("Subcommand 'fit' does not accept option 'trainer.max_epoch'", keys) == expected


def test_nothing_near_suggests_nothing():
    assert explain("unrecognized arguments: --zzz 3", ["model"]) == "There is no key 'zzz'."


def test_a_form_that_is_not_known_stays_as_it_is():
    assert explain("something else\nhappened", []) == "something else\nhappened"


def test_an_option_before_its_command():
    told = "--ckpt_path is an option of a command, which stands before its options."
    assert explain("unrecognized arguments: --ckpt_path=a.ckpt", ["ckpt_path"]) == told


REQUIRED = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'lightning_adv.regimes.base.Regime'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'lightning_adv.regimes.MadryTraining':
        the following arguments are required: backbone
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>"""


def test_what_is_missing_with_its_path():
    """As jsonargparse 4.53 writes it."""
    assert explain(REQUIRED, []) == "model > MadryTraining: backbone must be given."
    assert explain("the following arguments are required: fit.data, fit.model", []) == "data, model must be given."
