"""What a run is made from: its settings, and what is in every file that it reads."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

from mmkd.custom_imports import import_custom, source_files
from mmkd.engine.mmengine.config_files import open_config
from mmkd.errors import InputError
from mmkd.input_files import sha256
from mmkd.terms import DEFAULTS
from mmkd.work_dirs.dumped_config import flatten

__all__ = [
    "Fingerprint",
    "ImageFiles",
    "image_names",
    "named_modules",
    "scored_config",
    "with_networks_read",
    "with_terms",
]

_THREADS = 8
# In the place of a file's name, which says nothing: what is in the file counts.
_FILE = "(a file)"
# Settings of these names tell where something is written.
_WRITTEN = ("out", "work_dir", "save_dir")
# Of a config: what a network is made from, and how its images are prepared for a test.
_OF_NETWORKS = ("model", "data_preprocessor", "default_scope", "custom_imports")
_OF_TESTS = (*_OF_NETWORKS, "test_dataloader", "val_dataloader")


@dataclass(frozen=True)
class ImageFiles:
    """Images of one split, which count by their names in the folder and by their content.

    Args:
        folder: From which the names count.
        names: Of the files.
    """

    folder: Path
    names: Sequence[str]


@dataclass(frozen=True)
class Fingerprint:
    """Tells a run from every other.

    A file counts by its content and not by its place or time, so that data may be moved and
    copied; the images of a split together. Reading them takes as long as a pass over the data
    without decoding it, once a process as long as sizes and times stay what they are.

    Args:
        settings: By dotted keys, as JSON. What names a file there is replaced by a sign.
        files: By what they are to the run: the path, for people, and the SHA-256 of the content;
            empty where there is no such regular file.
    """

    settings: Mapping[str, str]
    files: Mapping[str, tuple[str, str]]

    @classmethod
    def of(cls, settings: Mapping[str, Any], files: Mapping[str, Path | ImageFiles]) -> Fingerprint:
        """Reads the files, and those that the settings name.

        Args:
            settings: Plain values, dicts and lists.
            files: By what they are to the run.
        """
        flat = flatten(settings)
        named = dict(each for item in flat.items() for each in _named_files(*item))
        return cls(
            {
                key: json.dumps(_without_names(key, value, named), sort_keys=True, default=str)
                for key, value in flat.items()
            },
            {key: (str(_place(each)), _digest(each)) for key, each in {**named, **files}.items()},
        )

    @classmethod
    def from_json(cls, stored: Any) -> Fingerprint:
        """Reads what :meth:`as_json` made.

        Raises:
            TypeError, ValueError: Something else.
        """
        files = {
            str(key): (str(path), str(digest)) for key, (path, digest) in stored["files"].items()
        }
        return cls({str(k): str(v) for k, v in stored["settings"].items()}, files)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(settings=dict(self.settings), files={k: list(v) for k, v in self.files.items()})

    @property
    def digest(self) -> str:
        """SHA-256 over all of it but the files' places."""
        content = [dict(self.settings), {key: digest for key, (_, digest) in self.files.items()}]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def changes_since(self, other: Fingerprint, ignored: Sequence[str] = ()) -> list[str]:
        """What is another than it was, for people: files first, then settings.

        Args:
            other: As it was.
            ignored: Keys of settings that may differ.
        """
        return [*self._changed_files(other), *self._changed_settings(other, ignored)]

    def _changed_files(self, other: Fingerprint) -> Iterator[str]:
        for key in _united(other.files, self.files):
            was, found = other.files.get(key), self.files.get(key)
            if found is None or was is None:
                # That a setting names a file now, or none any more, its own line tells.
                if key not in {**self.settings, **other.settings}:
                    yield f"{key} ({(found or was or ('',))[0]}) {'is new' if found else 'is gone'}"
            elif found[1] != was[1]:
                yield f"{key} ({found[0]}) has changed"

    def _changed_settings(self, other: Fingerprint, ignored: Sequence[str]) -> Iterator[str]:
        for key in _united(other.settings, self.settings):
            was, found = (each.settings.get(key, "not set") for each in (other, self))
            if key not in ignored and was != found:
                yield f"{key} was {_short(was)} and is {_short(found)}"


def _united(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([*one, *other]))


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:20]}...{text[-57:]}"


def _named_files(key: str, value: Any) -> Iterator[tuple[str, Path]]:
    """Files that a setting names, by its key; in a list, by their places."""
    if isinstance(value, list):
        for index, each in enumerate(value):
            if _is_read(key, each):
                yield f"{key}.{index}", Path(each).expanduser()
    elif _is_read(key, value):
        yield key, Path(value).expanduser()


def _without_names(key: str, value: Any, named: Container[str]) -> Any:
    """A setting whose files are replaced by a sign."""
    if isinstance(value, list):
        return [_FILE if f"{key}.{n}" in named else each for n, each in enumerate(value)]
    return _FILE if key in named else value


def _is_read(key: str, value: Any) -> bool:
    """Whether a setting names a regular file that a run may read."""
    if not isinstance(value, str) or key.rpartition(".")[2].startswith(_WRITTEN):
        return False
    try:
        return Path(value).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # No name of a file, or of an unknown user.
        return False


def _place(source: Path | ImageFiles) -> Path:
    return source.folder if isinstance(source, ImageFiles) else source


def _digest(source: Path | ImageFiles) -> str:
    if isinstance(source, Path):
        return _file_digest(source)
    digest = hashlib.sha256()
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(_file_digest, (source.folder / name for name in source.names))
        for name, each in zip(source.names, found, strict=True):
            digest.update(f"{name}\n{each}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()


def _file_digest(file: Path) -> str:
    """Empty where there is no regular file: reading a device may never end."""
    try:
        found = file.stat()
    except (OSError, ValueError):
        return ""
    if not stat.S_ISREG(found.st_mode):
        return ""
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return _content_digest(file, found.st_ino, found.st_size, *times)


# The size and the times tell when to read again.
@cache
def _content_digest(file: Path, *_: int) -> str:
    return sha256(file)


def image_names(annotations: Path) -> Sequence[str]:
    """The images' files by a COCO annotation file.

    Raises:
        InputError: It is no such file.
    """
    found = annotations.stat()
    return _image_names(annotations, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)
def _image_names(annotations: Path, *_: int) -> Sequence[str]:
    try:
        return [str(image["file_name"]) for image in json.loads(annotations.read_bytes())["images"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{annotations}: expected a COCO annotation file with the images' file names: {error!r}"
        ) from error


def named_modules(names: Sequence[str]) -> dict[str, Path]:
    """The files of a user's own modules, which are imported, and of those beside them that they
    import; for :meth:`Fingerprint.of`."""
    files = {name: source_files([name]) for name in names if name.partition(".")[0] != "mmkd"}
    # A file goes by its name: where it lies does not matter.
    return {
        f"module {found}": place
        for name, own in files.items()
        for file in own
        for found, place in {_called(name): file, **_imported_beside(name, file)}.items()
    }


def _called(name: str) -> str:
    return Path(name).name if name.endswith(".py") else name


def _imported_beside(name: str, file: Path) -> dict[str, Path]:
    if "site-packages" in file.parts:
        return {}
    module = file.stem if name.endswith(".py") else name
    depth = module.count(".") + (file.name == "__init__.py")
    # Nothing is executed, and what lies elsewhere is not found.
    finder = ModuleFinder(path=[str(file.parents[depth])], excludes=["mmkd"])
    # Where one of them cannot be read, its import has failed before.
    with suppress(ImportError, SyntaxError):
        finder.import_hook(module)
    modules = finder.modules.items()
    found = {key: getattr(each, "__file__", None) for key, each in modules if key != module}
    return {key: Path(place) for key, place in found.items() if place}


def with_networks_read(settings: Any) -> Any:
    """Settings in which each ``config`` that a teacher names is replaced by its network, as read
    from the file and all that it inherits from.

    Args:
        settings: A teacher's, or dicts and lists that hold such.

    Raises:
        ValueError: A config that cannot be read.
    """
    if isinstance(settings, Mapping):
        return {
            key: _content(value, _OF_NETWORKS)
            if key == "config" and isinstance(value, str)
            else with_networks_read(value)
            for key, value in settings.items()
        }
    if isinstance(settings, list | tuple):
        return [with_networks_read(each) for each in settings]
    return settings


def with_terms(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a distillation, which is another one once mmkd's default terms are others."""
    return {**settings, "terms": settings.get("terms") or dict(DEFAULTS)}


def scored_config(name: str | Path) -> dict[str, Any]:
    """What of a config matters where its network is run and scored, likewise.

    Raises:
        ValueError: It cannot be read.
    """
    return _content(name, _OF_TESTS)


def _content(name: str | Path, keys: Sequence[str]) -> dict[str, Any]:
    config = open_config(name).to_dict()
    # Its own modules are imported by now.
    imports = import_custom(config.get("custom_imports"))
    modules = {key: _file_digest(place) for key, place in named_modules(imports).items()}
    return {**{key: config[key] for key in keys if key in config}, **modules}
