"""A folder that holds a data set, and a record of what it was made from."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmkd.input_files import read_text
from mmkd.output_files import check_output_folder

__all__ = ["SetFolder"]


@dataclass(frozen=True)
class SetFolder:
    """Made once, as a whole, and never overwritten.

    Args:
        path: The folder.
        record: Name of the file in it that holds `settings`, as JSON.
        settings: What tells one set from another.
        another: What a folder with a record of other settings holds, for messages.
    """

    path: Path
    record: str
    settings: Mapping[str, object]
    another: str

    def is_made(self) -> bool:
        """Whether it holds the set of these settings; False where it is missing or empty.

        Raises:
            InputError: Nothing can be written there.
            FileExistsError: It holds something else.
        """
        check_output_folder(self.path)
        if not self.path.exists() or not any(self.path.iterdir()):
            return False
        found = self._found()
        if found == self.settings:
            return True
        what = self.another if found else "other files"
        raise FileExistsError(
            f"{self.path} already holds {what}; give another folder or remove this one"
        )

    def _found(self) -> object:
        record = self.path / self.record
        try:
            return json.loads(read_text(record)) if record.is_file() else None
        except (ValueError, RecursionError):
            return None

    @contextmanager
    def making(self) -> Iterator[Path]:
        """An empty folder to fill, which takes the set's place once it is complete.

        Raises:
            FileExistsError: Another process has made another set there meanwhile.
        """
        out = self.path
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mmkd-", dir=out.parent) as temporary:
            folder = Path(temporary) / "set"
            folder.mkdir()
            try:
                yield folder
                text = json.dumps(self.settings, indent=2) + "\n"
                (folder / self.record).write_text(text, encoding="utf-8")
            except OSError as error:
                if error.filename is None:  # the system's own error, of a write
                    raise OSError(error.errno, error.strerror or str(error), str(out)) from error
                raise
            # Another process may have been faster, with the same set.
            if not self.is_made():
                if out.exists():
                    out.rmdir()  # it is empty: not every system lets a folder replace another
                folder.rename(out)
