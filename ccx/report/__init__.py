"""Results as one self-contained HTML file with pictures, to open, print or send."""

from ccx.report.drawing import check_photo
from ccx.report.html_report import render, report_path, write_report
from ccx.report.plotting import plot
from ccx.report.view_model import KnownUnit

__all__ = ["KnownUnit", "check_photo", "plot", "render", "report_path", "write_report"]
