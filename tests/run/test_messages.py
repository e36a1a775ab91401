import pytest

from lightning_adv.callbacks import EarlyWarning
from lightning_adv.run.messages import explain, missing_recipe

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


@pytest.mark.parametrize(
    ("given", "told"),
    [("abc", "abc"), ("[1, 2]", "[1, 2]"), ("None", "None"), ("two. Words", "two. Words"), ("", "nothing")],
)
def test_a_value_of_one_type_stands_beside_it(given, told):
    """As jsonargparse 4.53 writes it of an argument that takes one type alone."""
    message = f"Parser key \"seed\":\n  Expected a <class 'int'>. Got value: {given}"
    assert explain(message, []) == f"seed: it must be of type int, got {told}."


def test_nearest_key():
    expected = "There is no key 'trainer.max_epoch'. Did you mean 'trainer.max_epochs'?"
    keys = ["trainer.max_epochs", "model"]
    assert explain("unrecognized arguments: --trainer.max_epoch 3", keys) == expected
    assert explain("Subcommand 'fit' does not accept option 'trainer.max_epoch'", keys) == expected


def test_nothing_near_suggests_nothing():
    assert explain("unrecognized arguments: --zzz 3", ["model"]) == "There is no key 'zzz'."


def test_a_form_that_is_not_known_stays_as_it_is():
    assert explain("something else\nhappened", []) == "something else\nhappened"


HEAD = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'lightning_adv.regimes.base.Regime'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'lightning_adv.regimes.MadryTraining':
"""
TAIL = """
    - Expected a <class 'NoneType'>
  Given value type: <class 'jsonargparse._util.NestedArg'>
  Given value: """
OPTIMIZER = """        Parser key "optimizer":
          - Expected a path but X either not accessible or invalid
          - """
CALLABLE = "Type typing.Callable[[collections.abc.Iterable], torch.optim.optimizer.Optimizer] expects a function or a callable class: "  # noqa: E501


@pytest.mark.parametrize(
    ("error", "given", "told"),
    [
        (
            "        the following arguments are required: backbone",
            "Namespace(class_path='lightning_adv.regimes.MadryTraining', init_args=Namespace(backbone=None))",
            "model > MadryTraining: backbone must be given.",
        ),
        (
            OPTIMIZER + CALLABLE + "module 'torch.optim' has no attribute 'SDG'. Got value: torch.optim.SDG",
            "NestedArg(key='optimizer', val='torch.optim.SDG')",
            "model > MadryTraining > optimizer: there is no class 'SDG' in torch.optim. Did you mean 'SGD'?",
        ),
        (
            OPTIMIZER + "Expected a dot import path string: SDG",
            "NestedArg(key='optimizer', val='SDG')",
            "model > MadryTraining > optimizer: there is no class 'SDG'. Did you mean 'SGD'?",
        ),
        (
            '        Parser key "objective":\n          - Expected a dot import path string: PGD',
            "NestedArg(key='objective', val='PGD')",
            "model > MadryTraining > objective: 'PGD' is not of a class that is allowed here.",
        ),
        (
            OPTIMIZER
            + "Multiple subclasses with name Plateau. Give the full class path to avoid ambiguity: a.b.Plateau, "
            "c.Plateau.",
            "NestedArg(key='optimizer', val='Plateau')",
            "model > MadryTraining > optimizer: there are several classes 'Plateau': write a.b.Plateau or c.Plateau.",
        ),
        (
            OPTIMIZER + CALLABLE + "Option 'lrr' is not accepted. Got value: Namespace(class_path='torch.optim.SGD', "
            "init_args=Namespace(lrr='0.1'))",
            "NestedArg(key='optimizer.init_args.lrr', val='0.1')",
            "model > MadryTraining > optimizer: there is no option 'lrr'. Did you mean 'lr'?",
        ),
        (
            OPTIMIZER
            + CALLABLE
            + """Parser key "lr":
            - Does not validate against any of the Union subtypes
            Errors:
              - Expected a <class 'float'>
              - Expected a dot import path string: abc
            Given value type: <class 'str'>
            Given value: abc. Got value: Namespace(class_path='torch.optim.SGD', init_args=Namespace(lr='abc'))""",
            "NestedArg(key='optimizer.init_args.lr', val='abc')",
            "model > MadryTraining > optimizer > lr: it must be of type float, got abc.",
        ),
        (
            OPTIMIZER
            + CALLABLE
            + """Parser key "nesterov":
            Expected a <class 'bool'>. Got value: x. Got value: Namespace(class_path='torch.optim.SGD')""",
            "NestedArg(key='optimizer', val={'class_path': 'SGD', 'init_args': {'nesterov': 'x'}})",
            "model > MadryTraining > optimizer > nesterov: it must be of type bool, got x.",
        ),
        (
            """        Parser key "backbone":
          Problem with given class_path 'lightning_adv.nn.backbones.Backbone':
            Parser key "in_channels":
              Expected a <class 'int'>. Got value: x""",
            "NestedArg(key='backbone.in_channels', val='x')",
            "model > MadryTraining > backbone > Backbone > in_channels: it must be of type int, got x.",
        ),
    ],
)
def test_mistakes_within_a_class(error, given, told):
    """As jsonargparse 4.53 writes them."""
    assert explain(HEAD + error + TAIL + given, []) == told


def test_a_class_among_several_that_takes_a_list_too():
    message = (
        "Parser key \"trainer.callbacks\":\n  Errors:\n    - Expected a <class 'list'>\n"
        "    - Expected a dot import path string: EarlyWarnin\n  Given value: EarlyWarnin"
    )
    expected = f"trainer.callbacks: there is no class 'EarlyWarnin'. Did you mean {EarlyWarning.__name__!r}?"
    assert explain(message, []) == expected
    only_a_list = "Parser key \"milestones\":\n  - Expected a <class 'list'>\n  Given value: 3"
    assert explain(only_a_list, []) == "milestones: it must be of type list, got 3."


def test_missing_top_level_arguments_stay_as_they_are():
    message = "the following arguments are required: fit.data, fit.model"
    assert explain(message, []) == message


@pytest.mark.parametrize(
    ("regime", "argument", "choice"),
    [
        ("MadryTraining", "attack", "PGD"),
        ("AdvPropTraining", "attack", "GD"),
        ("SmoothAdversarialTraining", "attack", "PGD"),  # handed on to MadryTraining
        ("StandardTraining", "evaluation_attack", "FGSM"),
        ("MadryTraining", "objective", "TRADES"),
    ],
)
def test_null_for_a_part_that_is_needed(regime, argument, choice):
    told = missing_recipe(f"lightning_adv.regimes.{regime}", {argument: None, "num_classes": None})
    assert told.startswith(f"{argument} is null, but {regime} needs one: ")
    assert choice in told


def test_null_where_it_has_a_meaning():
    arguments = {"attack": None, "weight_perturbation": None, "scheduler": None, "blocks": None}
    assert missing_recipe("lightning_adv.regimes.BlockwiseRetraining", arguments) is None
    arguments = {"augmentation": None, "activation": None}
    assert missing_recipe("lightning_adv.regimes.AdvPropTraining", arguments) is None
