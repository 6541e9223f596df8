"""Results as one self-contained HTML file with pictures, to open, print or send."""

from ccx.report.drawing import check_photo
from ccx.report.plotting import plot
from ccx.report.view import KnownUnit
from ccx.report.writing import render, report_path, write_report

__all__ = ["KnownUnit", "check_photo", "plot", "render", "report_path", "write_report"]
