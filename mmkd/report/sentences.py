"""What the figures say, in words: conclusions, a page's first sentence, and its key figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmkd.evaluation.comparison import DISTILLED, Comparison, GroupResult
from mmkd.evaluation.intervals import Estimate
from mmkd.report.numbers import (
    counted,
    score,
    share,
    share_estimate,
    signed,
    span,
    typographic,
    undefined_or,
)
from mmkd.work_dirs import MAP_CURVES, Curve, WorkDir

__all__ = ["Tile", "conclusions", "gain_title", "tiles", "verdict"]


def conclusions(comparison: Comparison) -> list[str]:
    """A sentence each run that is compared to the baseline, for terminals and files.

    Without a baseline, the sentences state the runs' average precision.
    """
    if comparison.baseline is None:
        return [f"{g.name}: {score(g.metrics['mAP'])} mAP." for g in comparison.groups]
    baseline = comparison.group(comparison.baseline)
    sentences = []
    for group in comparison.groups:
        if group.role != "run":
            continue
        gain = group.differences["mAP"]
        text = f"{group.name} against {baseline.name}: {signed(gain.value)} mAP points"
        details = []
        if gain.has_interval:
            details.append(f"95% interval over {gain.over} {span(gain)}")
            details[0] += "" if gain.low > 0 or gain.high < 0 else ", which holds 0"
        if gain.seeds:
            details.append(f"seed by seed {by_seed(gain)}")
        text += f" ({'; '.join(details)})" if details else ""
        if gain.seeds_disagree:
            text += ", which is unclear: the seeds disagree in sign"
        if group.lead_closed is not None:
            text += f", {share_estimate(group.lead_closed)} of the teacher's lead"
        # What an interval over images does not tell: how much other seeds would change.
        text += "" if gain.holds_for_seeds or gain.seeds else "; other seeds may differ by more"
        sentences.append(f"{text}.")
    return sentences


def gain_title(comparison: Comparison) -> str:
    """The title of a picture of the runs' mAP: what the best of them gains."""
    best = best_student(comparison)
    if best is None or not best.differences:
        return "mAP of each run"
    gain = best.differences["mAP"]
    text = f"{_subject(best)} adds {signed(gain.value)} mAP"
    if why_unclear(gain):
        text += ", which is unclear"
    elif best.lead_closed is not None:
        text += f", {share(best.lead_closed.value)} of the gap to the teacher"
    return text


@dataclass(frozen=True)
class Tile:
    """A key figure: what it is, its value, and what belongs to it in small print."""

    label: str
    value: str
    note: str = ""


def verdict(
    comparison: Comparison | None,
    groups: Mapping[str, Sequence[WorkDir]],
    roles: Mapping[str, str],
) -> str:
    """What came out, in one sentence of plain words.

    Args:
        comparison: Of the detections, where there are any.
        groups: Runs by name.
        roles: By name.
    """
    if comparison is None:
        return _logged_verdict(groups, roles)
    if all(math.isnan(group.metrics["mAP"].mean) for group in comparison.groups):
        return "The annotation file has no objects, so there is no score."
    best = best_student(comparison)
    if best is None or not best.differences:
        return _ranking(comparison)
    return _against_baseline(best, comparison)


def best_student(comparison: Comparison) -> GroupResult | None:
    """The run with the highest mAP that is neither baseline nor teacher."""
    runs = [group for group in comparison.groups if group.role == "run"]
    return max(runs, key=lambda group: group.metrics["mAP"].mean, default=None)


def _subject(best: GroupResult) -> str:
    return "Distillation" if best.name == DISTILLED else best.name


def _against_baseline(best: GroupResult, comparison: Comparison) -> str:
    change = best.differences["mAP"]
    unclear = why_unclear(change)
    runs = sum(group.role == "run" for group in comparison.groups)
    # The best of several is better on these images than on others: luck has helped to choose it.
    is_chosen = runs > 1
    lead = _subject(best)
    if is_chosen:
        lead = f"Of {runs} runs, {best.name} does best: chosen by this score, it"
    text = f"{lead} adds {change.value:.1f} mAP to {comparison.baseline}"
    if change.value < 0:
        text = f"{lead} costs {abs(change.value):.1f} mAP against {comparison.baseline}"
    details = [_seeds(len(best.evaluations))]
    if change.seeds:
        details[0] += f": {typographic(by_seed(change))}"
    if change.has_interval:
        unadjusted = ["not adjusted for the choice"] * is_chosen
        interval = f"95% interval {typographic(span(change))} over {change.over}"
        details = [interval, *unadjusted, *details]
    text += f" ({', '.join(details)})"
    if unclear:
        return f"Unclear: {text}; {unclear}."
    if best.lead_closed is not None and change.value > 0:
        text += f", {share(best.lead_closed.value)} of the teacher’s lead"
    return f"{text}."


def by_seed(change: Estimate) -> str:
    """The difference of each seed."""
    return ", ".join(signed(each) for each in change.seeds)


def why_unclear(change: Estimate) -> str:
    """Why a difference proves nothing; empty where it may."""
    if change.seeds_disagree:
        return "the seeds disagree in sign"
    if change.has_interval and not change.is_clear:
        return "the interval includes 0, so this may be chance"
    return ""


def _ranking(comparison: Comparison) -> str:
    scored = [g for g in comparison.groups if not math.isnan(g.metrics["mAP"].mean)]
    first, *others = sorted(scored, key=lambda group: -group.metrics["mAP"].mean)
    text = f"{first.name} reaches {first.metrics['mAP'].mean:.1f} mAP"
    text += f" ({_seeds(len(first.evaluations))})"
    if others:
        text += "; " + ", ".join(f"{g.name} {g.metrics['mAP'].mean:.1f}" for g in others)
    return f"{text}."


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else counted(count, "seed")


def _logged_verdict(groups: Mapping[str, Sequence[WorkDir]], roles: Mapping[str, str]) -> str:
    """From what was logged, where there are no detections: the main score's last value."""
    curves = [c for runs in groups.values() for run in runs for c in run.curves if _is_score(c)]
    score = min((curve.name for curve in curves), key=_rank, default=None)
    if score is None:
        runs = sum(map(len, groups.values()))
        return f"{'One run' if runs == 1 else counted(runs, 'run')} without a score."
    ends = _last_values(groups, score)
    baseline = next((name for name, role in roles.items() if role == "baseline"), None)
    students = {name: value for name, value in ends.items() if roles[name] == "run"}
    name = max(students or ends, key=lambda each: ends[each])
    text = f"{name} ends at {score} {undefined_or(ends[name])}"
    if baseline in ends and name != baseline:
        difference = ends[name] - ends[baseline]
        text += f", {abs(difference):.3g} {'above' if difference >= 0 else 'below'} {baseline}"
    return f"{text} ({_seeds(len(groups[name]))})."


def _is_score(curve: Curve) -> bool:
    return curve.group == "score" and bool(curve.points)


def _rank(score: str) -> int:
    """The lower, the more a score says of the whole run: mAP, then what a recipe of mmkd's noted at
    its end (trainers' own names hold a slash), then accuracy, then others."""
    own = [score in MAP_CURVES, "/" not in score, "accuracy" in score]
    return own.index(True) if any(own) else len(own)


def _last_values(groups: Mapping[str, Sequence[WorkDir]], score: str) -> dict[str, float]:
    """The mean over seeds, by run."""
    found = {
        name: [c.points[-1][1] for run in runs for c in run.curves if c.name == score and c.points]
        for name, runs in groups.items()
    }
    return {name: sum(values) / len(values) for name, values in found.items() if values}


def tiles(comparison: Comparison | None) -> list[Tile]:
    """The figures that most readers come for; none without an evaluation."""
    if comparison is None:
        return []
    found = [_score_tile(group) for group in comparison.groups]
    best = best_student(comparison)
    if best is not None and best.differences:
        change = best.differences["mAP"]
        gained = typographic(signed(change.value))
        label = f"{best.name} − {comparison.baseline}"
        note = typographic(span(change))
        found.append(Tile(label, gained, f"unclear, {note}" if why_unclear(change) else note))
    if best is not None and best.lead_closed is not None:
        closed = best.lead_closed
        note = span(closed, is_share=True)
        found.append(Tile("of the teacher’s lead", share(closed.value), note))
    truth = comparison.annotations
    objects = counted(int((~truth.crowd).sum()), "object")
    found.append(Tile("images", f"{len(truth.image_ids):,}", objects))
    return found


def _score_tile(group: GroupResult) -> Tile:
    found = group.metrics["mAP"]
    if math.isnan(found.mean):
        return Tile(f"{group.name}, mAP", "–", "no objects")
    seeds = _seeds(len(found.values))
    note = seeds if found.spread is None else f"± {found.spread:.1f} over {seeds}"
    return Tile(f"{group.name}, mAP", f"{found.mean:.1f}", note)
