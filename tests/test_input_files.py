"""Files are read where they are files, and no larger than expected."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from mmkd.errors import InputError
from mmkd.input_files import files_up_to, read_bytes, read_text, real_path, sha256


def refused(file: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_bytes(file, "a list")
    message = str(caught.value)
    assert str(file) in message and "expected a list" in message
    return message


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Read, the first would fill the memory, and the second would wait for ever.
    for each in (Path("/dev/zero"), pipe):
        assert "a device or a pipe" in refused(each)
    link = tmp_path / "link"
    link.symlink_to("/dev/zero")
    assert "a device or a pipe" in refused(link)
    assert "a folder" in refused(tmp_path)


def test_what_cannot_be_opened_is_told_with_the_reason(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for each, reason in (
        (tmp_path / "none", "No such file"),
        (loop, "Too many levels"),
        (tmp_path / "a\0b", "null byte"),
        (tmp_path / ("a" * 300), "File name too long"),
    ):
        assert reason in refused(each)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "none")


def test_the_size_is_limited(tmp_path: Path) -> None:
    huge, small = tmp_path / "huge.json", tmp_path / "small.json"
    with huge.open("wb") as stream:
        stream.truncate(20_000_000_000)  # it has holes, and takes no room
    small.write_bytes(b"[" + b"\xff" * 2_000_000)
    assert "at most 1000 MB, found 20000 MB" in refused(huge)
    assert "--max-file-mb" in refused(huge)
    assert len(read_bytes(small)) == 2_000_001
    with files_up_to(1):
        assert "at most 1 MB, found 2 MB" in refused(small)
        with files_up_to(0):
            assert read_text(small)[:2] == "[\ufffd"
    assert len(read_bytes(small)) == 2_000_001


def test_a_digest_is_that_of_the_content(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 10_000)
    assert sha256(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_links_are_followed_where_they_lead_somewhere(tmp_path: Path) -> None:
    link, loop = tmp_path / "link", tmp_path / "loop"
    link.symlink_to("missing/file")
    loop.symlink_to(loop)
    assert real_path(link) == tmp_path.resolve() / "missing" / "file"
    for wrong in (loop / "file", tmp_path / "a\0b"):
        with pytest.raises(InputError, match="Check the path"):
            real_path(wrong)
