"""One self-contained page about a run: its scores, its classes, its training and what it heard.

`data` says what a report is made of, `pictures` draws it, `html` puts it on the page. Callers fill
a `Report` and hand it to `write_report`.
"""

from local.report.data import (
    Baseline,
    ClassRow,
    Curve,
    Detection,
    EventKind,
    RecordingPanel,
    Report,
    ScoreRow,
)
from local.report.html import render, write_report
from local.report.pictures import write_panel_picture

__all__ = [
    "Baseline",
    "ClassRow",
    "Curve",
    "Detection",
    "EventKind",
    "RecordingPanel",
    "Report",
    "ScoreRow",
    "render",
    "write_panel_picture",
    "write_report",
]
