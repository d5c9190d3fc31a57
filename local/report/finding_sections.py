"""Sections on what known rows say of the scores, and on what pseudo labels changed."""

import json
from collections.abc import Sequence
from functools import partial
from itertools import groupby

import numpy as np

from local.report.charts import calibration_figure
from local.report.elements import Column, escape, picture, table
from local.report.page_records import ChangeExample, ChangeRow, Confusion, Report
from local.report.text import number

# A matrix of more classes than this cannot be read; the table above it holds the worst of it.
MAX_MATRIX_CLASSES = 60


def confusion_section(report: Report) -> str:
    """Of each confirmed class, which class scores highest and where its own stands."""
    confusion = report.confusion
    if confusion is None:
        return ""
    rows = [
        _confused(confusion, row, label)
        for row, label in enumerate(confusion.labels)
        if confusion.n[row]
    ]
    columns = [
        Column("confirmed class", "head"),
        Column("spans", "number", 0),
        Column("scores highest", "bar", 2),
        Column("above its threshold", "bar", 2),
        Column("mean rank", "number", 1),
        Column("scores higher most often", "line"),
    ]
    words = (
        "Where somebody confirmed a class, which class do models that never saw the recording "
        "score highest? Labels are partial: another class that scores higher may sound as well, so "
        "this is no list of errors. Ranks are among all classes, 1 the best."
    )
    matrix = _matrix(confusion) if len(confusion.labels) <= MAX_MATRIX_CLASSES else ""
    return (
        f"<p>{words}</p>\n"
        + table(columns, rows, "Confirmed spans, out-of-fold", sortable=True)
        + matrix
    )


def _confused(confusion: Confusion, row: int, label: str) -> list:
    others = confusion.highest[row].copy()
    others[row] = 0
    worst = int(others.argmax())
    instead = "none"
    if others[worst] > 0:
        instead = f"{confusion.labels[worst]} ({100 * others[worst]:.0f} %)"
    return [
        label,
        confusion.n[row],
        float(confusion.highest[row, row]),
        float(confusion.above[row, row]),
        float(confusion.mean_rank[row]),
        instead,
    ]


def _matrix(confusion: Confusion) -> str:
    """Shares as a table of shaded cells; every shade bears its number."""
    shown = [row for row, n in enumerate(confusion.n) if n]
    heads = "".join(f'<th scope="col">{escape(label)}</th>' for label in confusion.labels)
    body = "".join(
        f'<tr><th scope="row">{escape(confusion.labels[row])}</th>'
        + "".join(_shaded(share, row == column) for column, share in enumerate(shares))
        + "</tr>\n"
        for row, shares in ((row, confusion.highest[row]) for row in shown)
    )
    caption = (
        "Percent of the confirmed spans of a row's class in which the column's class scores highest"
    )
    return (
        "<details><summary>All classes against all</summary>\n"
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f'<table class="matrix"><caption>{escape(caption)}</caption>'
        f"<thead><tr><td></td>{heads}</tr></thead>\n<tbody>{body}</tbody></table></div></details>\n"
    )


def _shaded(share: float, own: bool) -> str:
    percent = round(100 * float(share))
    kind = ' class="own"' if own else ""
    if percent == 0:
        return f"<td{kind}></td>"
    return f'<td{kind} style="--share:{percent}%">{percent}</td>'


def calibration_section(report: Report) -> str:
    """Whether a score of 0.8 is right in eight of ten known cells."""
    bins = report.calibration
    if not bins:
        return ""
    n = np.array([item.n for item in bins], dtype=np.float64)
    gaps = np.array([abs(item.mean_score - item.share_present) for item in bins])
    words = (
        f"Known cells of time, out-of-fold: {int(n.sum()):,} that a confirmed or a rejected row "
        "fills. On the dashed line scores are shares. Rows were chosen by the people who labelled, "
        "often because a detector had fired there, so this says how scores stand on such spans and "
        "not how often a class sounds in the field. Mean distance from the line, by cells: "
        f"{number(float((n * gaps).sum() / n.sum()))}."
    )
    columns = [
        Column("score", "head"),
        Column("cells", "number", 0),
        Column("mean score", "number"),
        Column("share that sounds", "bar"),
    ]
    rows = [
        [f"{item.low:.1f} – {item.high:.1f}", item.n, item.mean_score, item.share_present]
        for item in bins
    ]
    alt = "Share of known cells that sound over their mean score; the table holds the numbers."
    return (
        f"<p>{words}</p>\n"
        + picture(partial(calibration_figure, bins), alt)
        + "<details><summary>The numbers</summary>\n"
        + table(columns, rows, "Calibration on known cells")
        + "</details>\n"
    )


def changes_section(report: Report) -> str:
    """Pseudo labels by cycle and class: how many, which are new, which are gone, what it did."""
    if not report.changes:
        return ""
    soft = report.changes[0].soft
    words = (
        "What soft labels add up to, by class: cells, recordings and seconds in which it is "
        "expected. "
        if soft
        else "Rows that models made for themselves, by class. Added and removed are counted "
        "against the cycle before: a row stays when one of its class overlaps it. "
    )
    parts = [
        f"<p>{words}The last column is the change of the class's out-of-fold score by that "
        "cycle.</p>\n"
    ]
    what = "expected cells" if soft else "rows"
    for cycle, group in groupby(report.changes, key=lambda row: row.cycle):
        rows = list(group)
        total = f"{sum(row.n_events for row in rows):,.0f} {what}"
        parts.append(f"<h3>Cycle {cycle} <small>{total}</small></h3>\n" + _changed(rows, cycle))
    if report.change_examples:
        parts.append(_examples(report.change_examples))
    return "".join(parts)


def _changed(rows: Sequence[ChangeRow], cycle: int) -> str:
    soft = rows[0].soft
    columns = [
        Column("class", "head"),
        Column(
            "cells" if soft else "rows", "bar", 0, top=max([*(row.n_events for row in rows), 1])
        ),
        Column("recordings", "number", 1 if soft else 0),
        Column("seconds", "number", 1),
        *([] if soft else [Column("added", "number", 0), Column("removed", "number", 0)]),
        Column("score change", "signed", 3),
    ]
    cells = [
        [
            *(row.label, row.n_events, row.n_recordings, row.seconds),
            *(() if soft else (row.n_added, row.n_removed)),
            row.score_change,
        ]
        for row in rows
    ]
    return table(columns, cells, f"Pseudo labels of cycle {cycle}", sortable=True)


def _examples(examples: Sequence[ChangeExample]) -> str:
    items = "".join(
        f"<li>{escape(item.what)}: <b>{escape(item.label)}</b> {escape(item.recording_id)}, "
        f"{item.onset:.2f}–{item.offset:.2f} s "
        f'<button type="button" data-show="{_place(item)}" disabled>Show</button></li>\n'
        for item in examples
    )
    return (
        "<details><summary>Examples of the last cycle</summary>\n<p>Those whose recording is on "
        f'this page can be shown.</p><ul class="examples">{items}</ul></details>\n'
    )


def _place(item: ChangeExample) -> str:
    return escape(json.dumps([item.recording_id, item.label, round(item.onset, 4)]))
