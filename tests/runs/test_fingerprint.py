"""A run's fingerprint covers every file that it reads, by content."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.own_loss import own_modules_in
from mmkd.custom_imports import import_modules
from mmkd.errors import InputError
from mmkd.runs.fingerprint import (
    Fingerprint,
    ImageFiles,
    image_names,
    named_modules,
    scored_config,
    with_networks_read,
)

NAMES = ["a/1.png", "a/2.png", "3.png"]


@pytest.fixture
def images(tmp_path: Path) -> ImageFiles:
    folder = tmp_path / "images"
    (folder / "a").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(f"pixels of {name}")
    return ImageFiles(folder, NAMES)


def of_images(images: ImageFiles) -> Fingerprint:
    return Fingerprint.of({}, {"training images": images})


@pytest.mark.parametrize("name", NAMES)
def test_every_image_counts(images: ImageFiles, name: str) -> None:
    before = of_images(images)
    file = images.folder / name
    stamp = file.stat()
    # As many bytes, and the old time: not even that hides it.
    file.write_text("X" * stamp.st_size)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    changed = of_images(images)
    assert changed.changes_since(before) == [f"training images ({images.folder}) has changed"]
    file.unlink()
    assert len({before.digest, changed.digest, of_images(images).digest}) == 3


def test_images_that_were_copied_elsewhere_are_the_same(images: ImageFiles, tmp_path: Path) -> None:
    before, copy = of_images(images), tmp_path / "copy"
    shutil.copytree(images.folder, copy, copy_function=shutil.copyfile)
    copied = of_images(ImageFiles(copy, NAMES))
    assert copied.digest == before.digest
    assert copied.changes_since(before) == []
    (copy / "3.png").rename(copy / "4.png")
    assert of_images(ImageFiles(copy, [*NAMES[:2], "4.png"])).digest != before.digest


def test_files_that_settings_name_count_by_content(tmp_path: Path) -> None:
    def of(teacher: Path, **others: Any) -> Fingerprint:
        hook = dict(type="DistillHook", teacher=dict(yolo=str(teacher)))
        return Fingerprint.of(dict(custom_hooks=[hook], **others), {})

    one, same, other = (tmp_path / name for name in ("one.pt", "same.pt", "other.pt"))
    for file, text in ((one, "weights"), (same, "weights"), (other, "others")):
        file.write_text(text)
    key = "custom_hooks.0.teacher.yolo"
    assert of(one).digest == of(same).digest
    assert of(other).changes_since(of(one)) == [f"{key} ({other}) has changed"]
    gone = of(tmp_path / "gone.pt").changes_since(of(one))
    assert len(gone) == 1 and gone[0].startswith(f"{key} was ") and "gone.pt" in gone[0]
    # Where something is written is not what is read.
    assert list(of(one, save_dir=str(other), evaluator=dict(out_file=str(other))).files) == [key]


def test_files_in_a_list_count_by_content_and_place_in_it(tmp_path: Path) -> None:
    def of(*files: Path) -> Fingerprint:
        return Fingerprint.of(dict(custom_imports=dict(imports=["mmkd", *map(str, files)])), {})

    one, same, other = (tmp_path / name for name in ("one.py", "same.py", "other.py"))
    for file, text in ((one, "loss = 1"), (same, "loss = 1"), (other, "loss = 2")):
        file.write_text(text)
    assert of(one).digest == of(same).digest
    assert len({each.digest for each in (of(), of(one), of(other), of(one, other))}) == 4
    assert of(other, one).digest != of(one, other).digest
    [change] = of(other).changes_since(of(one))
    assert change == f"custom_imports.imports.1 ({other}) has changed"


def test_changes_are_named(tmp_path: Path) -> None:
    def of(value: Any, seed: int, **files: Path) -> Fingerprint:
        return Fingerprint.of(dict(optimizer=dict(lr=value), seed=seed), files)

    file = tmp_path / "labels.json"
    file.touch()
    before = Fingerprint.from_json(json.loads(json.dumps(of(0.1, 0).as_json())))
    assert before == of(0.1, 0)
    assert of(0.2, 1).changes_since(before) == [
        "optimizer.lr was 0.1 and is 0.2",
        "seed was 0 and is 1",
    ]
    assert of(0.1, 1).changes_since(before, ignored=["seed"]) == []
    assert of(0.1, 0, labels=file).changes_since(before) == [f"labels ({file}) is new"]
    assert before.changes_since(of(0.1, 0, labels=file)) == [f"labels ({file}) is gone"]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "nothing"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    """A device never ends, and a pipe never begins."""
    file = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "folder":
        file.mkdir()
    settings = dict(teacher=str(file), odd="a\0b", long="x" * 5000, user="~nobody-there/x")
    made = Fingerprint.of(settings, dict(checkpoint=file, images=ImageFiles(tmp_path, ["file"])))
    assert made.files["checkpoint"] == (str(file), "")
    assert set(made.files) == {"checkpoint", "images"}


def test_a_teachers_config_counts_with_all_that_it_inherits(tmp_path: Path) -> None:
    base, own = tmp_path / "base.py", tmp_path / "own.py"
    base.write_text("model = dict(type='A', depth=50)\ntest_dataloader = dict(scale=1)\nlr = 0.1\n")
    own.write_text("_base_ = 'base.py'\nmodel = dict(width=2)\n")

    def of() -> tuple[Fingerprint, Fingerprint]:
        teachers = dict(teacher=dict(a=dict(config=str(own), checkpoint="none.pth")))
        networks = Fingerprint.of(with_networks_read(teachers), {})
        return networks, Fingerprint.of(scored_config(own), {})

    network, tested = of()
    base.write_text(base.read_text().replace("lr = 0.1", "lr = 0.2"))
    assert of() == (network, tested)
    base.write_text(base.read_text().replace("scale=1", "scale=2"))
    assert of()[0] == network
    assert of()[1].changes_since(tested) == ["test_dataloader.scale was 1 and is 2"]
    base.write_text(base.read_text().replace("depth=50", "depth=18"))
    expected = "teacher.a.config.model.depth was 50 and is 18"
    assert of()[0].changes_since(network) == [expected]


def test_own_modules_count_with_what_they_import_beside_them(tmp_path: Path) -> None:
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "losses.py").write_text("import torch\nfrom . import parts\n")
    (package / "parts.py").write_text("scale = 1\n")
    (tmp_path / "own_entry.py").write_text("def later():\n    import own_helper\n")
    (tmp_path / "own_helper.py").write_text("scale = 1\n")
    names = ["own_package.losses", str(tmp_path / "own_entry.py"), "mmkd", "torch.nn"]

    def of() -> Fingerprint:
        return Fingerprint.of({}, named_modules(names))

    with own_modules_in(tmp_path):
        import_modules(names)
        before = of()
        for file in (package / "parts.py", tmp_path / "own_helper.py"):
            file.write_text("scale = 2\n")
        changes = of().changes_since(before)
    assert changes == [
        f"module {name} ({file}) has changed"
        for name, file in (
            ("own_package.parts", package / "parts.py"),
            ("own_helper", tmp_path / "own_helper.py"),
        )
    ]
    assert sorted(key for key in before.files if "own" not in key) == ["module torch.nn"]


@pytest.mark.parametrize("content", ["{", "[]", '{"images": [3]}', '{"images": [{"id": 1}]}'])
def test_annotations_without_names_of_images(tmp_path: Path, content: str) -> None:
    file = tmp_path / "truth.json"
    file.write_text(content)
    with pytest.raises(InputError, match=r"truth\.json: expected a COCO annotation file"):
        image_names(file)


def test_modules_that_a_config_imports_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module, config = tmp_path / "net_of_a_config.py", tmp_path / "own.py"
    module.write_text("WIDTH = 1\n")
    config.write_text(
        "custom_imports = dict(imports=['net_of_a_config'])\nmodel = dict(type='A')\n"
    )
    before = Fingerprint.of(scored_config(config), {})
    module.write_text("WIDTH = 22\n")
    assert Fingerprint.of(scored_config(config), {}).digest != before.digest
