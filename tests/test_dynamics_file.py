"""The file of what is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmkd.dynamics_file import DynamicsFile, DynamicsRow, read_dynamics, read_matrices
from mmkd.errors import InputError


def values(cka: float) -> dict[str, dict[str, dict[str, float]]]:
    return dict(train=dict(a=dict(cka=cka, rest=0.1)), val=dict(a=dict(cka=cka / 3)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "dynamics.csv"


def test_what_is_written_is_read_to_the_bit(file: Path) -> None:
    assert DynamicsFile(file).add(1, values(1 / 3)) == list(read_dynamics(file))
    assert list(read_dynamics(file))[2] == DynamicsRow(1, "val", "a", "cka", 1 / 9)
    assert file.read_text().splitlines()[:2] == [
        "step,images,term,measure,value",
        "1,train,a,cka,0.3333333333333333",
    ]


def test_names_by_which_it_is_logged(file: Path) -> None:
    rows = DynamicsFile(file).add(1, values(0.5))
    assert [row.name for row in rows] == [
        "dynamics/a/cka", "dynamics/a/rest", "dynamics/a/val_cka",
    ]  # fmt: skip


def test_a_step_that_is_repeated_counts_once(file: Path) -> None:
    kept = DynamicsFile(file)
    for step, value in ((1, 0.1), (2, 0.2), (3, 0.3), (2, 0.4)):
        kept.add(step, values(value))
    found = [(row.step, row.value) for row in read_dynamics(file) if row.measure == "rest"]
    assert found == [(1, 0.1), (2, 0.1)]
    assert [row.value for row in read_dynamics(file) if row.images == "train"][::2] == [0.1, 0.4]


def test_a_training_that_begins_does_not_go_on_with_it(file: Path) -> None:
    for done, steps in ((0, [1, 2]), (1, [1, 5]), (0, [5])):
        first = DynamicsFile(file, done)
        if steps[0] == 1 and done == 0:
            first.add(1, values(0.1))
            first.add(2, values(0.2))
        else:
            first.add(5, values(0.5))
        assert sorted({row.step for row in read_dynamics(file)}) == steps


def test_a_line_that_was_cut_is_left_out(file: Path) -> None:
    DynamicsFile(file).add(1, values(0.5))
    file.write_text(file.read_text() + "2,train,a,cka,0.\n2,train,a\n")
    assert [row.value for row in read_dynamics(file) if row.step == 2] == [0.0]


def test_a_new_training_leaves_nothing_of_the_old_one(file: Path) -> None:
    DynamicsFile(file).add(1, values(0.5))
    DynamicsFile(file, done=1)
    assert file.is_file()
    DynamicsFile(file)
    assert not file.exists()


def test_a_file_of_somebody_else_s_is_left_alone(file: Path) -> None:
    file.write_text("time,force\n1,2\n")
    with pytest.raises(
        InputError, match="it is there already, and is no file of recorded dynamics"
    ):
        DynamicsFile(file)
    assert file.read_text() == "time,force\n1,2\n"


def test_matrices_lie_beside_and_are_those_of_the_last_record(file: Path) -> None:
    kept = DynamicsFile(file)
    first, last = torch.rand(3, 4, dtype=torch.float64), torch.rand(2, 5, dtype=torch.float64)
    for step, matrix in enumerate((first, last), start=1):
        rows = kept.add(step, dict(train=dict(a=dict(cka=0.5, cross_matrix=matrix)), val={}))
        assert [row.measure for row in rows] == ["cka"]
    [found] = read_matrices(file)
    assert found[:3] == ("train", "a", "cross_matrix")
    assert torch.equal(torch.from_numpy(found.matrix), last.float())
    assert {each.name for each in file.parent.iterdir()} == {
        "dynamics.csv", "dynamics_matrices.npz",
    }  # fmt: skip
    # A training that begins anew leaves nothing of the one before.
    DynamicsFile(file)
    assert read_matrices(file) == []
    assert not any(file.parent.iterdir())


def test_damaged_matrices(file: Path) -> None:
    DynamicsFile(file).add(1, dict(train=dict(a=dict(own_matrix=torch.eye(3)))))
    beside = file.with_name("dynamics_matrices.npz")
    for content in (beside.read_bytes()[:200], b"", b"no archive"):
        beside.write_bytes(content)
        with pytest.raises(InputError, match="expected matrices that a recorder wrote"):
            read_matrices(file)
        # Nor is it replaced by another training's.
        with pytest.raises(InputError, match="remove or rename it"):
            DynamicsFile(file)
        assert beside.read_bytes() == content
