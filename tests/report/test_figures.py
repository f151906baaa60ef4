"""Figures of a comparison: what is on their axes, in which order, and what tells the runs apart."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox

from helpers.box_scenes import Found, Truth, annotations, detections
from mmkd.errors import InputError
from mmkd.evaluation.coco import CocoSettings
from mmkd.evaluation.comparison import Comparison, GroupResult, Run, Score, compare_runs
from mmkd.evaluation.detection_errors import ERROR_TYPES
from mmkd.evaluation.intervals import Estimate
from mmkd.report.figures import PICTURES, draw_pictures
from mmkd.report.figures.canvas import write_picture
from mmkd.report.figures.demo import part_labels
from mmkd.report.figures.lines import difference_plot, iou_plot
from mmkd.report.figures.panels import Plot
from mmkd.report.figures.summaries import score_plot
from mmkd.report.style import group_styles, run_label

IMAGES = 5
SIDES = (20, 60, 120)
# Of each image: objects of all sizes and of classes a and b, but none of c.
TRUTH: list[Truth] = [
    (image, (image + place) % 2, (200 * place, 10, side, side), False)
    for image in range(IMAGES)
    for place, side in enumerate(SIDES)
]


def found(seed: int, noise: float) -> list[Found]:
    """Copies of the objects that are shifted, and some of another class."""
    generator = np.random.default_rng(seed)
    boxes: list[Found] = []
    for image, category, (x, y, width, height), _ in TRUTH:
        shift = generator.normal(0, noise * width, 2)
        label = category if generator.random() < 1 - noise else 2
        boxes.append((image, label, (x + shift[0], y + shift[1], width, height), 0.9))
        boxes.append((image, category, (x, y + 300, width, height), generator.uniform(0.1, 0.5)))
    scores = generator.permutation(len(boxes)) / len(boxes)
    return [(*box[:3], float(score)) for box, score in zip(boxes, scores, strict=True)]


def run(name: str, seed: int, noise: float, parameters: int | None = None, time: float = 0) -> Run:
    return Run(name, detections(found(seed, noise)), parameters, time or None)


def compare(runs: list[Run], settings: CocoSettings | None = None) -> Comparison:
    return compare_runs(
        annotations(TRUTH, images=IMAGES, categories=3), runs, settings=settings, resamples=0
    )


@pytest.fixture(scope="module")
def pair() -> Comparison:
    """The teacher comes first, and is drawn last."""
    return compare(
        [
            run("teacher", 9, 0.04, 40_000_000, 0.5),
            *(run("plain", seed, 0.15, 10_000_000, 0.2) for seed in (0, 1)),
            *(run("distilled", seed, 0.1, 10_000_000, 0.3) for seed in (2, 3, 4)),
        ]
    )


@pytest.fixture(scope="module")
def many() -> Comparison:
    """Six groups, some with names that matplotlib would take for something else."""
    long = "distilled from the attention of the neck, the relations of the head and the logits" * 2
    names = ["plain", "_hidden", "cost $a$ and $b$", long, "mgd", "teacher"]
    return compare([run(name, seed, 0.1, 10**7, 0.2) for seed, name in enumerate(names)])


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def draw(plot: Plot | None, out: Path) -> Figure | None:
    return None if plot is None else write_picture(plot, out)


def picture(name: str, comparison: Comparison, out: Path) -> Figure | None:
    """One of those of `mmkd eval --figures`; where there is none, no file is written either."""
    return draw(PICTURES[f"{name}.png"](comparison, group_styles(comparison.groups)), out)


def rows(axis: Axes) -> list[str]:
    """Of axes that share their labels, the first has them."""
    labels = axis.get_yticklabels() or axis.figure.axes[0].get_yticklabels()
    return [label.get_text() for label in labels]


def bars(axis: Axes) -> list[dict[str, float]]:
    """Lengths by row, container by container."""
    ticks = axis.get_yticks()
    return [
        {
            rows(axis)[int(np.argmin(abs(ticks - (bar.get_y() + bar.get_height() / 2))))]: (
                bar.get_width()
            )
            for bar in container
        }
        for container in axis.containers
    ]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def ordered(comparison: Comparison, *names: str) -> list[GroupResult]:
    return [comparison.group(name) for name in names]


def with_classes(comparison: Comparison, gains: dict[str, Estimate]) -> Comparison:
    """Other classes; AP falls in the order of the names."""
    ap = {name: 90 - 80 * index / len(gains) for index, name in enumerate(gains)}
    scores = {name: Score(value, None, [value]) for name, value in ap.items()}
    groups = [
        replace(g, classes=scores, class_differences=gains if g.class_differences else {})
        for g in comparison.groups
    ]
    return replace(comparison, groups=groups)


def test_precision_recall_lines_are_means_over_classes_and_seeds(pair, tmp_path):
    figure = drawn(picture("precision_recall", pair, tmp_path / "out.png"))
    for axis, index, title in zip(figure.axes, (0, 5, 8), ("0.50", "0.75", "0.90"), strict=True):
        assert axis.get_title() == f"IoU {title}"
        groups = ordered(pair, "plain", "distilled", "teacher")
        for line, group in zip(axis.lines, groups, strict=True):
            expected = []
            for recall in range(101):
                seeds = []
                for evaluation in group.evaluations:
                    entries = evaluation.precision[index, recall, :, 0, -1]
                    seeds.append(np.mean([entry for entry in entries if entry != -1]))
                expected.append(100 * np.mean(seeds))
            np.testing.assert_allclose(line.get_xdata(), np.arange(101), atol=1e-9)
            np.testing.assert_allclose(line.get_ydata(), expected, atol=1e-9)
        assert max(axis.lines[2].get_ydata()) > 0
    # The mean of the line is the metric.
    line = figure.axes[0].lines[1].get_ydata()
    assert np.mean(line) == pytest.approx(pair.group("distilled").metrics["AP50"].mean)
    assert legend(figure) == ["student, plain", "student, distilled", "teacher"]


def test_precision_recall_has_no_markers_where_precision_is_zero(pair, tmp_path):
    figure = drawn(picture("precision_recall", pair, tmp_path / "out.png"))
    lines = [line for axis in figure.axes for line in axis.lines]
    assert any(line.get_ydata()[-1] == 0 for line in lines)
    for line in lines:
        assert all(line.get_ydata()[mark] > 0 for mark in line.get_markevery())


def test_class_bars_are_ap_in_the_order_of_the_gain(pair, tmp_path):
    [axis] = drawn(picture("classes", pair, tmp_path / "out.png")).axes
    gains = {name: e.value for name, e in pair.group("distilled").class_differences.items()}
    assert math.isnan(gains["c"])
    assert rows(axis) == sorted("ab", key=lambda name: -gains[name])
    groups = ordered(pair, "plain", "distilled", "teacher")
    for lengths, group in zip(bars(axis), groups, strict=True):
        assert lengths == {name: group.classes[name].mean for name in "ab"}
    # The first row is on top.
    low, high = axis.get_ylim()
    assert low > high
    marks = [sorted(line.get_xdata()) for line in axis.lines]
    assert marks == [
        sorted(group.classes[name].values) for group in groups[:2] for name in rows(axis)
    ]
    notes = [(note.get_text(), note.get_weight()) for note in axis.texts]
    assert notes == [(f"{gains[name]:+.1f}", "normal") for name in rows(axis)]


def test_gains_beyond_their_interval_are_bold(pair, tmp_path):
    gains = {
        "up": Estimate(2.0, 1.0, 3.0),
        "unsure": Estimate(1.0, -1.0, 3.0),
        "down": Estimate(-2.0, -3.0, -1.0),
    }
    figure = drawn(picture("classes", with_classes(pair, gains), tmp_path / "out.png"))
    weights = {note.get_text(): note.get_weight() for note in figure.axes[0].texts}
    assert weights == {"+2.0": "bold", "+1.0": "normal", "-2.0": "bold"}
    assert "excludes 0" in figure.get_suptitle()


def test_without_a_baseline_classes_are_in_the_order_of_the_mean_ap(tmp_path):
    comparison = compare([run("first", 0, 0.2), run("second", 1, 0.02)])
    figure = drawn(picture("classes", comparison, tmp_path / "out.png"))
    groups = comparison.groups
    means = {name: sum(group.classes[name].mean for group in groups) for name in "ab"}
    [axis] = figure.axes
    assert rows(axis) == sorted("ab", key=lambda name: -means[name])
    assert [note.get_text() for note in axis.texts] == [
        f"{group.classes[name].mean:.1f}" for group in groups for name in rows(axis)
    ]
    assert figure.get_suptitle() == "AP by class"
    assert legend(figure) == ["first", "second"]


def test_many_classes_take_two_columns_of_one_scale(pair, tmp_path):
    names = [f"class {index}" for index in range(81)]
    gains = {name: Estimate(-float(i), math.nan, math.nan) for i, name in enumerate(names)}
    figure = drawn(picture("classes", with_classes(pair, gains), tmp_path / "out.png"))
    left, right = figure.axes
    assert rows(left) == names[:41] and rows(right) == names[41:]
    assert left.get_xlim() == right.get_xlim() and left.get_ylim() == right.get_ylim()
    # AP is highest in the left column; its bars end within the axes.
    assert max(max(lengths.values()) for lengths in bars(left)) == 90 < left.get_xlim()[1]
    # No label covers the next.
    extents = [label.get_window_extent() for label in left.get_yticklabels()]
    assert all(below.y1 <= above.y0 for above, below in itertools.pairwise(extents))


def test_of_very_many_classes_both_ends_are_shown(pair, tmp_path):
    names = [f"class {index}" for index in range(300)]
    gains = {name: Estimate(-float(i), math.nan, math.nan) for i, name in enumerate(names)}
    figure = drawn(picture("classes", with_classes(pair, gains), tmp_path / "out.png"))
    assert [rows(axis) for axis in figure.axes] == [names[:60], names[-60:]]
    assert "the first and the last 60 of 300 classes" in figure.get_suptitle()


def test_size_bars_are_ap_and_ar_of_the_areas(pair, tmp_path):
    figure = drawn(picture("sizes", pair, tmp_path / "out.png"))
    for axis, kind in zip(figure.axes, ("AP", "AR"), strict=True):
        groups = ordered(pair, "plain", "distilled", "teacher")
        for lengths, group in zip(bars(axis), groups, strict=True):
            assert lengths == {
                f"{area}\n{text}": group.metrics[f"{kind}_{area}"].mean
                for area, text in (
                    ("small", "up to 32² px"),
                    ("medium", "32² to 96² px"),
                    ("large", "from 96² px"),
                )
            }
        assert [sorted(line.get_xdata()) for line in axis.lines[:3]] == [
            sorted(pair.group("plain").metrics[f"{kind}_{area}"].values)
            for area in ("small", "medium", "large")
        ]
        assert axis.texts[0].get_text() == f"{groups[0].metrics[f'{kind}_small'].mean:.1f}"
    assert legend(figure)[-1] == "one seed (bar: mean)"


def test_sizes_are_the_settings_own_and_empty_ranges_have_no_row(tmp_path):
    areas = {"all": (0, 1e10), "dust": (0, 10.0), "rest": (10.0, 1e10)}
    comparison = compare([run("a run", 0, 0.05)], CocoSettings(areas, (1, 7)))
    left, right = drawn(picture("sizes", comparison, tmp_path / "out.png")).axes
    assert rows(left) == rows(right) == ["rest\nfrom 10 px"]
    metrics = comparison.groups[0].metrics
    assert bars(left) == [{"rest\nfrom 10 px": metrics["AP_rest"].mean}]
    assert right.get_title() == "average recall, 7 detections"


def test_without_ranges_no_sizes_are_drawn(tmp_path):
    comparison = compare([run("a run", 0, 0.05)], CocoSettings({"all": (0, 1e10)}))
    assert picture("sizes", comparison, tmp_path / "out.png") is None
    dust = CocoSettings({"all": (0, 1e10), "dust": (0, 1e-3)})
    comparison = compare([run("a run", 0, 0.05)], dust)
    assert picture("sizes", comparison, tmp_path / "out.png") is None
    assert not (tmp_path / "out.png").exists()


def test_error_bars_are_cost_and_number(pair, tmp_path):
    figure = drawn(picture("errors", pair, tmp_path / "out.png"))
    for axis, which, form in zip(figure.axes, (1, 0), ("{:.1f}", "{:,.0f}"), strict=True):
        assert [label.split("\n")[0] for label in rows(axis)] == list(ERROR_TYPES)
        groups = ordered(pair, "plain", "distilled", "teacher")
        for lengths, group in zip(bars(axis), groups, strict=True):
            expected = [group.errors[name][which] for name in ERROR_TYPES]
            assert list(lengths.values()) == expected
            assert max(expected) > 0
        assert [note.get_text() for note in axis.texts] == [
            form.format(group.errors[name][which]) for group in groups for name in ERROR_TYPES
        ]
    assert legend(figure) == ["student, plain", "student, distilled", "teacher"]


def test_cost_points_are_map_by_parameters_and_step_time(pair, tmp_path):
    figure = drawn(picture("cost", pair, tmp_path / "out.png"))
    groups = {group.name: group for group in pair.groups}
    expected = [
        {"plain": 10, "distilled": 10, "teacher": 40},
        {"plain": 200, "distilled": 300, "teacher": 500},
    ]
    for axis, costs in zip(figure.axes, expected, strict=True):
        points = [line for line in axis.lines if line.get_markersize() == 10]
        assert sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in points) == sorted(
            (cost, groups[name].metrics["mAP"].mean) for name, cost in costs.items()
        )
        seeds = [list(line.get_ydata()) for line in axis.lines if line not in points]
        assert sorted(seeds) == sorted(
            groups[n].metrics["mAP"].values for n in ("plain", "distilled")
        )
        low, high = axis.get_ylim()
        assert all(low < value < high for line in axis.lines for value in line.get_ydata())
        assert axis.get_xlim()[0] == 0 and axis.get_xlim()[1] > max(costs.values())
    assert [axis.get_xlabel() for axis in figure.axes] == [
        "parameters, millions",
        "time of a training step, ms",
    ]


def test_cost_leaves_out_what_is_unknown(tmp_path):
    out = tmp_path / "out.png"
    comparison = compare([run("plain", 0, 0.1, None, 0.25), run("other", 1, 0.1)])
    figure = drawn(picture("cost", comparison, out))
    [axis] = figure.axes
    assert [list(line.get_xdata()) for line in axis.lines] == [[250.0]]
    assert legend(figure) == ["student, plain"]
    out.unlink()
    assert picture("cost", compare([run("plain", 0, 0.1)]), out) is None
    assert not out.exists()


def luminance(color: object) -> float:
    """Relative luminance (WCAG 2.2), 0 to 1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("baseline", [True, False])
def test_runs_are_told_apart_without_colour(baseline, tmp_path):
    names = ["plain", "b", "c", "d", "e", "teacher"] if baseline else list("abcdef")
    comparison = compare([run(name, seed, 0.1, 10**7) for seed, name in enumerate(names)])
    [axis] = drawn(picture("classes", comparison, tmp_path / "out.png")).axes
    patches = [container[0] for container in axis.containers]
    for one, other in itertools.combinations(patches, 2):
        light, dark = sorted(
            (luminance(one.get_facecolor()[:3]), luminance(other.get_facecolor()[:3])), reverse=True
        )
        assert one.get_hatch() != other.get_hatch() or (light + 0.05) / (dark + 0.05) > 3
    lines = drawn(picture("precision_recall", comparison, tmp_path / "out.png")).axes[0].lines
    points = drawn(picture("cost", comparison, tmp_path / "out.png")).axes[0].lines
    assert len({line.get_marker() for line in lines}) == len({p.get_marker() for p in points}) == 6
    # Seen on white: 2 to 1 at least; what is lighter than 3 to 1 has a shape or hatch besides.
    assert all(1.05 / (luminance(line.get_color()) + 0.05) > 2 for line in lines)


def test_the_legend_shows_the_looks_of_the_bars(pair, tmp_path):
    figure = drawn(picture("errors", pair, tmp_path / "out.png"))
    looks = [(c[0].get_facecolor(), c[0].get_hatch()) for c in figure.axes[0].containers]
    shown = [(p.get_facecolor(), p.get_hatch()) for p in figure.legends[0].get_patches()]
    assert shown == looks


def test_long_and_odd_names_are_shown_whole(many, tmp_path):
    classes = {
        "a class of a name that nobody ever shortens, though everybody would like to": 3.0,
        "half $a $price": 2.0,
        "_": 1.0,
    }
    comparison = with_classes(
        many, {name: Estimate(gain, math.nan, math.nan) for name, gain in classes.items()}
    )
    figure = drawn(picture("classes", comparison, tmp_path / "out.png"))
    assert [" ".join(row.split("\n")) for row in rows(figure.axes[0])] == [
        name.replace("$", r"\$") for name in classes
    ]
    names = {"student, plain" if g.name == "plain" else g.name for g in comparison.groups}
    assert {" ".join(text.split("\n")) for text in legend(figure)} == {
        name.replace("$", r"\$") for name in names
    }
    for file in draw_pictures(comparison, tmp_path / "figures"):
        # A name that is not broken into lines would widen the picture.
        assert 880 <= imread(file).shape[1] <= 940
    for axis in drawn(picture("precision_recall", comparison, tmp_path / "out.png")).axes:
        # The legend of six lines and more leaves the panels their size.
        assert axis.get_window_extent().height > 220


def test_all_figures_are_written_and_nothing_else_is_touched(pair, tmp_path):
    folder = tmp_path / "new" / "figures"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "cost.png").write_text("old")
    files = draw_pictures(pair, folder)
    stems = ["precision_recall", "classes", "sizes", "errors", "cost"]
    assert files == [folder / f"{stem}.png" for stem in stems]
    assert {file.name for file in folder.iterdir()} == {f"{s}.png" for s in stems} | {"notes.txt"}
    assert (folder / "notes.txt").read_text() == "mine"
    for file in files:
        picture = imread(file)
        assert picture.std() > 0.05


def test_folder_is_made(many, tmp_path):
    files = draw_pictures(many, tmp_path / "a" / "b")
    assert [file.name for file in files] == list(PICTURES)
    assert all(file.is_file() for file in files)


def test_a_file_in_place_of_the_folder_is_an_error(pair, tmp_path):
    file = tmp_path / "figures"
    file.write_text("mine")
    with pytest.raises(InputError, match="expected a folder for the figures, found a file"):
        draw_pictures(pair, file)
    assert file.read_text() == "mine"


def test_without_objects_only_the_number_of_errors_is_drawn(tmp_path):
    truth = annotations([], images=2, categories=2)
    boxes = detections([(0, 0, (0, 0, 10, 10), 0.5)])
    comparison = compare_runs(truth, [Run("plain", boxes, 10), Run("b", boxes)], resamples=0)
    assert draw_pictures(comparison, tmp_path) == [tmp_path / "errors.png"]
    costs, numbers = drawn(picture("errors", comparison, tmp_path / "errors.png")).axes
    assert not costs.patches and not costs.texts
    assert [sum(lengths.values()) for lengths in bars(numbers)] == [1, 1]


def test_without_detections_bars_have_no_length(tmp_path):
    truth = annotations(TRUTH, images=IMAGES, categories=3)
    comparison = compare_runs(truth, [Run("a", detections([]), 10)], resamples=0)
    assert len(draw_pictures(comparison, tmp_path)) == 5
    [axis] = drawn(picture("classes", comparison, tmp_path / "classes.png")).axes
    assert bars(axis) == [{"a": 0.0, "b": 0.0}]
    assert Path(tmp_path / "cost.png").is_file()


def test_score_bars_are_map_and_its_seeds(pair, tmp_path):
    plot = score_plot(pair, group_styles(pair.groups), run_label)
    [axis] = drawn(draw(plot, tmp_path / "out.png")).axes
    groups = ordered(pair, "plain", "distilled", "teacher")
    labels = ["student, plain", "student, distilled", "teacher"]
    assert rows(axis) == labels
    assert bars(axis) == [
        {label: group.metrics["mAP"].mean} for label, group in zip(labels, groups, strict=True)
    ]
    assert [note.get_text() for note in axis.texts] == [
        f"{group.metrics['mAP'].mean:.1f}" for group in groups
    ]
    assert [sorted(line.get_xdata()) for line in axis.lines] == [
        sorted(group.metrics["mAP"].values) for group in groups[:2]
    ]


def test_difference_points_lie_in_their_intervals(pair, tmp_path):
    compared = pair.group("distilled")
    differences = {
        name: replace(each, low=each.value - 1, high=each.value + 2)
        for name, each in compared.differences.items()
    }
    groups = [replace(g, differences=differences) if g is compared else g for g in pair.groups]
    comparison = replace(pair, groups=groups, resamples=9)
    plot = difference_plot(comparison, group_styles(comparison.groups))
    assert plot is not None and plot.title == (
        "Difference to plain, with 95% intervals over images"
    )
    [axis] = drawn(draw(plot, tmp_path / "out.png")).axes
    assert rows(axis) == [n for n, score in compared.metrics.items() if not math.isnan(score.mean)]
    lines = [line for line in axis.lines if line.get_gid() is not None]
    whiskers = [line for line in lines if len(line.get_xdata()) == 2]
    points = [line for line in lines if len(line.get_xdata()) == 1]
    assert [list(line.get_xdata()) for line in whiskers] == [
        [differences[name].low, differences[name].high] for name in rows(axis)
    ]
    # The teacher has points without intervals.
    teacher = pair.group("teacher").differences
    assert [line.get_xdata()[0] for line in points] == [
        each[name].value for each in (differences, teacher) for name in rows(axis)
    ]
    for whisker, point in zip(whiskers, points, strict=False):
        assert list(whisker.get_ydata()) == [point.get_ydata()[0]] * 2
    alone = compare([run("a", 0, 0.1)])
    assert difference_plot(alone, group_styles(alone.groups)) is None


def test_ap_by_iou_is_the_mean_of_the_precision(pair, tmp_path):
    [axis] = drawn(draw(iou_plot(pair, group_styles(pair.groups)), tmp_path / "out.png")).axes
    for line, group in zip(axis.lines, ordered(pair, "plain", "distilled", "teacher"), strict=True):
        assert list(line.get_xdata()) == pytest.approx(np.arange(0.5, 0.96, 0.05))
        assert line.get_ydata()[0] == pytest.approx(group.metrics["AP50"].mean)
        assert np.mean(line.get_ydata()) == pytest.approx(group.metrics["mAP"].mean)


def labelled_boxes(boxes: np.ndarray) -> Axes:
    figure = Figure(figsize=(2, 2))
    axis = figure.subplots()
    axis.set(xlim=(0, 100), ylim=(100, 0))
    for index, (x, y, width, height) in enumerate(boxes.tolist()):
        axis.add_patch(Rectangle((x, y), width, height))
        axis.text(x, y, str(index), fontsize=9, va="bottom", bbox=dict(pad=1))
    figure.draw_without_rendering()
    return axis


def grounds(axis: Axes) -> list[Bbox]:
    """Of the labels that are seen."""
    axis.figure.draw_without_rendering()
    return [t.get_bbox_patch().get_window_extent() for t in axis.texts if t.get_visible()]


def overlaps(places: list[Bbox]) -> int:
    return sum(place.count_overlaps(places) - 1 for place in places)


@pytest.mark.parametrize("count", [2, 8, 60])
def test_labels_of_the_demo_s_boxes_do_not_overlap(count):
    # On one object, as detections of several classes are, and all over the picture.
    near = np.array([[40, 40, 20, 20]]) + np.random.default_rng(0).uniform(-2, 2, (count, 4))
    spread = np.random.default_rng(1).uniform(5, 60, (count, 4)) * (1, 1, 0.5, 0.5)
    assert overlaps(grounds(labelled_boxes(near))) > 0
    for boxes in (near, spread):
        axis = labelled_boxes(boxes)
        part_labels(axis)
        places = grounds(axis)
        assert overlaps(places) == 0
        # The four outer corners hold a label each.
        assert len(places) >= min(count, 4)
        for label, box in zip(axis.texts, axis.patches, strict=True):
            x, y = label.get_position()
            assert x in (box.get_x(), box.get_x() + box.get_width())
            assert y in (box.get_y(), box.get_y() + box.get_height())
