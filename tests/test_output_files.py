"""Files are written whole or not at all, and what is there is only replaced where asked for."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from helpers.full_disk import full_disk
from mmkd.errors import InputError
from mmkd.output_files import check_output, check_output_folder, write_text, written_whole


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_file_is_written_into_new_folders(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "out.txt"
    check_output(file)
    write_text(file, "Größe \ud800")
    assert file.read_bytes() == "Größe ?".encode()
    write_text(file, "again")
    assert file.read_text() == "again"
    assert names(file.parent) == ["out.txt"]
    assert file.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_link_stays_one(tmp_path: Path) -> None:
    kept, link = tmp_path / "kept", tmp_path / "link"
    kept.write_text("before")
    link.symlink_to(kept)
    write_text(link, "after")
    assert link.is_symlink() and kept.read_text() == "after"


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    write_text(file, "before")
    with full_disk(), pytest.raises(OSError) as caught:
        write_text(file, "after" * 1000)
    # The system's own error, of a write, does not know the file.
    assert caught.value.filename == str(file) and caught.value.errno == errno.EFBIG
    assert file.read_text() == "before" and names(tmp_path) == ["out.txt"]


def test_a_failure_of_the_writer_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    write_text(file, "before")
    with pytest.raises(KeyError), written_whole(file) as unfinished:
        unfinished.write_text("half")
        raise KeyError
    assert file.read_text() == "before" and names(tmp_path) == ["out.txt"]


def test_two_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    file = tmp_path / ("a" * 251 + ".png")  # as long as a name may be
    with written_whole(file) as one, written_whole(file) as other:
        assert one != other and {one.suffix, other.suffix} == {".png"}
        one.write_text("one")
        other.write_text("other")
    assert file.read_text() == "one" and names(tmp_path) == [file.name]


def test_what_cannot_be_written_is_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, loop, broken, pipe, closed = (
        tmp_path / name for name in ("file", "loop", "broken", "pipe", "closed")
    )
    file.write_text("mine")
    loop.symlink_to(loop)
    broken.symlink_to(tmp_path / "nothing")
    os.mkfifo(pipe)
    closed.mkdir()
    allowed = os.access
    # The superuser, as whom tests may run, is allowed everything.
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed and allowed(path, mode))
    for wrong, found in (
        (tmp_path, "found a folder"),
        (file / "out.txt", "is a file"),
        (loop, "leads nowhere"),
        (broken, "a link that leads nowhere"),
        (pipe, "a device or a pipe"),
        (Path("/dev/null"), "a device or a pipe"),
        (closed / "new" / "out.txt", "nothing may be written into"),
        (tmp_path / "a\0b", "null byte"),
    ):
        with pytest.raises(InputError, match=found) as caught:
            check_output(wrong, "--out")
        assert "--out" in str(caught.value) or str(wrong) in str(caught.value)
    for wrong, found in (
        (file, "is a file"),
        (file / "folder", "is a file"),
        (broken, "a link that leads nowhere"),
        (closed, "nothing may be written into"),
    ):
        with pytest.raises(InputError, match=found):
            check_output_folder(wrong)
    check_output_folder(tmp_path / "new" / "folder")
    assert file.read_text() == "mine" and not (tmp_path / "nothing").exists()
