"""Every method in real trainings of MMDetection's detectors, held to values taken beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor
from torch.nn.functional import kl_div

from helpers.detection_methods import MAPS, SCORED, of_head, on_neck
from helpers.mm_detectors import training_config, write_teacher
from helpers.toy import LossRecorder, Probe, distill, distill_hook_of, train
from mmkd.losses import BinaryKDLoss, CWDLoss, DKDLoss
from mmkd.losses.ld import localization_distillation
from mmkd.targets import Targets

ONE_STAGE = ("retinanet", "gfl", "fcos", "atss", "rtmdet", "yolox")


class Watch:
    """What both networks' modules return in training, by path, a list an iteration."""

    def __init__(self, *paths: str) -> None:
        self.paths = paths
        self.ours: list[dict[str, list[Any]]] = []
        self.theirs: list[dict[str, list[Any]]] = []
        self.rois: list[tuple[Tensor, Tensor]] = []

    def start(self, runner: Runner) -> None:
        teacher = distill_hook_of(runner).teachers["teacher"].model
        for path in self.paths:
            runner.model.get_submodule(path).register_forward_hook(self._keeping(path, self.ours))
            teacher.get_submodule(path).register_forward_hook(
                self._keeping(path, self.theirs), prepend=True
            )

    def before(self, runner: Runner) -> None:
        self.ours.append({path: [] for path in self.paths})
        self.theirs.append({path: [] for path in self.paths})

    def _keeping(self, path: str, found: list) -> Any:
        def keep(module: Any, args: Any, output: Tensor) -> None:
            if found:
                found[-1][path].append(output.detach().clone())

        return keep


def trained(
    kind: str, tmp_path: Path, digits: Path, terms: dict, watch: Watch | None = None
) -> tuple[Runner, list[dict]]:
    config = training_config(kind, digits, tmp_path)
    config.merge_from_dict(distill(write_teacher(kind, tmp_path), terms, probe_size=64))
    recorder = LossRecorder()
    probes = [] if watch is None else [
        Probe(before_train=watch.start, before_train_iter=watch.before)
    ]  # fmt: skip
    runner = train(config, *probes, recorder)
    assert len(recorder.logged) == 3
    return runner, recorder.logged


@pytest.mark.parametrize("kind", ["faster_rcnn", *ONE_STAGE])
def test_methods_on_maps(tmp_path: Path, digits: Path, kind: str) -> None:
    runner, logged = trained(kind, tmp_path, digits, MAPS)
    names = list(distill_hook_of(runner).distillers)
    assert names == [
        *(f"{name}_s{stride}" for name in list(MAPS)[:-1] for stride in (8, 16, 32)),
        "review",
    ]
    for each in logged:
        for name in names:
            assert 0 < each[f"distill_{name}"] < 1e6
    assert not any("distill" in key for key in runner.model.state_dict())


def test_a_student_inherits_neck_and_head(tmp_path: Path, digits: Path) -> None:
    """Layers of the neck that read the backbone are of another width, and stay its own."""
    config = training_config("gfl", digits, tmp_path)
    term = dict(pkd=on_neck("mmkd.PKDLoss"))
    inherit = dict(neck="neck", bbox_head="bbox_head")
    config.merge_from_dict(distill(write_teacher("gfl", tmp_path), term, inherit=inherit))
    config.log_level = "INFO"
    found: dict[str, bool] = {}

    def look(runner: Runner) -> None:
        teacher = distill_hook_of(runner).teachers["teacher"].model.state_dict()
        for key, value in runner.model.state_dict().items():
            if key.startswith(("neck", "bbox_head")):
                found[key] = torch.equal(value, teacher[key]) if (
                    value.shape == teacher[key].shape
                ) else False  # fmt: skip

    train(config, Probe(before_train=look))
    left = {key for key, is_equal in found.items() if not is_equal}
    # Their biases are all zero at first.
    assert left == {f"neck.lateral_convs.{i}.conv.weight" for i in range(3)}
    assert len(found) > len(left)
    text = Path(config.work_dir).rglob("*.log")
    assert any(
        "neck takes over the teacher's weights, but for lateral_convs.0.conv" in each.read_text()
        for each in text
    )


CLASS_PATHS = dict(
    retinanet="retina_cls", gfl="gfl_cls", fcos="conv_cls", atss="atss_cls",
    rtmdet="rtm_cls.{}", yolox="multi_level_conv_cls.{}",
)  # fmt: skip


@pytest.mark.parametrize("kind", ONE_STAGE)
def test_class_logits(tmp_path: Path, digits: Path, kind: str) -> None:
    path = f"bbox_head.{CLASS_PATHS[kind]}"
    is_shared = "{}" not in path
    watch = Watch(*([path] if is_shared else [path.format(i) for i in range(3)]))
    term = of_head("head.classes", "mmkd.BinaryKDLoss", temperature=2.0)
    terms = dict(
        kd=dict(term, weight=3.0), cwd=of_head("head.classes", "mmkd.CWDLoss"), scored=SCORED
    )
    _, logged = trained(kind, tmp_path, digits, terms, watch)
    for each, ours, theirs in zip(logged, watch.ours, watch.theirs, strict=True):
        for level, stride in enumerate((8, 16, 32)):
            own = path if is_shared else path.format(level)
            pair = [side[own][level if is_shared else 0] for side in (ours, theirs)]
            rows = (x.permute(0, 2, 3, 1).flatten(0, 2) for x in pair)
            expected = BinaryKDLoss(2.0)(*rows).item()
            assert each[f"distill_kd_s{stride}"] == pytest.approx(expected, rel=1e-5)
            assert each[f"loss_distill_kd_s{stride}"] == pytest.approx(3 * expected, rel=1e-5)
            expected = CWDLoss()(*pair).item()
            assert each[f"distill_cwd_s{stride}"] == pytest.approx(expected, rel=1e-4)
            assert each[f"distill_scored_s{stride}"] > 0


def test_box_distributions_of_gfl(tmp_path: Path, digits: Path) -> None:
    paths = [f"bbox_head.scales.{level}" for level in range(3)]
    watch = Watch("bbox_head.gfl_cls", *paths)
    _, logged = trained(
        "gfl", tmp_path, digits, dict(ld=of_head("head.boxes", "mmkd.LDLoss")), watch
    )
    for each, ours, theirs in zip(logged, watch.ours, watch.theirs, strict=True):
        scores = [level.sigmoid().amax(1, True) for level in theirs["bbox_head.gfl_cls"]]
        total = torch.stack([level.sum() for level in scores]).sum()
        for level, stride in enumerate((8, 16, 32)):
            [own], [other] = (side[paths[level]] for side in (ours, theirs))
            expected = localization_distillation(own, other, scores[level], total=total).item()
            assert each[f"distill_ld_s{stride}"] == pytest.approx(expected, rel=1e-5)


def test_scores_of_yolox_are_of_a_class_and_of_an_object(tmp_path: Path, digits: Path) -> None:
    """Its classes are learned of objects alone, so that they say nothing of the background."""
    runner, _ = trained("yolox", tmp_path, digits, dict(scored=on_neck("mmkd.ScoreWeightedL2Loss")))
    for term in distill_hook_of(runner).terms:
        assert term.scores == tuple(
            tuple(f"bbox_head.multi_level_conv_{kind}.{level}" for level in range(3))
            for kind in ("cls", "obj")
        )


def test_images_without_boxes(tmp_path: Path, digits: Path) -> None:
    """Of the twelve, one has some: in most iterations no cell is near a box."""
    truth = json.loads((digits / "annotations/train.json").read_text(encoding="utf-8"))
    last = truth["images"][-1]["id"]
    truth["annotations"] = [each for each in truth["annotations"] if each["image_id"] == last]
    (tmp_path / "train.json").write_text(json.dumps(truth), encoding="utf-8")
    config = training_config("retinanet", digits, tmp_path)
    config.train_dataloader.batch_size = 1
    dataset = config.train_dataloader.dataset
    dataset.update(ann_file=str(tmp_path / "train.json"), filter_cfg=dict(filter_empty_gt=False))
    config.train_dataloader.sampler.shuffle = False
    terms = dict(fgfi=MAPS["fgfi"])
    config.merge_from_dict(distill(write_teacher("retinanet", tmp_path), terms))
    recorder = LossRecorder()
    train(config, recorder)
    values = [each["distill_fgfi_s16"] for each in recorder.logged]
    assert len(values) == 12 and not any(values[:-1]) and values[-1] > 0


def test_objectness_and_regions_of_faster_rcnn(tmp_path: Path, digits: Path) -> None:
    """The teacher's head is shown the regions that the student's was trained on."""
    watch = Watch("rpn_head.rpn_cls", "roi_head.bbox_head.fc_cls")
    seen: list[tuple[Tensor, Tensor]] = []
    assigned: list[Tensor] = []

    def look(runner: Runner) -> None:
        teacher = distill_hook_of(runner).teachers["teacher"].model
        rois: list[Tensor] = []
        for model in (runner.model, teacher):
            model.roi_head.bbox_roi_extractor.register_forward_pre_hook(
                lambda module, args: rois.append(args[1].clone())
            )
        seen.append(rois)  # type: ignore[arg-type]
        head = runner.model.roi_head.bbox_head
        inner = head.get_targets

        def noted(*args: Any, **kwargs: Any) -> Any:
            targets = inner(*args, **kwargs)
            assigned.append(targets[0])
            return targets

        head.get_targets = noted
        watch.start(runner)

    terms = dict(
        rpn=of_head("rpn.objectness", "mmkd.BinaryKDLoss"),
        dkd=of_head("roi.classes", "mmkd.DKDLoss", of="regions", beta=0.25, temperature=1.0),
        kd=of_head("roi.classes", "mmkd.KDLoss", temperature=1.0),
    )
    config = training_config("faster_rcnn", digits, tmp_path)
    config.merge_from_dict(distill(write_teacher("faster_rcnn", tmp_path), terms))
    recorder = LossRecorder()
    train(config, Probe(before_train=look, before_train_iter=watch.before), recorder)
    [rois] = seen
    assert len(rois) == 6 and all(torch.equal(rois[i], rois[i + 1]) for i in (0, 2, 4))
    for index, each in enumerate(recorder.logged):
        ours, theirs = watch.ours[index], watch.theirs[index]
        for level, stride in enumerate((8, 16, 32)):
            rows = (side["rpn_head.rpn_cls"][level].permute(0, 2, 3, 1).flatten(0, 2)
                    for side in (ours, theirs))  # fmt: skip
            assert each[f"distill_rpn_s{stride}"] == pytest.approx(
                BinaryKDLoss()(*rows).item(), rel=1e-5
            )
        [own], [other] = (side["roi_head.bbox_head.fc_cls"] for side in (ours, theirs))
        found = DKDLoss(beta=0.25, temperature=1.0)
        expected = found(own, other, targets=Targets((64, 64), labels=assigned[index]))
        assert each["distill_dkd"] == pytest.approx(expected.item(), rel=1e-5)
        kept = own.log_softmax(1), other.log_softmax(1)
        kl = (kept[1].exp() * (kept[1] - kept[0])).sum(1).mean().item()
        assert each["distill_kd"] == pytest.approx(kl, rel=1e-4)


def test_the_teacher_runs_no_further_than_a_term_needs(tmp_path: Path, digits: Path) -> None:
    for terms, left in (
        (dict(neck=on_neck("mmkd.PKDLoss")), ("rpn_head", "roi_head")),
        (dict(rpn=of_head("rpn.objectness", "mmkd.BinaryKDLoss")), ("roi_head",)),
        (dict(roi=of_head("roi.classes", "mmkd.KDLoss")), ("rpn_head",)),
    ):
        entered: list[str] = []

        def look(runner: Runner, entered: list[str] = entered) -> None:
            teacher = distill_hook_of(runner).teachers["teacher"].model
            for name, module in teacher.named_modules():
                module.register_forward_pre_hook(lambda m, a, n=name: entered.append(n))

        config = training_config("faster_rcnn", digits, tmp_path)
        config.merge_from_dict(distill(write_teacher("faster_rcnn", tmp_path), terms))
        train(config, Probe(before_train=look))
        assert entered and not any(name.startswith(left) for name in entered)


def cross(branch: str, after: int, rest: list[str], **settings: Any) -> dict[str, Any]:
    tap = f"bbox_head.{branch}.{after - 1}*"
    return dict(
        student=tap, teacher=tap, stride="all", teacher_classifier=rest,
        loss=dict(type="mmkd.CrossKDLoss", **settings),
    )  # fmt: skip


# As the small detectors' coders have them.
_DELTAS = dict(compare="deltas", stds=[0.1, 0.1, 0.2, 0.2])
CROSS = {
    kind: dict(
        classes=cross("cls_convs", 3, ["bbox_head.cls_convs.3", f"bbox_head.{classes}"]),
        boxes=cross(
            "reg_convs",
            3,
            ["bbox_head.reg_convs.3", *(f"bbox_head.{each}" for each in boxes)],
            **settings,
        ),
    )
    for kind, classes, boxes, settings in (
        ("gfl", "gfl_cls", ["gfl_reg", "scales.{level}"], dict(compare="bins")),
        ("retinanet", "retina_cls", ["retina_reg"], _DELTAS),
        ("fcos", "conv_cls", ["conv_reg", "scales.{level}"], dict(compare="distances")),
        ("atss", "atss_cls", ["atss_reg", "scales.{level}"], _DELTAS),
    )
}


def apart_by_coder(kind: str, head: Any, level: int, ours: Tensor, theirs: Tensor) -> Tensor:
    """``[N, H, W]``: how far the boxes of two predictions are apart, by MMDetection's parts."""
    count, _, *grid = ours.shape
    rows = [x.permute(0, 2, 3, 1).flatten(0, 2) for x in (ours, theirs)]
    if kind == "gfl":
        bins = [x.reshape(-1, head.reg_max + 1) for x in rows]
        kl = kl_div(
            bins[0].log_softmax(1), bins[1].log_softmax(1), reduction="none", log_target=True
        )
        return kl.sum(1).reshape(count, *grid, 4).mean(3)
    sizes = [tuple(map(int, grid)) if i == level else (1, 1) for i in range(3)]
    priors = head.prior_generator.grid_priors(sizes, device="cpu")[level]
    rows = [x.reshape(-1, 4) for x in rows]
    if kind == "fcos":
        rows = [x.exp() for x in rows]
    decoded = [head.bbox_coder.decode(priors.repeat(count, 1), x) for x in rows]
    giou = bbox_overlaps(*decoded, mode="giou", is_aligned=True)
    return (1 - giou).reshape(count, *grid, -1).mean(3)


@pytest.mark.parametrize("kind", CROSS)
def test_cross_kd(tmp_path: Path, digits: Path, kind: str) -> None:
    """What remains of the teacher's head gives, of its own feature, the teacher's prediction; boxes
    are compared where the head's own coder puts them."""
    watch = Watch(f"bbox_head.{CLASS_PATHS[kind]}")
    found: dict[str, list[Tensor]] = {}
    boxes: dict[int, list[tuple[Tensor, Tensor]]] = {stride: [] for stride in (8, 16, 32)}
    heads: list[Any] = []

    def start(runner: Runner) -> None:
        watch.start(runner)
        distillers = distill_hook_of(runner).distillers
        heads.append(runner.model.bbox_head)
        for stride, seen in boxes.items():
            loss = distillers[f"boxes_s{stride}"].loss
            inner = loss._of_boxes

            def compared(ours: Tensor, theirs: Tensor, inner=inner, seen=seen) -> Tensor:
                seen.append((ours.detach(), theirs.detach()))
                return inner(ours, theirs)

            loss._of_boxes = compared
        for level, stride in enumerate((8, 16, 32)):
            loss = distillers[f"classes_s{stride}"].loss
            inner = loss.forward

            def noted(s: Tensor, t: Tensor, *, targets: Targets, loss=loss, inner=inner,
                      name=f"p{level}") -> Tensor:  # fmt: skip
                found.setdefault(name, []).append(loss._rest[0](t).detach())
                return inner(s, t, targets=targets)

            loss.forward = noted

    config = training_config(kind, digits, tmp_path)
    config.merge_from_dict(distill(write_teacher(kind, tmp_path), CROSS[kind]))
    recorder = LossRecorder()
    train(config, Probe(before_train=start, before_train_iter=watch.before), recorder)
    path = f"bbox_head.{CLASS_PATHS[kind]}"
    for index, each in enumerate(recorder.logged):
        # Its own forward pass was the first to call the layer in an iteration.
        classes = watch.theirs[index][path][:3]
        scores = [level.sigmoid().amax(1) for level in classes]
        total = max(1.0, sum(level.sum().item() for level in scores))
        for level, stride in enumerate((8, 16, 32)):
            assert each[f"distill_classes_s{stride}"] > 0
            apart = apart_by_coder(kind, heads[0], level, *boxes[stride][index])
            expected = (scores[level] * apart).sum().item() / total
            assert each[f"distill_boxes_s{stride}"] == pytest.approx(expected, rel=1e-3, abs=2e-7)
        for level in range(3):
            own = found[f"p{level}"][index]
            torch.testing.assert_close(own, classes[level], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("faster_rcnn", "head.classes", "FasterRCNN has no .* 'rpn.objectness' and 'roi.classes'"),
        ("retinanet", "head.boxes", "RetinaNet has no 'head.boxes': .* of GFL"),
        ("fcos", "rpn.objectness", "FCOS has no 'rpn.objectness': .* as Faster R-CNN"),
        ("yolox", "roi.classes", "YOLOX has no 'roi.classes': .* as Faster R-CNN"),
    ],
)
def test_a_detector_that_a_method_cannot_serve(
    tmp_path: Path, digits: Path, kind: str, name: str, said: str
) -> None:
    with pytest.raises(ValueError, match=rf"DistillHook terms\.x\.student: {said}"):
        trained(kind, tmp_path, digits, dict(x=of_head(name, "mmkd.BinaryKDLoss")))


@pytest.mark.parametrize("kind", ["faster_rcnn", "rtmdet", "yolox"])
def test_a_head_without_convolutions_that_serve_every_level(
    tmp_path: Path, digits: Path, kind: str
) -> None:
    said = (
        r"terms\.classes\.student: \w+ has no convolution 'bbox_head\.cls_convs\.2' .*"
        "those of GFL, RetinaNet, FCOS and ATSS"
    )
    with pytest.raises(ValueError, match=said):
        trained(kind, tmp_path, digits, dict(classes=CROSS["gfl"]["classes"]))


@pytest.mark.parametrize(
    ("kind", "term", "said"),
    [
        ("faster_rcnn", of_head("roi.classes", "mmkd.DKDLoss"), "no gt_label, .* of='regions'"),
        ("gfl", of_head("head.classes", "mmkd.NKDLoss"), "no gt_label"),
        (
            "gfl",
            of_head("head.classes", "mmkd.DKDLoss", of="regions"),
            "asks for regions, as the head of a two-stage detector has them",
        ),
        (
            "gfl",
            dict(type="mmkd.CRDDistiller", num_images=8, exact=False),
            "no sample_idx, .* add 'sample_idx' to the meta_keys",
        ),
    ],
)
def test_images_that_do_not_show_what_a_loss_reads(
    tmp_path: Path, digits: Path, kind: str, term: dict, said: str
) -> None:
    config = training_config(kind, digits, tmp_path)
    config.merge_from_dict(distill(write_teacher(kind, tmp_path), dict(one=term)))
    begun: list[Runner] = []
    with pytest.raises(ValueError, match=rf"DistillHook terms\.one.*: .*{said}"):
        train(config, Probe(before_train=begun.append))
    assert not begun


def test_other_bins_than_the_teacher_s(tmp_path: Path, digits: Path) -> None:
    config = training_config("gfl", digits, tmp_path)
    config.model.bbox_head.reg_max = 8
    terms = dict(ld=of_head("head.boxes", "mmkd.LDLoss"))
    config.merge_from_dict(distill(write_teacher("gfl", tmp_path), terms))
    with pytest.raises(ValueError, match=r"DistillHook terms\.ld_s8: .* got 9 bins .* and 17 of"):
        train(config)


@pytest.mark.parametrize(
    ("kind", "loss", "said"),
    [
        ("gfl", dict(compare="distances"), "boxes of GFLHead are bins: .* got 'distances'"),
        ("fcos", dict(compare="deltas"), "boxes of FCOSHead are distances: .* got 'deltas'"),
        ("atss", dict(compare="distances"), "boxes of ATSSHead are deltas: .* got 'distances'"),
        (
            "retinanet",
            dict(compare="deltas"),
            r"multiplies deltas by \[0\.1, 0\.1, 0\.2, 0\.2\] .*, got \[1\.0, 1\.0, 1\.0, 1\.0\]",
        ),
    ],
)
def test_boxes_that_are_taken_for_others(
    tmp_path: Path, digits: Path, kind: str, loss: dict, said: str
) -> None:
    term = dict(CROSS[kind]["boxes"], loss=dict(type="mmkd.CrossKDLoss", **loss))
    with pytest.raises(ValueError, match=rf"DistillHook terms\.boxes_s8\.loss: .*{said}"):
        trained(kind, tmp_path, digits, dict(boxes=term))


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("fcos", dict(norm_on_bbox=True)),
        ("fcos", dict(type="AutoAssignHead", centerness_on_reg=True)),
        ("retinanet", dict(bbox_coder=dict(type="TBLRBBoxCoder"))),
    ],
)
def test_boxes_that_cross_kd_does_not_know(
    kind: str, head: dict, tmp_path: Path, digits: Path
) -> None:
    given = write_teacher(kind, tmp_path)
    config = Config.fromfile(given["config"])
    config.model.bbox_head.update(head)
    config.dump(given["config"])
    student = training_config(kind, digits, tmp_path)
    student.merge_from_dict(distill(given, dict(boxes=CROSS["fcos"]["boxes"])))
    with pytest.raises(ValueError, match=r"terms\.boxes_s8\.loss: .* compare the classes alone"):
        train(student)


def test_a_rest_of_a_head_that_gives_something_else(tmp_path: Path, digits: Path) -> None:
    rest = ["bbox_head.reg_convs.3", "bbox_head.gfl_cls"]
    terms = dict(x=dict(CROSS["gfl"]["boxes"], teacher_classifier=rest))
    with pytest.raises(
        ValueError, match=r"terms\.x_s8: compare='bins' does not fit the 10 channels"
    ):
        trained("gfl", tmp_path, digits, terms)
