"""Names of the configs that ship with mmkd."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmkd.configs import config_file, config_path
from mmkd.errors import InputError

CONFIGS = Path(__file__).parents[1] / "configs"
NAME = "classification/digits/resnet8_digits.py"


def test_a_name_is_a_file() -> None:
    assert Path(config_file(NAME)) == CONFIGS / NAME
    assert config_path(f"mmkd::{NAME}") == config_file(NAME)


@pytest.mark.parametrize("other", [NAME, "mmdet::_base_/default_runtime.py", "/x/mmkd::y.py"])
def test_what_is_no_name_of_mmkd_stays(other: str) -> None:
    assert config_path(other) == other


def test_an_unknown_name_is_answered_with_the_closest() -> None:
    with pytest.raises(FileNotFoundError, match=r"no config 'none\.py'$"):
        config_file("none.py")
    with pytest.raises(InputError) as error:
        config_path("mmkd::classification/digits/resnet8-digits.py")
    message = "mmkd has no config 'classification/digits/resnet8-digits.py'; the closest are "
    assert str(error.value).startswith(f"{message}'{NAME}', ")
