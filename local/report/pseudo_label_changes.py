"""What each cycle of pseudo labels changed: rows by class, those that came and those that went."""

from typing import Any

import pandas as pd

from local.data.tables import EVENT_COLUMNS, read_table
from local.report.page_records import ChangeExample, ChangeRow
from local.stages.experiment import Experiment

# Examples that the page lists of each kind.
N_EXAMPLES = 8


def changes_of(experiment: Experiment, results: dict[str, Any]) -> list[ChangeRow]:
    """One row a cycle (from 1 on) and class."""
    rows: list[ChangeRow] = []
    before: pd.DataFrame | None = None
    per_class = {e["cycle"]: e["scores"]["oof_known"]["per_class"] for e in results["cycles"]}
    for cycle in [entry["cycle"] for entry in results["cycles"]][1:]:
        now = read_table(experiment.run.cycle(cycle) / "pseudo_events.csv", EVENT_COLUMNS)
        stays = _overlapping(now, before)
        stayed = _overlapping(before, now) if before is not None else None
        for column, label in enumerate(experiment.tables.labels):
            mine = now["label"] == label
            gone = 0
            if before is not None and stayed is not None:
                gone = int(((before["label"] == label) & ~stayed).sum())
            gain = float(per_class[cycle][column]) - float(per_class[cycle - 1][column])
            rows.append(
                ChangeRow(
                    cycle=cycle,
                    label=label,
                    n_events=int(mine.sum()),
                    n_recordings=int(now.loc[mine, "recording_id"].nunique()),
                    seconds=float((now["offset"] - now["onset"])[mine].sum()),
                    n_added=int((mine & ~stays).sum()),
                    n_removed=gone,
                    score_change=gain,
                )
            )
        before = now
    return rows


def examples_of(experiment: Experiment, cycles: list[int]) -> list[ChangeExample]:
    """Some rows that the last cycle added, and some that it took away, one a class in turn."""
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
