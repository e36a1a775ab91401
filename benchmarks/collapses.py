"""Which signal of the flight recorder warns before robust accuracy falls, in the runs of a study of collapses.

README.md beside this file says how rules are chosen and judged.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from lightning_adv.core.figures import COLOURS, SMALL, in_words, new_figure, set_text
from lightning_adv.core.table import Row, read_table
from lightning_adv.studies import read_study_folder

BURN_IN = 3  # looks before which no rule warns: in the first ones every signal moves
ACCURACIES = ("clean_accuracy", "fgsm_accuracy", "robust_accuracy")
DRAWN = ("robust_accuracy", "loss_line_peaks_inside", "gradient_alignment", "elle")


class Run(NamedTuple):
    """The looks of a run: each signal of the whole network by epoch."""

    collapses: bool
    seed: int
    signals: dict[str, dict[int, float]]
    fall: float

    @property
    def onset(self) -> int | None:
        """The first epoch at which robust accuracy is ``fall`` below its best; None where it never is."""
        best = 0.0
        for epoch, value in self.signals["robust_accuracy"].items():
            best = max(best, value)
            if best - value >= self.fall:
                return epoch
        return None


class Rule(NamedTuple):
    """Warn at the first look at which ``sign * change(signal)`` exceeds a threshold."""

    signal: str
    kind: str
    sign: int
    threshold: float

    def __str__(self) -> str:
        what = self.signal if self.kind == "level" else f"{self.signal}, less its {self.kind} so far,"
        return f"{what} {'above' if self.sign > 0 else 'below'} {self.sign * self.threshold:.3g}"

    def alarm(self, run: Run) -> int | None:
        """The epoch of the first warning."""
        found = scores(run, self.signal, self.kind, self.sign)
        return next((epoch for epoch, score in found.items() if score > self.threshold), None)


def scores(run: Run, signal: str, kind: str, sign: int) -> dict[int, float]:
    """What a rule compares with its threshold, by epoch."""
    found: dict[int, float] = {}
    past: list[float] = []
    for look, (epoch, value) in enumerate(run.signals.get(signal, {}).items()):
        past.append(value)
        reference = {"level": 0.0, "lowest": min(past), "highest": max(past)}[kind]
        if look >= BURN_IN:
            found[epoch] = sign * (value - reference)
    return found


def read_runs(folder: Path, collapsing: str, sound: Sequence[str], fall: float = 0.2) -> list[Run]:
    runs = []
    for row in read_study_folder(folder).rows:
        if row["training"] in (collapsing, *sound) and row["status"] == "done":
            table = read_table(folder / str(row["run"]) / "analyses" / "flight_recorder.csv")
            runs.append(Run(row["training"] == collapsing, int(str(row["seed"])), by_signal(table), fall))
    return runs


def by_signal(rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.name == "":
            found.setdefault(row.statistic, {})[row.epoch] = row.value
    gap = {epoch: value - found["robust_accuracy"][epoch] for epoch, value in found["fgsm_accuracy"].items()}
    return found | {"fgsm_accuracy_less_robust_accuracy": gap}


def judge(rule: Rule, runs: Sequence[Run]) -> dict[str, Any]:
    """How many falls a rule warns of at least one epoch before, and how often it warns where there is none."""
    leads = []
    for run in runs:
        if run.collapses and (onset := run.onset) is not None:
            alarm = rule.alarm(run)
            leads.append(None if alarm is None else onset - alarm)
    sound = [run for run in runs if not run.collapses]
    return {
        "warned": sum(lead is not None and lead >= 1 for lead in leads), "falls": len(leads), "leads": leads,
        "false_alarms": sum(rule.alarm(run) is not None for run in sound), "sound": len(sound),
    }  # fmt: skip


def choose(runs: Sequence[Run], signal: str) -> tuple[Rule, int]:
    """Return the rule of a signal that is best on some runs, and its warnings less false alarms.

    Of thresholds that are as good it is the middle one; of kinds that are as good the first.
    """
    best: tuple[Rule, int] | None = None
    for kind, signs in {"level": (1, -1), "lowest": (1,), "highest": (-1,)}.items():
        for sign in signs:
            values = sorted({score for run in runs for score in scores(run, signal, kind, sign).values()})
            middles = [(low + high) / 2 for low, high in itertools.pairwise(values)]
            points = {}
            for threshold in middles:
                found = judge(Rule(signal, kind, sign, threshold), runs)
                points[threshold] = found["warned"] - found["false_alarms"]
            top = max(points.values(), default=0)
            good = [threshold for threshold, gained in points.items() if gained == top]
            if good and (best is None or top > best[1]):
                best = Rule(signal, kind, sign, good[len(good) // 2]), top
    if best is None:
        raise SystemExit(f"{signal} never changes in the runs by which its rule would be chosen.")
    return best


def crossed(halves: Sequence[Sequence[Run]], signal: str) -> dict[str, Any]:
    """Choose a signal's rule on each half of the seeds, and judge it on the other."""
    first, second = halves
    rules = [choose(half, signal)[0] for half in halves]
    found = [judge(rules[0], second), judge(rules[1], first)]
    leads = [lead for each in found for lead in each["leads"]]
    ahead = [lead for lead in leads if lead is not None and lead >= 1]
    sums = {key: sum(each[key] for each in found) for key in ("warned", "falls", "false_alarms", "sound")}
    return sums | {"median_lead": median(ahead) if ahead else None, "leads": leads, "rules": list(map(str, rules))}


def draw(runs: Sequence[Run], file: Path) -> None:
    """Draw some signals of all runs over the epochs."""
    figure = new_figure(9, 6)
    for axes, signal in zip(figure.subplots(2, 2, sharex=True).flat, DRAWN, strict=True):
        for run in sorted(runs, key=lambda each: each.collapses):
            points = run.signals.get(signal, {})
            style = {"color": COLOURS[1 if run.collapses else 0], "alpha": 0.7, "linewidth": 1}
            axes.plot(list(points), list(points.values()), **style)
            if run.collapses and run.onset in points:
                axes.plot([run.onset], [points[run.onset]], "o", color=COLOURS[1], markersize=4)
        set_text(axes, in_words(signal), x="Epoch")
        if signal == "elle":
            axes.set_yscale("log")
    figure.suptitle(
        "Collapsing runs (orange; dots where robust accuracy has fallen) and sound ones (blue)", fontsize=SMALL + 1
    )
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="the study's folder")
    parser.add_argument("--collapsing", default="collapse", help="the value of the axis training that collapses")
    parser.add_argument("--sound", nargs="+", default=["sound"], help="its values that do not")
    parser.add_argument("--fall", type=float, default=0.2, help="of robust accuracy, below its best so far")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    runs = read_runs(args.study, args.collapsing, args.sound, args.fall)
    halves = [[run for run in runs if run.seed % 2 == half] for half in (0, 1)]
    signals = dict.fromkeys(name for run in runs for name in run.signals if name not in ACCURACIES)
    result = {signal: crossed(halves, signal) for signal in signals}
    ranked = sorted(result.items(), key=lambda each: each[1]["false_alarms"] - each[1]["warned"])
    for signal, found in ranked:
        ahead = f"{found['warned']} of {found['falls']}"
        print(f"{signal:36s} {ahead}, {found['false_alarms']} of {found['sound']} false, {'; '.join(found['rules'])}")
    onsets = {f"{'collapse' if run.collapses else 'sound'} {run.seed}": run.onset for run in runs}
    print("onsets:", onsets)
    if args.json is not None:
        args.json.write_text(json.dumps({"onsets": onsets, "signals": dict(ranked)}, indent=1))
    if args.figure is not None:
        draw(runs, args.figure)


if __name__ == "__main__":
    main()
