"""Terms of detectors' methods, for every trainer."""

from __future__ import annotations

from typing import Any

__all__ = ["MAPS", "SCORED", "of_head", "on_neck"]


def on_neck(loss: str, **settings: Any) -> dict[str, Any]:
    """A term of each level of the neck."""
    return dict(student="neck", teacher="neck", stride="all", loss=dict(type=loss), **settings)


def of_head(name: str, loss: str, **settings: Any) -> dict[str, Any]:
    """A term of each level of what a head predicts; of regions, one."""
    level = {} if name == "roi.classes" else dict(stride="all")
    return dict(student=name, teacher=name, loss=dict(type=loss, **settings), **level)


# That serve every detector; the last takes all levels at once.
MAPS = dict(
    pkd=on_neck("mmkd.PKDLoss"),
    cwd=on_neck("mmkd.CWDLoss"),
    at=on_neck("mmkd.ATLoss"),
    mgd=on_neck("mmkd.MGDLoss"),
    fgd=on_neck("mmkd.FGDLoss"),
    fgfi=on_neck(
        "mmkd.FGFILoss", projector=dict(type="mmkd.ConvConnector", layout="3x3", norm=False)
    ),
    fbkd=on_neck("mmkd.FBKDLoss"),
    fitnet=on_neck("mmkd.MSELoss", normalizer=dict(type="mmkd.IdentityNormalizer")),
    # RTMDet's recipe, which decays as DAMO's.
    recipe=on_neck(
        "mmkd.CWDLoss",
        projector=dict(type="mmkd.LinearProjector"),
        normalizer=dict(type="mmkd.BatchNormalizer"),
        schedule=dict(end=300, decay=300),
    ),
    # As tokens of a foundation model are compared.
    direction=on_neck("mmkd.DirectionAlignmentLoss"),
    review=dict(
        student="neck",
        teacher="neck",
        levels=[0, 1, 2],
        loss=dict(type="mmkd.ReviewKDLoss", inner=8),
    ),
)
# With the projector that it has in Ultralytics' own distill_model.
SCORED = on_neck(
    "mmkd.ScoreWeightedL2Loss", projector=dict(type="mmkd.MLPProjector", hidden_channels=None)
)
