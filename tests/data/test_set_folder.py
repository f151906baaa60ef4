"""A data set's folder is made as a whole, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmkd.data.set_folder import SetFolder
from mmkd.errors import InputError


def set_folder(path: Path, **settings: object) -> SetFolder:
    return SetFolder(path, "record.json", settings, "a set of other settings")


def make(made: SetFolder, text: str) -> None:
    with made.making() as folder:
        (folder / "file").write_text(text)


def test_it_is_made_once(tmp_path: Path) -> None:
    made = set_folder(tmp_path / "new" / "set", a=1)
    assert not made.is_made()
    make(made, "one")
    assert made.is_made() and (made.path / "file").read_text() == "one"
    with pytest.raises(FileExistsError, match="a set of other settings"):
        set_folder(made.path, a=2).is_made()
    assert [each.name for each in made.path.parent.iterdir()] == ["set"]


@pytest.mark.parametrize("text", ["", "[" * 100_000, "\0"])
def test_a_record_that_cannot_be_read_is_somebody_elses(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(FileExistsError, match="other files"):
        set_folder(tmp_path, a=1).is_made()


def test_two_processes_that_make_one_set(tmp_path: Path) -> None:
    first, second = set_folder(tmp_path / "set", a=1), set_folder(tmp_path / "set", a=1)
    with first.making() as folder:
        (folder / "file").write_text("slower")
        make(second, "faster")
    assert (tmp_path / "set" / "file").read_text() == "faster"
    assert [each.name for each in tmp_path.iterdir()] == ["set"]


def test_two_processes_that_make_different_sets(tmp_path: Path) -> None:
    other = set_folder(tmp_path / "set", a=2)
    with (
        pytest.raises(FileExistsError, match="other settings"),
        set_folder(tmp_path / "set", a=1).making() as folder,
    ):
        (folder / "file").write_text("slower")
        make(other, "faster")
    assert other.is_made() and (tmp_path / "set" / "file").read_text() == "faster"


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), set_folder(tmp_path / "set").making():
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        set_folder(tmp_path / "file").is_made()
