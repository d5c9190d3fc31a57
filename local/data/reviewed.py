"""Events that people made after the recipe's own, as the review in the report writes them.

Somebody looked again, so a reviewed row stands over older rows of its class that say the opposite
of its span: these lose what overlaps it. Rows that say the same stay, unless they are equal.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from local.labels.targets import PSEUDO
from local.labels.spans import subtract_spans
from local.data.tables import EVENT_COLUMNS, check_events, fail_at, read_table

# What is left of a contradicted row must be at least this long to be worth keeping, in seconds.
MIN_REST_S = 0.05


def read_reviewed(
    paths: Sequence[Path], durations: pd.Series, labels: Sequence[str]
) -> pd.DataFrame:
    """Rows of all files, later files behind earlier ones, validated like any table of events.

    Parameters
    ----------
    durations : seconds by recording id.

    Raises
    ------
    CanopyError
        A file is missing or damaged, names an unknown recording or class, a span outside its
        recording, a polarity that is neither 1 nor -1 (as in unsure.csv), or a pseudo source.
    """
    frames = [_read(Path(path), durations, list(labels)) for path in paths]
    if not frames:
        return pd.DataFrame(columns=list(EVENT_COLUMNS))
    return pd.concat(frames, ignore_index=True)


def _read(path: Path, durations: pd.Series, labels: list[str]) -> pd.DataFrame:
    frame = read_table(path, EVENT_COLUMNS)[list(EVENT_COLUMNS)]
    check_events(frame, durations, labels, path)
    fail_at(
        frame["source"].astype(str).str.startswith(PSEUDO),
        path,
        frame,
        lambda row: (
            f"source is {row['source']!r}, but data.reviewed takes rows that people made; leave "
            "this file out"
        ),
    )
    return frame


def merge_reviewed(events: pd.DataFrame, reviewed: pd.DataFrame) -> pd.DataFrame:
    """`events` with the reviewed rows behind them; what these contradict gives way.

    Among reviewed rows a later one stands over an earlier one.
    """
    merged = events[list(EVENT_COLUMNS)]
    keys = ["recording_id", "label", "polarity"]
    for _, batch in reviewed.groupby(_runs(reviewed), sort=True):
        spans: dict[tuple, list[tuple[float, float]]] = {}
        for row in batch.itertuples():
            opposite = (row.recording_id, row.label, -row.polarity)
            spans.setdefault(opposite, []).append((row.onset, row.offset))
        against = pd.MultiIndex.from_frame(merged[keys]).isin(list(spans))
        cut = [
            row._replace(onset=start, offset=end)
            for row in merged[against].itertuples(index=False, name="Event")
            for start, end in subtract_spans(
                row.onset, row.offset, spans[(row.recording_id, row.label, row.polarity)]
            )
            if (start, end) == (row.onset, row.offset) or end - start >= MIN_REST_S
        ]
        parts = [merged[~against], pd.DataFrame(cut, columns=list(EVENT_COLUMNS)), batch]
        merged = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return merged.drop_duplicates([*keys, "onset", "offset"], ignore_index=True)


def _runs(reviewed: pd.DataFrame) -> pd.Series:
    """A number for each row, the same for neighbours; higher where a row must come later.

    Rows of one recording and class with other polarity than the row before them start a new run.
    """
    change = reviewed.groupby(["recording_id", "label"])["polarity"].transform(
        lambda polarity: (polarity != polarity.shift()).cumsum()
    )
    return change.astype(int) if len(reviewed) else pd.Series(dtype=int)
