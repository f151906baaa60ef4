"""Every command, called with what it cannot use: one line, and nothing of the user's is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from helpers import scenes
from helpers.full_disk import full_disk
from helpers.report_inputs import Inputs, make_inputs, mmengine_work_dir
from helpers.spoiled_json import spoiled
from mmkd.cli import app

# Calls with a bad path at {}. What they would do with a good one is tested elsewhere.
READING = [
    "eval {} {found} --resamples 0",
    "eval {truth} {} --resamples 0",
    "eval {truth} name={} --resamples 0",
    "eval {truth} {found} --images {} --config name={}",
    "eval {truth} checkpoint={checkpoint} --images {}",
    "eval {truth} {checkpoint} --images {images} --out {spare} --config plain={}",
    "report {} --out {new}",
    "report {run} --annotations {} --out {new}",
    "report {run} --detections {run}={} --out {new}",
    "report {run} --images {} --out {new}",
    "data to-yolo --train {} {images} --val {truth} {images} --out {new}",
    "data to-yolo --train {truth} {images} --val {truth} {} --out {new}",
    "data to-yolo --train {truth} {images} --val {truth} {images} --test {} {} --out {new}",
    "compare {} --out {new}",
    "yolo train {}.yaml",
]
WRITING = [
    "eval {truth} {found} --resamples 0 --json {}",
    "eval {truth} {found} --resamples 0 --csv {}",
    "eval {truth} {found} --resamples 0 --markdown {}",
    "report {run} --resamples 0 --out {}",
    "data digits --num-train 1 --num-val 1 --out {}",
    "data to-yolo --train {truth} {images} --val {truth} {images} --out {}",
    "compare {config} --out {}",
]
# The demo makes its runs beside what is in a folder, unless that is in their way.
DEMO = ("loop", "pipe", "below a file", "below a loop", "long name", "long path", "file", "device")


@dataclass(frozen=True)
class Place:
    """A folder with what commands take, and with paths that nothing can be read from or written to.

    Args:
        folder: All of it.
        good: Names of paths that can be read, for calls.
        no_input: Paths that cannot.
        no_output: Paths that cannot be written.
    """

    folder: Path
    good: dict[str, Path]
    no_input: dict[str, Path]
    no_output: dict[str, Path]

    def state(self) -> dict[str, Any]:
        """All that is there: what folders hold, where links lead, what files hold."""
        found: dict[str, Any] = {}
        for each in sorted(self.folder.rglob("*")):
            name = str(each.relative_to(self.folder))
            is_plain = each.is_file() and not each.is_symlink()
            found[name] = os.readlink(each) if each.is_symlink() else None
            if is_plain and each.stat().st_size < 10**6:
                found[name] = each.read_bytes()
        return found


def _inputs_that_cannot_be(folder: Path) -> dict[str, Path]:
    bad = {name: folder / f"bad_{name}" for name in ("empty", "deep", "binary", "huge", "loop")}
    bad["empty"].write_bytes(b"")
    bad["deep"].write_text("[" * 100_000)
    bad["binary"].write_bytes(bytes(range(256)))
    with bad["huge"].open("wb") as stream:
        stream.truncate(20_000_000_000)
    bad["loop"].symlink_to(bad["loop"])
    bad["broken"] = folder / "bad_broken"
    bad["broken"].symlink_to("nothing")
    bad["pipe"] = folder / "bad_pipe"
    os.mkfifo(bad["pipe"])
    return bad | {
        "missing": folder / "none",
        "device": Path("/dev/zero"),
        "below a file": bad["binary"] / "file",
        "below a loop": bad["loop"] / "file",
        "zero byte": Path("a\0b"),
        "long name": folder / ("a" * 300),
        "long path": folder.joinpath(*["a" * 200] * 30),
        "surrogate": Path("a\udcffb"),
        "escape": Path("a\x1b[2J\nb"),
        "nobody's": Path("~nobody-of-this-name/file"),
    }


def _outputs_that_cannot_be(folder: Path, bad: dict[str, Path]) -> dict[str, Path]:
    taken = folder / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    names = ("loop", "broken", "pipe", "below a file", "below a loop", "zero byte", "long name")
    return {name: bad[name] for name in (*names, "long path")} | {
        "folder": taken,
        "file": taken / "mine.txt",
        "device": Path("/dev/full"),
        "kernel's": Path("/proc/none/file"),
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def place(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    found = inputs.plain[0] / "detections.bbox.json"
    config = folder / "config.py"
    config.write_text("model = dict(type='A')\n")
    checkpoint = folder / "plain.pth"
    checkpoint.write_bytes(b"none")
    good = dict(
        truth=inputs.annotations,
        found=found,
        run=inputs.plain[0],
        images=inputs.images,
        config=config,
        checkpoint=checkpoint,
        new=folder / "new",
        # Of what a checkpoint is tried for, a log may be left.
        spare=tmp_path_factory.mktemp("spare"),
    )
    bad = _inputs_that_cannot_be(folder)
    before = Path.cwd()
    os.chdir(folder)
    yield Place(folder, good, bad, _outputs_that_cannot_be(folder, bad))
    os.chdir(before)


def call(place: Place, template: str, bad: Path | str = "") -> Result:
    """A call with one bad path, at ``{}``."""
    good = {name: str(path) for name, path in place.good.items()}
    parts = [part.replace("{}", str(bad)) for part in template.split()]
    # A zero byte cannot be given to a process, but may be in a file that names another.
    return CliRunner().invoke(app, [part.format(**good) for part in parts])


def check_refused(result: Result, what: str) -> str:
    """One line that is an error's, and can be printed anywhere."""
    assert isinstance(result.exception, SystemExit), (what, result.exc_info)
    assert result.exit_code == 2, (what, result.output)
    lines = result.stderr.splitlines()
    if lines[0].startswith("Usage: "):  # the parser of the command line found it
        return lines[-1]
    said = [line for line in lines if line.startswith("mmkd ")]
    assert len(said) == 1 and said[0] == lines[-1] and said[0].isprintable(), (what, lines)
    return said[0]


@pytest.mark.parametrize("template", READING)
def test_what_cannot_be_read(place: Place, template: str) -> None:
    before = place.state()
    for name, path in place.no_input.items():
        check_refused(call(place, template, path), name)
    assert place.state() == before


@pytest.mark.parametrize("template", WRITING)
def test_what_cannot_be_written(place: Place, template: str) -> None:
    before = place.state()
    for name, path in place.no_output.items():
        check_refused(call(place, template, path), name)
    assert place.state() == before


@pytest.mark.parametrize("framework", ["faster_rcnn", "yolov5"])
def test_where_the_demo_cannot_write(place: Place, framework: str) -> None:
    before = place.state()
    for name in DEMO:
        template = f"demo --framework {framework} --out {{}}"
        check_refused(call(place, template, place.no_output[name]), name)
    assert place.state() == before


@pytest.mark.parametrize(
    "template",
    [
        *(f"eval {{truth}} {{found}} --resamples 0 --{each} {{new}}" for each in ("json", "csv")),
        "eval {truth} {found} --resamples 0 --figures {new}",
        "report {run} --resamples 0 --out {new}",
        "data digits --num-train 1 --num-val 1 --out {new}",
        "data to-yolo --train {truth} {images} --val {truth} {images} --out {new}",
    ],
)
def test_a_full_disk(place: Place, template: str) -> None:
    before = place.state()
    with full_disk(room=100):
        result = call(place, template)
    said = check_refused(result, template)
    assert "File too large" in said and str(place.folder) in said
    if "figures" in template:
        (place.folder / "new").rmdir()
    assert place.state() == before


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("eval {truth} {found} --json {new} --csv {new}", "is what --json writes"),
        ("eval {truth} {found} --json {new} --csv {new}/../new", "is what --json writes"),
        ("eval {truth} {found} --markdown {truth} --force", "one of the files to be read"),
        ("eval {truth} {found} {found}", "given twice"),
        ("report {run} {run} --out {new}", "given twice"),
        ("report {run} --out {truth}", "is no report of mmkd's"),
        ("data to-yolo --train {truth} {images} --val {truth} {images} --out {images}", "other"),
        ("data digits --out {images}", "other files"),
    ],
)  # fmt: skip
def test_a_path_that_is_used_twice(place: Place, template: str, message: str) -> None:
    before = place.state()
    truth = place.good["truth"].read_bytes()
    assert message in check_refused(call(place, template), template)
    assert place.state() == before and place.good["truth"].read_bytes() == truth


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("data digits --out {new} --image-size 1000000000", "at most 4096 pixels"),
        ("data digits --out {new} --image-size -5", "image_size"),
        ("data digits --out {new} --seed -1", "negative"),
        ("data digits --out {new} --num-train 1e39", "--num-train"),
        ("eval {truth} {found} --max-file-mb -1", "--max-file-mb"),
        ("eval {truth} {found} --resamples 1e39", "--resamples"),
        ("eval {truth} {found} --max-detections 1e39", "whole numbers"),
        ("eval {truth} {found} --max-detections 9999999999999999999", "up to 1000000000"),
        ("eval {truth} {found} --area tiny=0:1e999", "NAME=LOW:HIGH"),
        ("demo --seeds 0", "--seeds"),
        ("demo --framework other", "--framework"),
        ("compare {config} --out {new} --seed x", "--seed"),
        ("yolo train epochs", "key=value"),
        ("yolo train", "Missing argument"),
        ("yolo train epochs=3", "model is missing"),
    ],
)
def test_a_value_that_cannot_be(place: Place, template: str, message: str) -> None:
    before = place.state()
    assert message in check_refused(call(place, template), template)
    assert place.state() == before


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("eval {truth} {} --resamples 0", "found"),
        ("report {run} --detections {run}={} --resamples 0 --out {}.html", "found"),
        ("data to-yolo --train {} {images} --val {truth} {images} --link --out {}.set", "truth"),
    ],
)
def test_a_limit_that_is_lifted(place: Place, tmp_path: Path, template: str, name: str) -> None:
    padded = tmp_path / "padded.json"
    padded.write_text(place.good[name].read_text() + " " * 1_000_000)
    call_with = f"{template} --max-file-mb"
    assert "by --max-file-mb" in check_refused(call(place, f"{call_with} 1", padded), template)
    for limit in (0, 2):
        result = call(place, f"{call_with} {limit}", padded)
        assert result.exit_code == 0, result.output


def test_a_device_that_a_run_names(place: Place, tmp_path: Path) -> None:
    """Its own detections are read no further than to the file that it names."""
    for named, message in (("/dev/zero", "a device or a pipe"), ("/dev", "a folder")):
        result = dict(name="plain", seed=0, annotations=named, images="/dev", parameters=10**400)
        run = mmengine_work_dir(tmp_path / f"{message[-3:]}_seed0", found=[])
        (run / "result.json").write_text(json.dumps(dict(result=result)))
        assert message in check_refused(call(place, "report {} --out {new}", run), named)


def _finish(result: Result, what: Any) -> None:
    """Either way a command may end with a spoiled file."""
    if result.exit_code:
        check_refused(result, what)
    else:
        assert result.exception is None


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_spoiled_annotations_to_yolo(
    place: Place, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("spoiled")
    content = json.loads(place.good["truth"].read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        content = data.draw(st.composite(spoiled)(content))
    truth = scenes.write(folder, "truth.json", content)
    template = "data to-yolo --train {} {images} --val {} {images} --link --out "
    result = call(place, template + str(folder / "out"), truth)
    _finish(result, content)
    assert (folder / "out" / "data.yaml").exists() == (result.exit_code == 0)
    assert {each.name for each in folder.iterdir()} <= {"truth.json", "out"}


@settings(
    max_examples=15,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_spoiled_work_dirs_in_a_report(
    place: Place, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("spoiled")
    run = mmengine_work_dir(folder / "run_seed0", found=None)
    scalars = next(run.glob("*/vis_data/scalars.json"))
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    result = dict(name="run", seed=0, annotations=str(place.good["truth"]), parameters=5)
    for _ in range(data.draw(st.integers(1, 3))):
        lines = data.draw(st.composite(spoiled)(lines))
        result = data.draw(st.composite(spoiled)(result))
    entries = lines if isinstance(lines, list) else [lines]
    scalars.write_text("\n".join(map(json.dumps, entries)))
    (run / "result.json").write_text(json.dumps(dict(result=result)))
    _finish(call(place, f"report {run} --out {{}}", folder / "page.html"), (lines, result))


@pytest.mark.parametrize(
    "option",
    [
        "train_cfg.max_epochs=abc",
        "optim_wrapper.optimizer.type=Nope",
        "model.backbone.type=Nope",
        "custom_hooks=5",
        "randomness.seed=-1",
    ],
)
def test_a_training_that_cannot_be_started(option: str, tmp_path: Path) -> None:
    name = "mmkd::classification/digits/resnet8_digits.py"
    done = CliRunner().invoke(
        app, ["train", name, "--work-dir", str(tmp_path / "run"), "--cfg-options", option]
    )
    assert done.exit_code == 2
    line = done.output.splitlines()[-1]
    assert line.startswith("mmkd train: ") and "cannot be started: " in line
