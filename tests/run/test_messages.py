from lightning_adv.run.messages import explain

NESTED = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'lightning_adv.regimes.base.Regime'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'lightning_adv.regimes.MadryTraining':
        Parser key "attack":
          Problem with given class_path 'lightning_adv.attacks.PGD':
            Option 'epss' is not accepted
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {'class_path': 'MadryTraining'}"""


def test_the_innermost_mistake_with_its_path():
    assert explain(NESTED, []) == (
        "model > MadryTraining > attack > PGD: there is no option 'epss'. Did you mean 'eps'?"
    )


def test_wrong_type_says_what_was_given():
    message = (
        'Parser key "trainer.max_epochs":\n  Does not validate against any of the Union subtypes\n'
        "  Subtypes: [<class 'int'>, <class 'NoneType'>]\n  Errors:\n    - Expected a <class 'int'>\n"
        "    - Expected a <class 'NoneType'>\n  Given value type: <class 'str'>\n  Given value: abc"
    )
    assert explain(message, []) == "trainer.max_epochs: it must be of type int, got abc."


def test_nearest_key():
    expected = "There is no key 'trainer.max_epoch'. Did you mean 'trainer.max_epochs'?"
    keys = ["trainer.max_epochs", "model"]
    assert explain("unrecognized arguments: --trainer.max_epoch 3", keys) == expected
    assert explain("Subcommand 'fit' does not accept option 'trainer.max_epoch'", keys) == expected


def test_nothing_near_suggests_nothing():
    assert explain("unrecognized arguments: --zzz 3", ["model"]) == "There is no key 'zzz'."


def test_a_form_that_is_not_known_stays_as_it_is():
    assert explain("something else\nhappened", []) == "something else\nhappened"
