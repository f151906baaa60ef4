"""One HTML page on a run, or on several side by side."""

from mmkd.report.page import check_out, write_report

__all__ = ["check_out", "write_report"]
