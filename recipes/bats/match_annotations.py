"""Voices of a file and rows of its interactions: which row speaks for which voice."""

from dataclasses import dataclass

import pandas as pd

from recipes.bats.reading import BatFile

ATTRIBUTES = (
    "emitter",
    "addressee",
    "context",
    "emitter_pre",
    "addressee_pre",
    "emitter_post",
    "addressee_post",
)
DISAGREEMENT_COLUMNS = ("file_id", "start", "end", "kind", "values")


@dataclass(frozen=True)
class Voice:
    """A voice in samples, and what the rows say of it: None where no row does."""

    start: int
    end: int
    values: dict[str, int | None]


def attach(file: BatFile, rows: pd.DataFrame, uncovered: str) -> tuple[list[Voice], list[tuple]]:
    """Voices of a file with attributes, and the disagreements of the two tables.

    The row that shares most time with a voice speaks for it; of equals the earlier one. What is
    noted: a voice without a row, a row without a voice, an attribute on which rows that overlap the
    same voice differ. With `uncovered: file`, a voice without a row takes what all rows agree on.
    """
    records = rows.sort_values(["start", "end"], kind="stable").to_dict("records")
    voices, notes = [], []
    heard: set[int] = set()
    for start, end in file.voices:
        shared = [min(end, row["end"]) - max(start, row["start"]) for row in records]
        over = [place for place, samples in enumerate(shared) if samples > 0]
        heard.update(over)
        if over:
            best = max(over, key=lambda place: (shared[place], -place))
            values = {name: records[best][name] for name in ATTRIBUTES}
            for name in ATTRIBUTES:
                told = sorted({records[place][name] for place in over})
                if len(told) > 1:
                    words = " ".join(map(str, told))
                    notes.append((file.file_id, start, end, f"{name} differs", words))
        else:
            notes.append((file.file_id, start, end, "voice without a row", ""))
            values = {name: _agreed(records, name, uncovered) for name in ATTRIBUTES}
        voices.append(Voice(start, end, values))
    for place, row in enumerate(records):
        if place not in heard:
            notes.append((file.file_id, row["start"], row["end"], "row without a voice", ""))
    return voices, notes


def _agreed(records: list[dict], name: str, uncovered: str) -> int | None:
    told = {row[name] for row in records}
    return told.pop() if uncovered == "file" and len(told) == 1 else None


def group_syllables(spans: list[tuple[float, float, str]], max_gap_s: float) -> list[tuple]:
    """(onset, offset, label) of syllables -> those of calls.

    Neighbours of one label that overlap or are at most `max_gap_s` apart are one call; with 0, only
    those that overlap.
    """
    calls: list[tuple[float, float, str]] = []
    latest: dict[str, int] = {}
    for onset, offset, label in sorted(spans):
        place = latest.get(label)
        if place is not None:
            gap = onset - calls[place][1]
            if gap < 0 or (max_gap_s > 0 and gap <= max_gap_s):
                calls[place] = calls[place][0], max(calls[place][1], offset), label
                continue
        latest[label] = len(calls)
        calls.append((onset, offset, label))
    return calls
