"""The sections of the page, one function each: report -> HTML, or "" when there is nothing to show.

A new section is a function here and a line in `SECTIONS`; heading, place and link in the list of
contents follow from that line.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from local.report.charts import (
    baselines_of,
    curve_lines,
    curves_figure,
    score_groups,
    scores_figure,
)
from local.report.elements import (
    Column,
    definitions,
    escape,
    name_columns,
    names_of,
    picture,
    table,
)
from local.report.event_sections import events_section
from local.report.finding_sections import calibration_section, changes_section, confusion_section
from local.report.page_records import NAN, ClassRow, Report, ScoreRow
from local.report.text import interval, number
from local.report.viewer import viewer_html

if TYPE_CHECKING:
    from local.models.task_contract import ReportSection

_MEANINGS = {
    "LWLRAP": "in each recording the classes are ranked by score; for each class that sounds, the "
    "share of sounding ones among the classes ranked down to it; the mean of these. 1 is a perfect "
    "ranking.",
    "mAP": "for each class the recordings are ranked by score; the precision at each recording "
    "where it sounds, averaged, then the mean over classes. 1 is a perfect ranking.",
    "AUROC": "the chance that a recording where a class sounds scores higher than one where it "
    "does not, the mean over classes. 0.5 is guessing.",
    "span AUC": "the chance that a confirmed span scores higher than a rejected one of its class, "
    "the mean over classes. 0.5 is guessing.",
}


@dataclass(frozen=True)
class Section:
    """A section's anchor, heading and content."""

    anchor: str
    title: str
    content: Callable[[Report], str]


def scores_section(report: Report) -> str:
    """What was reached: a tile a score, a plot over cycles and all numbers beside baselines."""
    if not report.scores:
        return "<p>No scores: nothing with known labels was scored.</p>\n"
    groups = score_groups(report.scores)
    tiles = "".join(_tile(report, rows) for rows in groups.values())
    names = _in_order(item.name for item in report.baselines)
    rows = []
    for (name, subset), group in groups.items():
        beside = {item.name: item.value for item in baselines_of(report.baselines, name, subset)}
        rows += [
            [row.subset, row.name, row.cycle, row.value, interval(row.low, row.high), row.n]
            + [beside.get(baseline) for baseline in names]
            for row in group
        ]
    columns = [
        Column("scored on", "head"),
        Column("score"),
        Column("cycle", "number", 0),
        Column("value", "number"),
        Column("interval", "line"),
        Column("recordings", "number", 0),
        *(Column(name, "number") for name in names),
    ]
    alt = "Scores by cycle with intervals; the table below holds the same numbers."
    return (
        f'<div class="tiles">{tiles}</div>\n'
        + _explained(_in_order(row.name for row in report.scores))
        + picture(
            partial(scores_figure, report.scores, report.baselines),
            alt,
            "Bars are bootstrap intervals over recordings; level lines are baselines.",
        )
        + table(columns, rows, "Scores by cycle")
    )


def _explained(scores: Iterable[str]) -> str:
    """What the scores mean, for those that have a word here."""
    lines = [
        f"<p><b>{escape(name)}</b>: {_MEANINGS[name]}</p>" for name in scores if name in _MEANINGS
    ]
    if not lines:
        return ""
    return (
        "<details><summary>What these scores mean</summary>\n" + "\n".join(lines) + "</details>\n"
    )


def classes_section(report: Report) -> str:
    """Every class: how many known positives it has and how well it is found."""
    if not report.classes:
        return ""
    titles = _in_order(title for row in report.classes for title in row.scores)
    counts = [row.n_known for row in report.classes if row.n_known is not None]
    columns = [
        *name_columns(report.classes),
        Column("known positives", "bar", 0, top=max([*counts, 1])),
        *(Column(title, "bar") for title in titles),
    ]
    rows = [
        [
            *names_of(row, report.classes),
            row.n_known,
            *(_with_interval(row, each) for each in titles),
        ]
        for row in report.classes
    ]
    caption = "Scores by class with intervals over recordings; a heading sorts by its column"
    return table(columns, rows, caption, sortable=True)


def _with_interval(row: ClassRow, title: str) -> tuple[float | None, float, float]:
    return row.scores.get(title), *row.intervals.get(title, (NAN, NAN))


def prevalence_section(report: Report) -> str:
    """Share of recordings in which each class sounds, as estimated and as seen."""
    titles = _in_order(title for row in report.classes for title in row.prevalence)
    if not titles:
        return ""
    columns = [
        *name_columns(report.classes),
        *(Column(title, "percent", 1) for title in titles),
    ]
    rows = [
        [*names_of(row, report.classes), *(row.prevalence.get(title) for title in titles)]
        for row in report.classes
    ]
    return table(columns, rows, "Prevalence by class: share of recordings", sortable=True)


def recordings_section(report: Report, addresses: Sequence[tuple[str, str]] = ()) -> str:
    """Recordings to look at, to listen to and to judge; `addresses` of pictures and sounds."""
    if report.viewer is None or not report.viewer.clips:
        return ""
    return viewer_html(report.viewer, addresses)


def curves_section(report: Report) -> str:
    """Training of every fold, one figure a cycle."""
    ordered = sorted(report.curves, key=lambda curve: curve.cycle)
    parts = []
    for cycle, group in groupby(ordered, key=lambda curve: curve.cycle):
        curves = list(group)
        names = ", ".join(curve_lines(curves))
        if names:
            alt = f"Training curves of cycle {cycle}, one line a fold: {names}."
            parts.append(f"<h3>Cycle {cycle}</h3>\n" + picture(partial(curves_figure, curves), alt))
    return "".join(parts)


def provenance_section(report: Report) -> str:
    """Where the numbers come from: commit, versions, settings."""
    if not report.provenance:
        return ""
    pairs = [(str(key), _plain(value)) for key, value in report.provenance.items()]
    return definitions(pairs, "provenance")


SECTIONS = {
    "scores": ("Scores by cycle", scores_section),
    "events": ("Events", events_section),
    "recordings": ("Recordings", recordings_section),
    "classes": ("Classes", classes_section),
    "confusion": ("Which class is taken for which", confusion_section),
    "calibration": ("Calibration", calibration_section),
    "changes": ("What pseudo labels changed", changes_section),
    "prevalence": ("Prevalence", prevalence_section),
    "training": ("Training", curves_section),
    "provenance": ("Where this comes from", provenance_section),
}


def sections_of(report: Report, addresses: Sequence[tuple[str, str]] = ()) -> list[Section]:
    """The sections of a page in their order; `addresses` of the viewer's pictures and sounds."""
    sections = []
    for place, wanted in enumerate(report.sections or SECTIONS):
        if not isinstance(wanted, str):
            draw = partial(_section_of_task, wanted)
            sections.append(Section(f"task-{place}", wanted.title, draw))
        elif wanted == "recordings":
            draw = partial(recordings_section, addresses=addresses)
            sections.append(Section(wanted, SECTIONS[wanted][0], draw))
        else:
            sections.append(Section(wanted, *SECTIONS[wanted]))
    return sections


def _section_of_task(section: "ReportSection", _report: Report) -> str:
    """Words, figure and table that a task brings along."""
    text = f"<p>{escape(section.text)}</p>\n" if section.text else ""
    if section.figure is not None:
        text += picture(section.figure, section.title)
    if section.columns:
        cells = list(zip(*section.rows, strict=True)) or [()] * len(section.columns)
        columns = [
            Column(title, "number" if _are_numbers(own) else "text")
            for title, own in zip(section.columns, cells, strict=True)
        ]
        text += table(columns, section.rows, section.title, sortable=True)
    return text


def _are_numbers(values: Sequence[object]) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _tile(report: Report, rows: Sequence[ScoreRow]) -> str:
    """The last cycle of one score, large, with what it must be seen against."""
    last = rows[-1]
    lines = [f"cycle {last.cycle}" + (f", {last.n:,} recordings" if last.n is not None else "")]
    if len(rows) > 1 and number(last.value - rows[0].value) != "no data":
        lines.append(f"{last.value - rows[0].value:+.3f} since cycle {rows[0].cycle}")
    lines += [
        f"{item.name}: {number(item.value)}"
        for item in baselines_of(report.baselines, last.name, last.subset)
    ]
    within = interval(last.low, last.high)
    return (
        f'<div class="tile"><h3>{escape(last.name)} <small>{escape(last.subset)}</small></h3>'
        f'<p class="value">{number(last.value)}'
        + (f" <small>{within}</small>" if within != "no data" else "")
        + "</p>"
        + "".join(f"<p>{escape(line)}</p>" for line in lines)
        + "</div>\n"
    )


def _in_order(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _plain(value: object) -> str:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)
