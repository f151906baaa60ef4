"""Which made-up terms cannot help, and that each is said once and of no other."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from mmkd.balance import Arrived, GradientShare
from mmkd.targets import Boxes, Targets
from mmkd.term_warnings import TermWarning
from mmkd.term_watch import TermWatch, TrainingWatch

EPOCH = 100


def noise(seed: int, count: int = 3 * EPOCH, memory: float = 0.0) -> list[float]:
    """Of variance 1 and mean 0; each value keeps ``memory`` of the one before."""
    fresh = torch.randn(count, generator=torch.Generator().manual_seed(seed)).tolist()
    found = fresh[:1]
    for each in fresh[1:]:
        found.append(memory * found[-1] + math.sqrt(1 - memory**2) * each)
    return found


def falling(by: float, seed: int = 1) -> list[float]:
    """Distances of spread 1 that fall within the first epoch, around 0 as LogSum's may be."""
    return [each - by * min(1.0, i / 50) for i, each in enumerate(noise(seed))]


def feed(
    watch: TermWatch,
    cosines: Sequence[float],
    distances: Sequence[float],
    rule: GradientShare | None = None,
    batch: Callable[[int], tuple[Tensor, Tensor, Targets]] | None = None,
    epoch: int = EPOCH,
) -> list[tuple[int, TermWarning]]:
    """What is said after which iteration."""
    found = []
    for index, (cosine, distance) in enumerate(zip(cosines, distances, strict=True), start=1):
        student, teacher, targets = batch(index) if batch else (None, None, None)
        features = None if student is None or teacher is None else (student, teacher)
        watch.measured(torch.tensor(distance), epoch, features, targets)
        one = torch.ones(())
        watch.arrived(Arrived(one, one, torch.tensor(cosine), one), rule)
        found += [(index, each) for each in watch.due()]
    return found


def watch() -> TermWatch:
    return TermWatch("a", "DistillHook terms.a (neck[1])", "another level of neck (level=0)")


def kinds(found: Sequence[tuple[int, TermWarning]]) -> list[tuple[int, str]]:
    return [(index, each.kind) for index, each in found]


HARMLESS = [0.2 + 0.3 * each for each in noise(0)]


def test_a_term_that_helps_is_not_warned_of() -> None:
    assert feed(watch(), HARMLESS, falling(5)) == []


# Its gradient opposes ---------------------------------------------------------------------------


def test_a_gradient_that_opposes() -> None:
    cosines = [-0.3 + 0.2 * each for each in noise(0)]
    [(index, found)] = feed(watch(), cosines, falling(5))
    assert (index, found.term, found.kind) == (2 * EPOCH, "a", "opposed")
    means = [sum(cosines[i * EPOCH :][:EPOCH]) / EPOCH for i in (0, 1)]
    first, second = (rf"{mean:.2f} ± 0\.0[12]" for mean in means)
    assert re.match(
        r"DistillHook terms\.a \(neck\[1\]\): its gradient opposes the task's at the student's "
        f"feature: the mean cosine of the angle between them is {first} and then {second}, over",
        found.text,
    )
    assert "compare another level of neck (level=0), give it a smaller weight" in found.text


def test_one_epoch_is_not_enough() -> None:
    base = [0.0] * EPOCH + [-0.3] * EPOCH + [0.0] * EPOCH
    cosines = [a + 0.1 * b for a, b in zip(base, noise(0), strict=True)]
    assert feed(watch(), cosines, falling(5)) == []
    late = cosines[:EPOCH] + 2 * cosines[EPOCH : 2 * EPOCH]
    assert kinds(feed(watch(), late, falling(5))) == [(3 * EPOCH, "opposed")]


def test_slightly_opposed_is_not_opposed() -> None:
    assert feed(watch(), [-0.08 + 0.05 * each for each in noise(0)], falling(5)) == []


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_cosines_around_0_are_seldom_taken_to_oppose(memory: float) -> None:
    """With cosines as far apart as they get, and one much like that before."""
    said = sum(
        bool(feed(watch(), [0.5 * each for each in noise(seed, memory=memory)], falling(5)))
        for seed in range(60)
    )
    assert said <= 60 * 0.03


def test_cosines_that_are_not_known() -> None:
    """The first iteration's, and those of a loss scale that overflows."""
    cosines = [math.nan if i % 3 == 0 else -0.3 for i in range(3 * EPOCH)]
    assert kinds(feed(watch(), cosines, falling(5))) == [(2 * EPOCH, "opposed")]
    assert feed(watch(), [math.nan] * 3 * EPOCH, falling(5)) == []


# Its distance does not fall ---------------------------------------------------------------------


def test_a_distance_that_does_not_fall() -> None:
    [(index, found)] = feed(watch(), HARMLESS, noise(3))
    assert (index, found.kind) == (3 * EPOCH, "still")
    assert "over the first 10 iterations" in found.text and "last 100 of 300" in found.text
    assert kinds(feed(watch(), HARMLESS, [0.1 * i for i in range(300)])) == [(300, "still")]
    assert kinds(feed(watch(), HARMLESS, [2.0] * 300)) == [(300, "still")]


def test_whether_it_falls_is_seldom_mistaken() -> None:
    fallen = [bool(feed(watch(), HARMLESS, falling(2, seed))) for seed in range(1, 31)]
    still = [bool(feed(watch(), HARMLESS, noise(seed))) for seed in range(100, 130)]
    assert sum(fallen) <= 1 and sum(still) >= 27


@pytest.mark.parametrize("scale, offset", [(1e-3, -7.0), (50.0, 0.0), (1.0, 1e4)])
def test_scale_and_constant_of_a_distance_do_not_matter(scale: float, offset: float) -> None:
    fallen, still = falling(3), noise(3)
    assert feed(watch(), HARMLESS, [scale * each + offset for each in fallen]) == []
    found = feed(watch(), HARMLESS, [scale * each + offset for each in still])
    assert kinds(found) == [(300, "still")]


# Its share is at a bound ------------------------------------------------------------------------


@pytest.mark.parametrize("own, is_pinned", [(1e-20, True), (1.0, False)])
def test_a_share_at_a_bound(own: float, is_pinned: bool) -> None:
    rule = GradientShare(0.3)
    rule.observe(Arrived(*map(torch.tensor, (1.0, own, 0.2, 0.0))))
    found = feed(watch(), HARMLESS, falling(5), rule)
    assert kinds(found) == ([(EPOCH, "bound")] if is_pinned else [])
    if is_pinned:
        assert "its weight stands at a bound, 1e+05, in 100% of 100 iterations" in found[0][1].text


# The teacher knows no better --------------------------------------------------------------------


def batches(student: float, teacher: float) -> Callable[[int], tuple[Tensor, Tensor, Targets]]:
    """Features that show the objects of an image beneath noise of these deviations."""

    def batch(seed: int) -> tuple[Tensor, Tensor, Targets]:
        generator = torch.Generator().manual_seed(seed)
        shown = (torch.rand(2, 1, 6, 6, generator=generator) < 0.3).float()
        at = [image[0].nonzero().flip(1).float() * 8 for image in shown]
        boxes = [Boxes(torch.cat([a, a + 8], dim=1), torch.zeros(len(a)).long()) for a in at]
        sides = [
            shown * torch.ones(1, 4, 1, 1)
            + noise * torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(7 * seed + i))
            for i, noise in enumerate((student, teacher))
        ]
        return sides[0], sides[1], Targets((48, 48), boxes=boxes)

    return batch


@pytest.mark.parametrize(
    "student, teacher, is_said",
    [(2.0, 0.5, False), (0.5, 2.0, True), (0.5, 0.5, True), (1.0, 0.8, False), (0.5, 50.0, True)],
)
def test_a_teacher_without_a_lead(student: float, teacher: float, is_said: bool) -> None:
    found = feed(watch(), HARMLESS, falling(5), batch=batches(student, teacher))
    assert kinds(found) == ([(3 * EPOCH, "no lead")] if is_said else [])
    if is_said:
        assert "the teacher is no better than the student there" in found[0][1].text


# Windows, and a training that is resumed --------------------------------------------------------


@pytest.mark.parametrize("epoch, window", [(1, 200), (7, 50), (120, 120), (5000, 1000)])
def test_windows_are_epochs_within_limits(epoch: int, window: int) -> None:
    found = feed(watch(), [-0.5] * 3 * window, [2.0] * 3 * window, epoch=epoch)
    assert kinds(found) == [(2 * window, "opposed"), (3 * window, "still")]


def test_it_keeps_nothing_once_all_is_said() -> None:
    each = watch()
    feed(each, HARMLESS, falling(5))
    assert each.is_over
    assert feed(each, [-1.0] * 1000, [1.0] * 1000) == []
    assert each.state_dict()["series"].numel() == 0


@pytest.mark.parametrize("stopped", [1, 60, 100, 150, 200, 250, 299])
def test_a_resumed_run_says_the_same(stopped: int) -> None:
    cosines = [-0.3 + 0.2 * each for each in noise(0)]
    distances = noise(3)
    whole = feed(watch(), cosines, distances)
    first, second = (TrainingWatch(dict(a=watch())) for _ in range(2))
    found = feed(first["a"], cosines[:stopped], distances[:stopped])
    second.load_state_dict(first.state_dict())
    found += [
        (index + stopped, each)
        for index, each in feed(second["a"], cosines[stopped:], distances[stopped:])
    ]
    assert found == whole


def test_warnings_before_a_resume_are_kept() -> None:
    first, second = (TrainingWatch(dict(a=watch())) for _ in range(2))
    for _ in range(2 * EPOCH):
        first["a"].measured(torch.tensor(1.0), EPOCH)
        first["a"].arrived(Arrived(*torch.tensor([1.0, 1.0, -0.5, 0.3])))
    [due] = first.due() + first.due()
    second.load_state_dict(first.state_dict())
    assert second.warnings == [due] and second.due() == []
    second.load_state_dict(None)
    assert second.warnings == [] and second["a"].is_over


def test_a_probe_that_was_cut_short_says_nothing() -> None:
    batch = batches(0.5, 2.0)
    for stopped, is_said in ((200, True), (210, False)):
        first, second = watch(), watch()
        feed(first, HARMLESS[:stopped], falling(5)[:stopped], batch=batch)
        second.load_state_dict(first.state_dict())
        found = feed(second, HARMLESS[stopped:], falling(5)[stopped:], batch=batch)
        assert kinds(found) == ([(300 - stopped, "no lead")] if is_said else [])
