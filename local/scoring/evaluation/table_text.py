"""The comparison table as text for a terminal."""

from typing import Any

import numpy as np
import pandas as pd

from local.io.errors import CanopyError
from local.scoring.evaluation.comparison_table import ComparisonTable

# What is shown a class when nothing is asked for.
_MAIN = {"clip": "lwlrap", "event": "overlap F1", "span": "span auroc"}
_NO_PSDS = (
    "PSDS is not measured: it needs scores, and sed_scores_eval (`make setup-eval`); --psds psds1 "
    "measures it of any number of scores over time"
)


def format_comparison(table: ComparisonTable, metric: str | None = None) -> str:
    """All averages, the measure `metric` of each class, and the groups, as lines of text."""
    known = table.rows["measure"][table.rows["scope"] != "group"].unique().tolist()
    if metric is not None and metric not in known:
        raise CanopyError(f"unknown measure {metric!r}; there are {', '.join(known)}")
    facts = table.facts
    lines = [
        f"{facts['n_recordings']} recordings, {facts['n_classes']} classes, "
        f"{facts['annotation']} truth {facts['truth']}"
    ]
    if "n_without_positive" in facts:
        lines[0] += f"; {facts['n_without_positive']} without a positive"
    if facts["n_resamples"]:
        lines.append(f"95 % intervals over {facts['resampled']}, {facts['n_resamples']} resamples")
    for level in facts["levels"]:
        rows = table.rows[table.rows["level"] == level]
        lines += ["", f"{level} level", _averages(rows)]
        shown = metric if metric in set(rows["measure"]) else _MAIN[level]
        if metric is None or shown == metric:
            lines += ["", f"{shown} of each class", _classes(rows[rows["measure"] == shown])]
        if level == "event":
            lines += _below(facts)
            lines += ["", *_worst(rows[rows["measure"] == _MAIN[level]])]
            if facts["settings"]["psds"] is None and "psds1" not in known:
                lines.append(_NO_PSDS)
        groups = rows[rows["scope"] == "group"]
        if len(groups):
            both = [f"{shown} (micro)", f"{shown} (macro)"]
            lines += ["", "groups", _groups(groups[groups["measure"].isin(both)])]
    return "\n".join(lines)


def _averages(rows: pd.DataFrame) -> str:
    several = rows["system"].nunique() > 1
    rows = rows[(rows["scope"] == "average") & rows["value"].notna() | _no_data(rows)]
    lines = []
    for row in rows.itertuples():
        line = [row.measure, row.name, *([row.system] if several else []), *_value(row)]
        if several:
            line.append(_signed(row.difference))
            line.append(_span(row.difference_low, row.difference_high))
        lines.append([*line, number(row.chance, ""), number(row.constant_row, "")])
    head = ["measure", "average", *(["system"] if several else []), "value", "interval"]
    head += ["to the first", "interval"] if several else []
    return _grid([*head, "chance", "constant row"], lines)


def _no_data(rows: pd.DataFrame) -> pd.Series:
    """Averages of measures that have no value at all: they are shown as such, once."""
    average = rows["scope"] == "average"
    empty = rows[average].groupby("measure")["value"].transform(lambda one: one.isna().all())
    return average & empty.reindex(rows.index, fill_value=False) & (rows["name"] == "micro")


def _classes(rows: pd.DataFrame) -> str:
    rows = rows[rows["scope"] == "class"]
    systems = rows["system"].unique().tolist()
    table = []
    for label, mine in rows.groupby("name", sort=False):
        line = [str(label), str(mine["n_events"].iloc[0])]
        by_system = mine.set_index("system")
        for system in systems:
            line += _value(by_system.loc[system])
        table.append(line)
    head = [part for system in systems for part in (system, "interval")]
    return _grid(["class", "positives", *head], table)


def _below(facts: dict[str, Any]) -> list[str]:
    """Detections that F1 does not count, where a table of a lower threshold has some."""
    return [
        f"{n} detections of {name} score below --threshold {facts['settings']['threshold']:g} and "
        "count in ranked measures alone (--threshold 0: count all)"
        for name, n in facts["n_below_threshold"].items()
        if n
    ]


def _worst(rows: pd.DataFrame) -> list[str]:
    """The class of the lowest value of each system; of equals the one with most events."""
    lines = []
    classes = rows[(rows["scope"] == "class") & rows["value"].notna()]
    for system, mine in classes.groupby("system", sort=False):
        row = mine.sort_values(["value", "n_events"], ascending=[True, False]).iloc[0]
        of = f" of {system}" if rows["system"].nunique() > 1 else ""
        lines.append(
            f"worst class{of} by {row['measure']}: {row['name']}, {row['value']:.4f} "
            f"({row['n_events']} true events)"
        )
    return lines


def _groups(rows: pd.DataFrame) -> str:
    table = [
        [row.name, row.measure, row.system, *_value(row), str(row.n_recordings)]
        for row in rows.rename(columns={"name": "of"}).rename(columns={"of": "name"}).itertuples()
    ]
    return _grid(["group", "measure", "system", "value", "interval", "recordings"], table)


def _value(row: Any) -> list[str]:
    return [number(row.value, "no data"), _span(row.low, row.high)]


def _span(low: float, high: float) -> str:
    return "" if np.isnan(low) or np.isnan(high) else f"{low:.4f} to {high:.4f}"


def _signed(value: float) -> str:
    return "" if np.isnan(value) else f"{value:+.4f}"


def number(value: float, otherwise: str) -> str:
    """Four decimals, or `otherwise` for NaN."""
    return otherwise if value is None or np.isnan(value) else f"{value:.4f}"


def _grid(head: list[str], table: list[list[str]]) -> str:
    """Columns of text; empty columns are left out."""
    kept = [index for index in range(len(head)) if any(row[index] for row in table)]
    lines = [[row[index] for index in kept] for row in [head, *table]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(kept))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
