"""Two processes train one student: what they hold in common, and what one process would do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import two_processes
from helpers.classifier_distillers import TERMS
from helpers.classifier_toy import write_classifier
from helpers.toy import differences
from helpers.two_processes import joined_config, recorded

Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory, teacher: dict) -> list[Results]:
    """What each of the two processes recorded."""
    folder = tmp_path_factory.mktemp("ranks")
    teachers = dict(detector=teacher, classifier=write_classifier(folder, "classifier"))
    (folder / "teachers.json").write_text(json.dumps(teachers))
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(two_processes.__file__)
    done = subprocess.run(
        [sys.executable, "-m", *launch, script, str(folder)],
        env=dict(os.environ, CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return [torch.load(folder / f"rank{rank}.pth", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("run", ["joined", "statistics", "resumed"])
def test_both_hold_the_same_weights(ranks: list[Results], run: str) -> None:
    first, second = (rank[run] for rank in ranks)
    for moment in ("initial", "gradients", "final"):
        assert not differences(first[moment], second[moment])
    # The normaliser takes a bias out again, so that its gradient may be 0.
    weights = [name for name in first["initial"] if name.endswith("weight")]
    unmoved = [k for k in weights if torch.equal(first["initial"][k], first["final"][k])]
    # When resumed, the term that is off moves no more.
    assert unmoved == (["projector.off.projector.linear.weight"] if run == "resumed" else [])
    assert all(value != 0 for value in (logged["distill_deep"] for logged in first["losses"]))


@pytest.mark.parametrize("run", ["joined", "statistics", "across_resumed"])
def test_both_choose_the_same_weights_by_shares(ranks: list[Results], run: str) -> None:
    first, second = (rank[run] for rank in ranks)
    rules = [name for name in first["buffers"] if ".balance." in name]
    assert rules and all(first["buffers"][name] != 0 for name in rules)
    for name in rules:
        assert torch.equal(first["buffers"][name], second["buffers"][name])
    for ours, theirs in zip(first["losses"], second["losses"], strict=True):
        weights = [name for name in ours if name.startswith("distill_weight_")]
        assert weights and [ours[name] for name in weights] == [theirs[name] for name in weights]


def test_the_processes_drew_differently(ranks: list[Results]) -> None:
    first, second = (rank["statistics"]["losses"] for rank in ranks)
    assert all(a["loss_cls"] != b["loss_cls"] for a, b in zip(first, second, strict=True))


def test_a_resumed_run_starts_where_the_other_stopped(ranks: list[Results]) -> None:
    names = [name for name in ranks[0]["resumed"]["initial"] if name.startswith("projector")]
    for rank in ranks:
        assert len(rank["resumed"]["losses"]) == len(rank["statistics"]["losses"]) / 2
        for name in names:
            before, after = (rank[run]["initial"][name] for run in ("statistics", "resumed"))
            assert not torch.equal(before, after)


@pytest.mark.parametrize(
    ("run", "resumed"), [("statistics", "resumed"), ("across", "across_resumed")]
)
def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    ranks: list[Results], run: str, resumed: str
) -> None:
    """Each process with its own draws, its own pending gradients and its own statistics."""
    for rank in ranks:
        whole, again = rank[run], rank[resumed]
        assert whole["losses"][-2:] == again["losses"]
        for key in ("final", "buffers"):
            assert not differences(whole[key], again[key])
    own = [rank[run]["buffers"] for rank in ranks]
    assert differences(*own), "the processes hold nothing of their own"


def test_they_do_what_one_process_does(ranks: list[Results], tmp_path: Path, teacher: dict) -> None:
    """Gradients, clipped and accumulated, and the trained weights, of the joined batch."""
    alone, _ = recorded(joined_config(tmp_path, teacher, processes=1))
    both = ranks[0]["joined"]
    assert not differences(alone["initial"], both["initial"])
    assert len(alone["gradients"]) == len(both["gradients"]) == 4
    close = dict(rtol=2e-3, atol=2e-5)
    for ours, theirs in zip(both["gradients"], alone["gradients"], strict=True):
        assert ours.keys() == theirs.keys()
        for name, gradient in theirs.items():
            torch.testing.assert_close(ours[name], gradient, **close)
    for name, weight in alone["final"].items():
        torch.testing.assert_close(both["final"][name], weight, **close)
    for ours, theirs in zip(both["losses"], alone["losses"], strict=True):
        for term in ("deep", "pooled", "correlation"):
            key = f"distill_{term}"
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4)
        for term in ("pooled", "local"):
            key = f"distill_weight_{term}"
            assert ours[key] == pytest.approx(theirs[key], rel=2e-3)


@pytest.mark.parametrize("name", list(TERMS))
def test_distillers_learn_one_set_of_weights_and_remember_alike(
    ranks: list[Results], name: str
) -> None:
    """Banks and contexts hold the images of both processes, which drew differently."""
    first, second = (rank[name] for rank in ranks)
    assert [each["loss"] for each in first["losses"]] != [each["loss"] for each in second["losses"]]
    for moment in ("initial", "gradients", "final"):
        assert not differences(first[moment], second[moment])
    moved = [k for k, v in first["initial"].items() if not torch.equal(v, first["final"][k])]
    assert any(key.startswith("student.") for key in moved)
    assert any(key.startswith("projector.") for key in moved)
    shared = {
        "crd": ("crd.student_bank", "crd.teacher_bank", "crd.labels", "crd.log_z"),
        "cid": ("context", "is_known"),
    }
    for end in shared.get(name, ()):
        [key] = (each for each in first["buffers"] if each.endswith(end))
        assert not differences(first["buffers"][key], second["buffers"][key])
    if name == "crd":
        [labels] = (v for k, v in first["buffers"].items() if k.endswith("crd.labels"))
        assert (labels >= 0).all()
    if name == "cid":
        [known] = (v for k, v in first["buffers"].items() if k.endswith("is_known"))
        assert bool(known)
