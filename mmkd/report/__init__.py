"""One HTML page on a run, or on several side by side."""

from mmkd.report.page import write_report

__all__ = ["write_report"]
