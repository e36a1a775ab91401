"""What a study collects besides the accuracies: one value of a result file, named by a path."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from lightning_adv.core.errors import UsageError
from lightning_adv.core.suggestions import did_you_mean

_STEP = re.compile(r"(?P<key>[^.\[\]]*)(?P<chosen>(?:\[[^\[\]]*\])*)")
_TABLE = re.compile(r"analyses/(?P<table>[\w-]+)\.csv(?P<path>.*)", re.DOTALL)
_FORM = (
    "STAGE:key.key[name=value].key, such as retrain:domains.auxiliary.robust_accuracy, attacked:rates[0].rate or "
    "fit:analyses/smoothness.csv[statistic=quadratic_sum].value"
)


class NotThereError(LookupError):
    """A result file has no value at a path. The text says at which step, without the file."""


class CollectPath(NamedTuple):
    """Where a collected value stands.

    Attributes:
        stage: The stage whose result file it is in.
        steps: From the outside inwards: a key of a mapping, a number of a list, or the conditions that one item of a
            list fulfils, as pairs of a key and the text of its value.
        table: The observer's table that it is in, of the run's ``analyses/``, in place of the result file: a list of
            the rows of its last look.
    """

    stage: str
    steps: tuple[str | int | tuple[tuple[str, str], ...], ...]
    table: str | None = None

    @classmethod
    def parse(cls, text: Any) -> CollectPath:
        """Read a path.

        Args:
            text: ``stage:a.b[key=value,key=value].c``; ``[2]`` is the third item of a list, ``[-1]`` the last.
                ``stage:analyses/NAME.csv[name=conv1,statistic=max].value`` is a number of an observer's last look.

        Raises:
            UsageError: It is no such path.

        Example:
            >>> CollectPath.parse("attacked:rates[source=a,target=b].rate").steps
            ('rates', (('source', 'a'), ('target', 'b')), 'rate')
        """
        stage, colon, path = text.partition(":") if isinstance(text, str) else ("", "", "")
        found_table = _TABLE.fullmatch(path)
        table, path = found_table.groups() if found_table else (None, path)
        steps: list[str | int | tuple[tuple[str, str], ...]] = []
        for part in _split(path):
            found = _STEP.fullmatch(part)
            if found is None or not (found["key"] or found["chosen"]):
                raise UsageError(f"it must be {_FORM}; got {text!r}.")
            steps += [found["key"]] if found["key"] else []
            steps += [_choice(choice, text) for choice in re.findall(r"\[([^\[\]]*)\]", found["chosen"])]
        if not (stage and colon and steps):
            raise UsageError(f"it must be {_FORM}; got {text!r}.")
        return cls(stage, tuple(steps), table)

    def find(self, content: Any) -> Any:
        """Return the value in the content of a result file.

        Raises:
            NotThereError: There is none, or several items of a list fulfil the conditions.

        Example:
            >>> content = {"attacks": [{"name": "FGSM", "broken": 1}, {"name": "PGD-20", "broken": 3}]}
            >>> CollectPath.parse("test:attacks[name=PGD-20].broken").find(content)
            3
        """
        value = content
        for step in self.steps:
            value = _step_into(value, step)
        return value


def parse_collect(collect: Mapping[str, Any], stages: Mapping[str, Any]) -> dict[str, CollectPath]:
    """Read what a study file collects, before anything is trained.

    Args:
        collect: Columns and paths.
        stages: The stages that there are.

    Raises:
        UsageError: A path cannot be read, or is of no stage.

    Example:
        >>> parse_collect({"broken": "attackd:attacks[0].broken"}, {"attacked": {}})
        Traceback (most recent call last):
        lightning_adv.core.errors.UsageError: collect.broken: there is no stage 'attackd'. Did you mean 'attacked'?
    """
    paths: dict[str, CollectPath] = {}
    for name, text in collect.items():
        try:
            paths[name] = CollectPath.parse(text)
        except UsageError as error:
            raise error.under(f"collect.{name}") from None
        if (stage := paths[name].stage) not in stages:
            raise UsageError(f"there is no stage {stage!r}.{did_you_mean(stage, stages)}", key=f"collect.{name}")
    return paths


def _split(path: str) -> list[str]:
    """Split at the dots that are not in brackets: a value may be 0.2."""
    return re.split(r"\.(?![^\[\]]*\])", path)


def _choice(choice: str, text: str) -> int | tuple[tuple[str, str], ...]:
    if re.fullmatch(r"-?\d{1,9}", choice):
        return int(choice)
    pairs = [condition.partition("=") for condition in choice.split(",")]
    if not all(key and equals for key, equals, _ in pairs):
        raise UsageError(f"[{choice}] must be a number or conditions such as [source=a,target=b]; got {text!r}.")
    return tuple((key.strip(), value.strip()) for key, _, value in pairs)


def _step_into(value: Any, step: str | int | tuple[tuple[str, str], ...]) -> Any:
    if isinstance(step, str):
        if isinstance(value, Mapping) and step in value:
            return value[step]
        near = did_you_mean(step, map(str, value)) if isinstance(value, Mapping) else ""
        raise NotThereError(f"there is no {step!r}{near and f' ({near[1:-1]}?)'}")
    if not isinstance(value, list):
        raise NotThereError("there is no list")
    if isinstance(step, int):
        if -len(value) <= step < len(value):
            return value[step]
        raise NotThereError(f"there is no item {step} among {len(value)}")
    chosen = [item for item in value if isinstance(item, Mapping) and all(_has(item, *pair) for pair in step)]
    if len(chosen) != 1:
        told = ",".join("=".join(pair) for pair in step)
        raise NotThereError(f"{len(chosen) or 'no'} items are [{told}]")
    return chosen[0]


def _has(item: Mapping[str, Any], key: str, text: str) -> bool:
    if key not in item:
        return False
    value = item[key]
    if value is None or isinstance(value, bool):
        return text.lower() == {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        number = to_number(text)
        return number is not None and math.isclose(number, value, rel_tol=1e-6)
    return str(value) == text


def to_number(text: str) -> float | None:
    """Return the finite number that a text is, as a setting is written; None if it is none.

    Example:
        >>> to_number("1e-4"), to_number("8/255") == 8 / 255, to_number("m0")
        (0.0001, True, None)
    """
    numerator, slash, denominator = text.partition("/")
    try:
        number = float(numerator) / (float(denominator) if slash else 1)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) and "_" not in text else None
