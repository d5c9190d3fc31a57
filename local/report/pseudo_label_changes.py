"""What each cycle of pseudo labels changed: rows by class, those that came and those that went."""

from typing import Any

import pandas as pd

from local.data.tables import EVENT_COLUMNS, read_table
from local.io.limits import spreadsheet_plain
from local.report.page_records import ChangeExample, ChangeRow
from local.stages.experiment import Experiment

# Examples that the page lists of each kind.
N_EXAMPLES = 8


def changes_of(experiment: Experiment, results: dict[str, Any]) -> list[ChangeRow]:
    """One row a cycle (from 1 on) and class."""
    if experiment.run.config.relabel.kind == "soft":
        return _soft_changes(experiment, results)
    rows: list[ChangeRow] = []
    before: pd.DataFrame | None = None
    gains = _gains(results)
    for cycle in [entry["cycle"] for entry in results["cycles"]][1:]:
        now = read_table(experiment.run.cycle(cycle) / "pseudo_events.csv", EVENT_COLUMNS)
        stays = _overlapping(now, before)
        stayed = _overlapping(before, now) if before is not None else None
        for column, label in enumerate(experiment.tables.labels):
            mine = now["label"] == label
            gone = 0
            if before is not None and stayed is not None:
                gone = int(((before["label"] == label) & ~stayed).sum())
            rows.append(
                ChangeRow(
                    cycle=cycle,
                    label=label,
                    n_events=int(mine.sum()),
                    n_recordings=int(now.loc[mine, "recording_id"].nunique()),
                    seconds=float((now["offset"] - now["onset"])[mine].sum()),
                    n_added=int((mine & ~stays).sum()),
                    n_removed=gone,
                    score_change=gains[cycle][column],
                )
            )
        before = now
    return rows


def _soft_changes(experiment: Experiment, results: dict[str, Any]) -> list[ChangeRow]:
    """What soft labels add up to."""
    gains = _gains(results)
    return [
        ChangeRow(
            cycle=cycle,
            label=label,
            n_events=float(found["cells"]),
            n_recordings=float(found["recordings"]),
            seconds=float(found["seconds"]),
            score_change=gains[cycle][column],
            soft=True,
        )
        for cycle in gains
        for found_by in [_summary(experiment, cycle)]
        for column, label in enumerate(experiment.tables.labels)
        for found in [found_by.loc[label]]
    ]


def _summary(experiment: Experiment, cycle: int) -> pd.DataFrame:
    path = experiment.run.cycle(cycle) / "pseudo_summary.csv"
    table = spreadsheet_plain(read_table(path, ("label", "cells", "recordings", "seconds")))
    return table.set_index("label")


def _gains(results: dict[str, Any]) -> dict[int, list[float]]:
    """By cycle from 1 on, what each class's out-of-fold score gained on the cycle before."""
    known = [entry["scores"]["oof_known"]["per_class"] for entry in results["cycles"]]
    return {
        entry["cycle"]: [float(now) - float(old) for now, old in zip(after, before, strict=True)]
        for entry, after, before in zip(results["cycles"][1:], known[1:], known[:-1], strict=True)
    }


def examples_of(experiment: Experiment, cycles: list[int]) -> list[ChangeExample]:
    """Some rows that the last cycle added, and some that it took away, one a class in turn."""
    if experiment.run.config.relabel.kind == "soft":
        return []
    tables = [
        read_table(experiment.run.cycle(cycle) / "pseudo_events.csv", EVENT_COLUMNS)
        for cycle in cycles
        if cycle > 0
    ]
    if not tables:
        return []
    now, before = tables[-1], tables[-2] if len(tables) > 1 else None
    chosen = [("added", _spread(now[~_overlapping(now, before)]))]
    if before is not None:
        chosen.append(("removed", _spread(before[~_overlapping(before, now)])))
    return [
        ChangeExample(what, event.recording_id, event.label, event.onset, event.offset)
        for what, frame in chosen
        for event in frame.itertuples()
    ]


def _spread(frame: pd.DataFrame) -> pd.DataFrame:
    """The first of each class, then the second of each, up to `N_EXAMPLES`."""
    turn = frame.groupby("label").cumcount()
    return frame.assign(turn=turn).sort_values("turn", kind="stable").head(N_EXAMPLES)


def _overlapping(rows: pd.DataFrame, others: pd.DataFrame | None) -> pd.Series:
    """Whether each row shares time with one of `others` of its recording, class and polarity."""
    if others is None or others.empty or rows.empty:
        return pd.Series(False, index=rows.index)
    keys = ["recording_id", "label", "polarity"]
    pairs = rows.reset_index().merge(others, on=keys, suffixes=("", "_other"))
    meets = (pairs["onset"] < pairs["offset_other"]) & (pairs["onset_other"] < pairs["offset"])
    return pd.Series(rows.index.isin(pairs.loc[meets, "index"]), index=rows.index)
