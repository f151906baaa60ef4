"""Recipes of YOLO trainings, and the pair that a comparison makes of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ultralytics import YOLO
from ultralytics.utils.torch_utils import unwrap_model

from helpers.interruption import Killed, kill_after
from helpers.paired_results import compare_and_write
from helpers.toy import differences
from helpers.yolo_toy import SIZE, TERM, YOLOToy, weights_of
from mmkd.data import make_digits
from mmkd.errors import InputError
from mmkd.runs.paired import compare_config
from mmkd.runs.record import weights_digest
from mmkd.runs.running import train_and_evaluate
from mmkd.runs.ultralytics import recipe as recipes
from mmkd.runs.ultralytics.pair import YOLOPair, coco_annotations
from mmkd.runs.ultralytics.recipe import YOLORecipe
from mmkd.work_dirs.run_result import RunResult

# 16 images make 4 iterations an epoch.
ITERATIONS_AN_EPOCH, EPOCHS = 4, 3


@pytest.fixture(scope="module")
def pair(toy: YOLOToy, tmp_path_factory: pytest.TempPathFactory) -> YOLOPair:
    folder = tmp_path_factory.mktemp("pair")
    settings = dict(
        model=str(toy.student),
        teacher=str(toy.teacher),
        terms={TERM: dict()},
        data=str(toy.data),
        epochs=EPOCHS,
        batch=4,
        imgsz=SIZE,
        optimizer="SGD",
        # A step of the optimizer spans the end of every epoch; mosaic is closed in the last.
        nbs=12,
        close_mosaic=1,
        warmup_epochs=1.0,
        plots=False,
        verbose=False,
        workers=0,
        device="cpu",
    )
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    return YOLOPair.read(config, [], folder / "annotations")


@pytest.fixture(scope="module")
def whole(pair: YOLOPair, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunResult]:
    """Runs that were not interrupted."""
    out = tmp_path_factory.mktemp("whole")

    @cache
    def run(role: str) -> RunResult:
        return train_and_evaluate(pair.recipe(role == "distilled", 1, out / role), role)

    return run


def assert_same_outcome(one: RunResult, other: RunResult) -> None:
    assert one.scores == other.scores
    assert one.initial_weights == other.initial_weights
    assert one.detections.read_text() == other.detections.read_text()
    assert differences(weights_of(Path(one.checkpoint)), weights_of(Path(other.checkpoint))) == []


@pytest.mark.parametrize("role", ["plain", "distilled"])
def test_a_killed_run_ends_as_if_it_had_not_been(
    role: str, pair: YOLOPair, whole: Callable[[str], RunResult], tmp_path: Path
) -> None:
    killed = pair.recipe(role == "distilled", 1, tmp_path / "run")
    with pytest.raises(Killed):
        train_and_evaluate(killed, role, kill_after(ITERATIONS_AN_EPOCH + 2))
    seen: list[int] = []
    resumed = train_and_evaluate(killed, role, lambda: seen.append(1))
    assert len(seen) == (EPOCHS - 1) * ITERATIONS_AN_EPOCH
    assert_same_outcome(resumed, whole(role))
    epochs = json.loads((tmp_path / "run/started.json").read_text())["epoch_seconds"]
    assert len(epochs) == EPOCHS
    assert resumed.training_seconds == sum(epochs)


def test_killed_between_its_last_epoch_and_its_score(
    pair: YOLOPair,
    whole: Callable[[str], RunResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed = pair.recipe(False, 1, tmp_path / "run")

    def kill(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(recipes, "detect", kill)
        train_and_evaluate(killed, "plain")
    resumed = train_and_evaluate(killed, "plain", kill_after(1))
    assert_same_outcome(resumed, whole("plain"))
    assert resumed.iterations == EPOCHS * ITERATIONS_AN_EPOCH


def test_killed_in_the_final_evaluation_of_ultralytics(
    pair: YOLOPair,
    whole: Callable[[str], RunResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed = pair.recipe(False, 1, tmp_path / "run")

    def kill(*args: Any, **kwargs: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("ultralytics.engine.trainer.strip_optimizer", kill)
        train_and_evaluate(killed, "plain")
    resumed = train_and_evaluate(killed, "plain", kill_after(1))
    assert_same_outcome(resumed, whole("plain"))
    names = sorted(file.name for file in Path(resumed.checkpoint).parent.iterdir())
    assert names == ["best.pt", "last.pt"]


@pytest.mark.parametrize("size", [0, 1000, None])
def test_a_damaged_checkpoint_is_named(pair: YOLOPair, tmp_path: Path, size: int | None) -> None:
    killed = pair.recipe(False, 1, tmp_path / "run")
    with pytest.raises(Killed):
        train_and_evaluate(killed, "plain", kill_after(ITERATIONS_AN_EPOCH + 1))
    last = Path(killed.checkpoint)
    content = last.read_bytes()
    last.write_bytes(content[: len(content) // 2 if size is None else size])
    with pytest.raises(InputError, match=r"last\.pt cannot be read .*: remove it, and its run beg"):
        train_and_evaluate(killed, "plain")


def test_plain_is_stock_training(
    pair: YOLOPair, whole: Callable[[str], RunResult], tmp_path: Path
) -> None:
    """Its trainer keeps more in ``last.pt`` meanwhile, and changes nothing else."""
    settings = {k: v for k, v in pair.settings.items() if k not in ("model", "teacher", "terms")}
    model = YOLO(pair.settings["model"])
    digests: list[str] = []
    model.add_callback(
        "on_train_start",
        lambda trainer: digests.append(weights_digest(unwrap_model(trainer.model))),
    )
    model.train(**settings, seed=1, project=str(tmp_path), name="stock")
    result = whole("plain")
    stock = torch.load(tmp_path / "stock/weights/last.pt", weights_only=False)
    ours = torch.load(result.checkpoint, weights_only=False)
    assert list(stock) == list(ours)
    assert differences(stock["model"].state_dict(), ours["model"].state_dict()) == []
    assert digests == [result.initial_weights]


def test_another_run_in_the_folder_is_not_gone_on_with(
    pair: YOLOPair, whole: Callable[[str], RunResult], tmp_path: Path
) -> None:
    first = pair.recipe(False, 1, tmp_path / "run")
    with pytest.raises(Killed):
        train_and_evaluate(
            replace(first, settings={**first.settings, "lr0": 0.02}),
            "plain",
            kill_after(ITERATIONS_AN_EPOCH + 1),
        )
    with pytest.raises(Killed):
        train_and_evaluate(first, "plain", kill_after(1))
    assert_same_outcome(train_and_evaluate(first, "plain"), whole("plain"))


def test_the_pair_begins_alike_and_ends_apart(
    pair: YOLOPair, whole: Callable[[str], RunResult]
) -> None:
    plain, distilled = whole("plain"), whole("distilled")
    assert plain.initial_weights == distilled.initial_weights
    ends = [weights_of(Path(result.checkpoint)) for result in (plain, distilled)]
    assert differences(*ends)
    assert plain.annotations == str(pair.annotations)


def test_compare_from_the_config_to_the_report(pair: YOLOPair, tmp_path: Path) -> None:
    """The toy's teacher knows other classes, so that it cannot be scored."""
    config, out = tmp_path / "config.yaml", tmp_path / "out"
    config.write_text(yaml.safe_dump(dict(pair.settings)))
    report = compare_and_write(config, [4], out, options=["epochs=1"])
    plain, distilled = json.loads((out / "results.json").read_text())["runs"]
    assert plain["initial_weights"] == distilled["initial_weights"]
    arguments = [
        yaml.safe_load((out / f"{name}_seed4/args.yaml").read_text())
        for name in ("plain", "distilled")
    ]
    differing = {key for key, value in arguments[0].items() if value != arguments[1][key]}
    assert differing == {"name", "save_dir"}
    assert arguments[0]["seed"] == 4
    assert "train/kd_loss" in (out / "distilled_seed4/results.csv").read_text()
    assert "kd_loss" not in (out / "plain_seed4/results.csv").read_text()
    text = (out / "results.md").read_text()
    assert "The teacher was not scored: " in text
    assert "classes" in text
    assert report.is_file()
    with pytest.raises(InputError, match=r"plain_seed4: epochs was 1 and is 2"):
        compare_config(config, [4], out, options=["epochs=2"])


def test_a_first_mistake_does_not_cost_the_folder(
    pair: YOLOPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong taps are found before anything is written; other data may follow a start in vain."""
    config, out = tmp_path / "config.yaml", tmp_path / "out"
    config.write_text(yaml.safe_dump({**pair.settings, "terms": {TERM: dict(student="model.99")}}))
    with pytest.raises(InputError, match=rf"config\.yaml: .*terms\.{TERM}\.student: .*model\.99"):
        compare_config(config, [4], out)
    assert not out.exists()
    config.write_text(yaml.safe_dump(dict(pair.settings)))

    def kill(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("mmkd.runs.paired.try_training", lambda *_: None)
        patch.setattr(YOLORecipe, "train", kill)
        compare_config(config, [4], out, options=["epochs=1"])
    other = make_digits(tmp_path / "set", num_train=4, num_val=3, image_size=SIZE, layout="yolo")
    options = ["epochs=1", f"data={other / 'data.yaml'}"]
    results = compare_config(config, [4], out, options=options).results
    assert [each.iterations for each in results] == [1, 1]


def test_weights_to_start_from_count_by_their_content(pair: YOLOPair, tmp_path: Path) -> None:
    recipe = pair.recipe(False, 1, tmp_path)
    started = replace(recipe, settings={**recipe.settings, "model": "weights/yolo.pt"})
    assert started.files()["model"] == Path("weights/yolo.pt")
    assert started.content()["network"] == {}
    assert isinstance(started, YOLORecipe)


@pytest.mark.parametrize("batch", [-1, 0.7])
def test_where_ultralytics_chooses_the_batch_no_iterations_are_known(
    batch: float, pair: YOLOPair, tmp_path: Path
) -> None:
    """On a CPU, it then takes 16 images."""
    recipe = pair.recipe(False, 1, tmp_path / "run")
    recipe = replace(recipe, settings={**recipe.settings, "batch": batch, "epochs": 1})
    assert recipe.iterations == 16
    result = train_and_evaluate(recipe, "plain")
    assert result.iterations is None
    assert result.training_seconds > 0


# Annotations ------------------------------------------------------------------------------


def test_annotations_are_those_from_which_the_labels_were_made(tmp_path: Path) -> None:
    data = make_digits(tmp_path / "set", num_train=4, num_val=3, image_size=96, layout="both")
    file, images = coco_annotations(str(data / "data.yaml"), "val", tmp_path / "val.json")
    made = json.loads(file.read_text())
    source = json.loads((data / "annotations/val.json").read_text())
    assert [c["name"] for c in made["categories"]] == [c["name"] for c in source["categories"]]
    assert [i["file_name"] for i in made["images"]] == sorted(
        Path(i["file_name"]).name for i in source["images"]
    )
    assert all((images / image["file_name"]).is_file() for image in made["images"])

    def boxes(content: dict[str, Any]) -> list[tuple[str, str, list[float]]]:
        names = {image["id"]: Path(image["file_name"]).name for image in content["images"]}
        classes = {each["id"]: each["name"] for each in content["categories"]}
        return sorted(
            (names[a["image_id"]], classes[a["category_id"]], a["bbox"])
            for a in content["annotations"]
        )

    for mine, theirs in zip(boxes(made), boxes(source), strict=True):
        assert mine[:2] == theirs[:2]
        assert mine[2] == pytest.approx(theirs[2], abs=1e-3)
    # The same once more is the same file; other data are not written over it.
    assert coco_annotations(str(data / "data.yaml"), "val", file) == (file, images)
    with pytest.raises(InputError, match="other data: choose another folder"):
        coco_annotations(str(data / "data.yaml"), "train", file)
    assert json.loads(file.read_text()) == made
    coco_annotations(str(data / "data.yaml"), "train", file, replace=True)
    assert len(json.loads(file.read_text())["images"]) == 4


# Bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(teacher=None), "expected a teacher, found none"),
        (dict(data=None), "expected a data set, found none"),
        (dict(terms=dict(backbone=dict(wait=3))), "wait"),
        (dict(data="nowhere.yaml"), "data: 'nowhere.yaml' does not exist"),
        ("model: [", "cannot be read as a config"),
        (dict(epoch=1), r"config\.yaml: 'epoch' is not a valid YOLO argument.*epochs"),
        (dict(epochs=0), "'epochs=0' is an invalid value"),
        (dict(epochs="many"), r"config\.yaml: 'epochs=many' is of invalid type str"),
        (dict(momentum=7), r"config\.yaml: 'momentum=7' is an invalid value"),
        (dict(single_cls=True), "expected training on all classes .* found single_cls=True"),
        (dict(classes=0), "expected training on all classes .* found classes=0"),
    ],
)
def test_what_cannot_be_compared(pair: YOLOPair, change: Any, message: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    text = change if isinstance(change, str) else yaml.safe_dump({**pair.settings, **change})
    config.write_text(text)
    with pytest.raises(InputError, match=message):
        YOLOPair.read(config, [], tmp_path / "annotations")
    assert not (tmp_path / "annotations").exists()


def test_training_that_compares_all_classes_may_say_so(pair: YOLOPair, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({**pair.settings, "single_cls": False, "classes": None}))
    read = YOLOPair.read(config, [], tmp_path / "annotations")
    assert read.settings["single_cls"] is False


def test_files_that_are_missing(pair: YOLOPair, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no config"):
        YOLOPair.read(tmp_path / "none.yaml", [], tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({**pair.settings, "teacher": str(tmp_path / "none.pt")}))
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        YOLOPair.read(config, [], tmp_path / "annotations")
