"""What a user did wrong is one kind of error, which knows its setting."""

from __future__ import annotations

import pickle

import pytest
import torch

from mmkd.errors import (
    InputError,
    InputTypeError,
    MissingFileError,
    SettingError,
    TermError,
    check_keys,
    first_few,
    naming,
)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (ValueError, InputError),
        (TypeError, InputTypeError),
        (FileNotFoundError, MissingFileError),
        (RuntimeError, TermError),
    ],
)
def test_naming_keeps_the_kind_and_adds_the_setting(
    raised: type[Exception], kind: type[SettingError]
) -> None:
    with pytest.raises(raised, match=r"^Owner terms: too small$") as error, naming("Owner terms"):
        raise raised("too small")
    assert type(error.value) is kind
    assert isinstance(error.value, SettingError)
    assert error.value.setting == "Owner terms"
    assert isinstance(error.value.__cause__, raised)


def test_the_innermost_setting_is_named_once() -> None:
    with pytest.raises(InputError) as error, naming("Owner"), naming("Owner terms.one.view"):
        raise ValueError("no such view")
    assert str(error.value) == "Owner terms.one.view: no such view"
    assert error.value.setting == "Owner terms.one.view"


def test_other_errors_pass_through() -> None:
    with pytest.raises(KeyError, match=r"^'key'$"), naming("Owner"):
        raise KeyError("key")


def test_running_out_of_memory_stays_what_it_is() -> None:
    with pytest.raises(torch.OutOfMemoryError) as error, naming("Owner terms.one"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert not isinstance(error.value, SettingError)


@pytest.mark.parametrize("kind", [InputError, InputTypeError, MissingFileError, TermError])
def test_errors_travel_to_other_processes(kind: type[SettingError]) -> None:
    copy = pickle.loads(pickle.dumps(kind.at("Owner teacher", "no such file")))
    assert type(copy) is kind
    assert (str(copy), copy.setting) == ("Owner teacher: no such file", "Owner teacher")


def test_an_input_error_may_be_of_no_setting() -> None:
    error = InputError("file.json is empty")
    assert (str(error), error.setting) == ("file.json is empty", None)
    with pytest.raises(ValueError, match=r"^Owner data: file.json is empty"), naming("Owner data"):
        raise error


def test_unknown_keys() -> None:
    check_keys("Owner", ["a"], ["a", "b"])
    with pytest.raises(InputError, match=r"^Owner has no key 'wieght' \(did you mean 'weight'\?\)"):
        check_keys("Owner", ["wieght"], ["view", "weight"])
    with pytest.raises(InputError, match=r"^Owner has no key 3; it takes a, b$"):
        check_keys("Owner", [3], ["a", "b"])  # type: ignore[list-item]


def test_the_first_few() -> None:
    assert first_few(["a", "b"]) == "a, b"
    assert first_few(list("abcdef"), "; ") == "a; b; c; d; e; and 1 more"
