"""Knowledge distillation for detectors and classifiers, as one more entry in the loss dict.

Importing mmkd registers its parts with MMEngine (scope ``mmkd``) and, where mmcv has no compiled
extension, puts a stand-in in its place.
"""

from mmkd import ops

ops.install()

from mmkd import losses, normalizers, projectors  # noqa: E402
from mmkd.distiller import FeatureDistiller  # noqa: E402
from mmkd.engine import ClassifierAlignmentHook, DistillHook  # noqa: E402

__all__ = [
    "ClassifierAlignmentHook",
    "DistillHook",
    "FeatureDistiller",
    "losses",
    "normalizers",
    "ops",
    "projectors",
]
__version__ = "0.1.0"
