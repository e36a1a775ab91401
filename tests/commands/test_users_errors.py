"""A user's own bug keeps its traceback; a UsageError of the user's own is one line."""

import sys
from pathlib import Path

import pytest

from lightning_adv.attacks.forward import NoGradientError
from lightning_adv.cli import main
from lightning_adv.core.errors import UsageError
from tests.commands.shortened import SHORT

RUN = Path(__file__).parents[1] / "fixtures/v0.1.0/madry"
BEST = f"{RUN}/checkpoints/best.ckpt"

MODULE = """
from lightning.pytorch import Callback
from lightning_adv.attacks import FGSM
from lightning_adv.core.errors import UsageError
from lightning_adv.data import DigitsDataModule
from lightning_adv.regimes import StandardTraining

ERRORS = {each.__name__: each for each in (ValueError, TypeError, KeyError, UsageError)}

def fail(error):
    raise ERRORS[error]("the user's own line")

class AtOnce(FGSM):
    def __init__(self, error: str, eps: float = 0.2):
        fail(error)

class Late(FGSM):
    def __init__(self, error: str, eps: float = 0.2):
        super().__init__(eps=eps)
        self.error = error

    def __call__(self, *args, **kwargs):
        fail(self.error)

class LateRegime(StandardTraining):
    def training_step(self, batch, batch_idx):
        fail("TypeError")

class AtOnceRegime(StandardTraining):
    def __init__(self, **kwargs):
        fail("KeyError")

class AtOnceObserver(Callback):
    def __init__(self, error: str):
        fail(error)

class LateObserver(Callback):
    def __init__(self, error: str):
        self.error = error

    def on_train_batch_end(self, *args):
        fail(self.error)

class AtOnceData(DigitsDataModule):
    def __init__(self, batch_size: int = 32):
        super().__init__(batch_size=batch_size)
        fail("ValueError")

class LateData(DigitsDataModule):
    def setup(self, stage):
        fail("ValueError")
"""


@pytest.fixture(autouse=True)
def _module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("users_parts.py").write_text(MODULE)
    yield
    sys.modules.pop("users_parts", None)


def part(name: str, error: str) -> str:
    return f"{{class_path: users_parts.{name}, init_args: {{error: {error}}}}}"


FIT = ["fit", "--config=digits/madry", *SHORT]
EVALUATE = ["evaluate", f"--checkpoint={BEST}", "--eps.linf=[0.1]", "--images=8", "--output=out", "--accelerator=cpu"]
EVALUATE += ["--suspicion_images=0"]
TRANSFER = ["transfer", f"--networks={{a: {BEST}, b: {BEST}}}", "--eps=0.1", "--images=8", "--accelerator=cpu"]
TEST = ["test", f"--config={RUN}/config.yaml", f"--ckpt_path={BEST}", "--trainer.logger.init_args.save_dir=runs"]

CASES = {
    "attack, constructor": (ValueError, [*FIT, f"--model.init_args.attack={part('AtOnce', 'ValueError')}"]),
    "attack, training": (KeyError, [*FIT, f"--model.init_args.attack={part('Late', 'KeyError')}"]),
    "regime, constructor": (KeyError, ["fit", "--config=digits/standard", *SHORT, "--model=users_parts.AtOnceRegime"]),
    "regime, training": (TypeError, ["fit", "--config=digits/standard", *SHORT, "--model=users_parts.LateRegime"]),
    "observer, constructor": (TypeError, [*FIT, f"--trainer.callbacks+={part('AtOnceObserver', 'TypeError')}"]),
    "observer, training": (ValueError, [*FIT, f"--trainer.callbacks+={part('LateObserver', 'ValueError')}"]),
    "data, constructor": (ValueError, [*FIT, "--data=users_parts.AtOnceData"]),
    "data, setup": (ValueError, [*FIT, "--data=users_parts.LateData"]),
    "test": (ValueError, [*TEST, "--data=users_parts.LateData"]),
    "evaluate, constructor": (TypeError, [*EVALUATE, f"--attacks=[{part('AtOnce', 'TypeError')}]"]),
    "evaluate": (ValueError, [*EVALUATE, f"--attacks=[{part('Late', 'ValueError')}]"]),
    "evaluate, data": (ValueError, [*EVALUATE, "--attacks=[FGSM]", "--data=users_parts.LateData"]),
    "transfer": (KeyError, [*TRANSFER, f"--attacks=[{part('Late', 'KeyError')}]"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_users_own_bug_keeps_its_traceback(case):
    kind, arguments = CASES[case]
    with pytest.raises(kind, match="the user's own line") as raised:
        main(arguments)
    assert type(raised.value) is kind
    last = raised.traceback[-1]
    assert (Path(last.path).name, last.name) == ("users_parts.py", "fail")
    assert raised.traceback[-2].path == last.path


@pytest.mark.slow
@pytest.mark.parametrize("case", ["attack, constructor", "attack, training", "evaluate", "transfer"])
def test_a_users_own_usage_error_is_one_line(case, capsys):
    kind, arguments = CASES[case]
    with pytest.raises(SystemExit) as end:
        main([argument.replace(kind.__name__, "UsageError") for argument in arguments])
    assert end.value.code == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("lightning-adv")
    assert told.endswith("error: the user's own line")
    assert "Traceback" not in told


@pytest.mark.slow
def test_a_library_that_refuses_a_value_is_told_in_one_line(capsys):
    stop = "{class_path: EarlyStopping, init_args: {monitor: x, mode: up}}"
    with pytest.raises(SystemExit) as end:
        main([*FIT, f"--trainer.callbacks+={stop}"])
    assert end.value.code == 1
    assert "EarlyStopping cannot be built: `mode` can be min, max, got up" in capsys.readouterr().err


def test_the_key_goes_in_front():
    error = UsageError("it must be at least 1, got 0.", key="steps").under("attack")
    assert str(error) == "attack.steps: it must be at least 1, got 0."
    assert str(NoGradientError().under("attacks[0]")).startswith("attacks[0]: The network's logits have no gradient")
