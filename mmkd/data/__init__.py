"""Data sets that need no download."""

from mmkd.data.digits import CLASSES, METAINFO, make_digits

__all__ = ["CLASSES", "METAINFO", "make_digits"]
