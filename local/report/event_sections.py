"""The section on events: how they stand against true ones, over all classes and by class."""

from collections.abc import Sequence

from local.report.elements import Column, escape, name_columns, names_of, table
from local.report.page_records import NAN, EventClassRow, EventScores, Report, ScoreRow
from local.report.text import interval, number

_MEANING = (
    "An event counts as found when an event of its class overlaps it, each answering one; with IoU "
    "&gt; 0.5, when what they share is more than half of what they cover together. Median IoU is "
    "of the pairs that overlap. A false alarm overlaps no true event of its class. Micro pools "
    "classes; macro is the mean over those that have a value. PSDS is made of scores over time at "
    "every threshold, so no rule of events enters it. Intervals are 95 %, over recordings."
)


def events_section(report: Report) -> str:
    """Figures of events of every cycle, those of each class, and measures of the fitted rule."""
    if not report.event_scores and not report.events:
        return ""
    text = ""
    if report.event_scores:
        text += (
            f"<details><summary>What these figures mean</summary>\n<p>{_MEANING}</p></details>\n"
            + _averages(report.event_scores)
        )
    for told in report.event_scores:
        if told.classes:
            text += _by_class(told)
    return text + _measures(report.events)


def _averages(scores: Sequence[EventScores]) -> str:
    """A table a subset: a row a measure, a column a cycle and average."""
    text = ""
    for subset in dict.fromkeys(one.subset for one in scores):
        mine = [one for one in scores if one.subset == subset]
        titles = list(dict.fromkeys(title for one in mine for title in one.averages))
        places = [(one, name) for one in mine for name in ("micro", "macro")]
        columns = [Column(f"cycle {one.cycle}, {name}", "line") for one, name in places]
        rows = [
            [title] + [_cell_of(one.averages.get(title, {}).get(name)) for one, name in places]
            for title in titles
        ]
        caption = f"Events, {subset}, {mine[-1].n} recordings, with intervals"
        text += table([Column("figure", "head"), *columns], rows, caption)
    return text


def _cell_of(value: tuple[float, float, float] | None) -> str:
    middle, low, high = value or (NAN, NAN, NAN)
    digits = 3 if not abs(middle) >= 10 else 0
    if "no data" in (ends := (number(low, digits), number(high, digits))):
        return number(middle, digits)
    return f"{number(middle, digits)} ({ends[0]}–{ends[1]})"


def _by_class(told: EventScores) -> str:
    """The worst class in a sentence, and a row a class."""
    titles = list(dict.fromkeys(title for row in told.classes for title in row.scores))
    largest = max(max(row.n_true, row.n_found) for row in told.classes)
    columns = [
        *name_columns(told.classes),
        Column("true events", "bar", 0, top=max(largest, 1)),
        Column("detections", "bar", 0, top=max(largest, 1)),
        *(Column(title, "number" if title in told.rates else "bar") for title in titles),
    ]
    rows = [
        [*names_of(row, told.classes), row.n_true, row.n_found]
        + [_cell(row, title, title in told.rates) for title in titles]
        for row in told.classes
    ]
    worst = f"<p>{escape(told.worst[:1].upper() + told.worst[1:])}.</p>\n" if told.worst else ""
    caption = f"Events by class, {told.subset}, cycle {told.cycle}; a heading sorts by its column"
    return worst + table(columns, rows, caption, sortable=True)


def _cell(row: EventClassRow, title: str, is_rate: bool) -> float | tuple[float, float, float]:
    value = row.scores.get(title, (NAN, NAN, NAN))
    return value[0] if is_rate else value


def _measures(rows: Sequence[ScoreRow]) -> str:
    """Measures of the events that a fitted rule makes."""
    if not rows:
        return ""
    columns = [
        Column("events", "head"),
        Column("value", "number"),
        Column("interval", "line"),
        Column("recordings", "number", 0),
    ]
    cells = []
    for row in rows:
        cells.append([row.name, row.value, interval(row.low, row.high), row.n])
    caption = f"Events of cycle {rows[0].cycle} by rules of the other folds, out-of-fold"
    return table(columns, cells, caption)
