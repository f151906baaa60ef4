"""What the images show is worked out when it is asked for, and once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmkd.targets import Boxes, Targets, on_grid


def test_values_and_functions_serve_alike() -> None:
    labels, indices = torch.tensor([1, 0]), torch.tensor([7, 3])
    boxes = [Boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))] * 2
    given = Targets((4, 6), labels=labels, boxes=boxes, indices=indices)
    made = Targets((4, 6), labels=lambda: labels, boxes=lambda: boxes, indices=lambda: indices)
    for targets in (given, made):
        assert targets.size == (4, 6)
        assert targets.labels is labels and targets.boxes is boxes and targets.indices is indices


def test_nothing_is_worked_out_before_it_is_asked_for() -> None:
    asked: list[str] = []

    def labels() -> Tensor:
        asked.append("labels")
        return torch.zeros(2)

    targets = Targets((4, 6), labels=labels)
    assert asked == []
    assert targets.labels is targets.labels
    assert asked == ["labels"]


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("labels", "class labels of images, as classifiers learn them"),
        ("boxes", "boxes"),
        ("indices", "image indices"),
    ],
)
def test_what_a_training_does_not_have(name: str, called: str) -> None:
    with pytest.raises(ValueError, match=f"asks for {called}, and the batches of this training"):
        getattr(Targets((4, 6)), name)


def test_a_batch_that_shows_no_object() -> None:
    box, none = (Boxes(torch.zeros(k, 4), torch.zeros(k).long()) for k in (1, 0))
    assert Targets((4, 6), boxes=[none, none]).show_no_object
    assert not Targets((4, 6), boxes=[none, box]).show_no_object
    # Not known.
    assert not Targets((4, 6), labels=torch.zeros(2)).show_no_object


def test_scores_keep_their_sum_on_another_grid() -> None:
    scores = torch.arange(8.0).reshape(1, 1, 2, 4)
    assert on_grid(scores, torch.zeros(1, 3, 1, 2)).tolist() == [[[[10, 18]]]]
    assert on_grid(scores, torch.zeros(1, 3, 2, 4)) is scores


def test_the_scores_of_all_levels_are_those_of_one_unless_told() -> None:
    targets = Targets((8, 8), scores=torch.ones(1, 1, 2, 2))
    assert targets.total_score.item() == 4
    shown = targets.with_scores(torch.ones(1, 1, 1, 1), torch.tensor(5.0))
    assert (shown.scores.sum().item(), shown.total_score.item()) == (1, 5)
    with pytest.raises(ValueError, match="asks for the teacher's scores"):
        _ = Targets((8, 8)).total_score


def test_boxes_meet_the_grid_of_a_feature() -> None:
    """The batch's size and the map's grid tell where a box lies, whatever the stride."""
    targets = Targets((8, 12), boxes=[Boxes(torch.tensor([[4.0, 2.0, 8.0, 6.0]]), torch.zeros(1))])
    height, width = 4, 6
    scale = torch.tensor([width / targets.size[1], height / targets.size[0]] * 2)
    assert (targets.boxes[0].corners * scale).tolist() == [[2, 1, 4, 3]]
