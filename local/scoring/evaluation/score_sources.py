"""Truth and systems from files: clip tables, event tables, detections, score archives.

What a file is shows in its name and its header:

- `.npz`: scores as stage 3 writes them (one a recording, and over time where they were kept);
- a table with `t_min` and `t_max`: true events in the rainforest's columns;
- a table with `onset` and `offset`: events or detections;
- any other csv with `recording_id`: one column a class (a submission, or complete truth).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import expit

from local.data.tables import fail_at, read_table
from local.io.errors import CanopyError
from local.io.limits import MAX_TABLE_BYTES, check_size, spreadsheet_plain
from local.labels.spans import frames_to_events
from local.labels.targets import PSEUDO
from local.scoring.metrics.clip_tables import read_clip_table, read_truth_table

if TYPE_CHECKING:
    from local.inference.scores import Scores

_EVENT_COLUMNS = ("recording_id", "label", "onset", "offset")


@dataclass(frozen=True)
class Truth:
    """What truth there is: a 0/1 table of clips, or events with `polarity` (1 sounds, -1 does not).

    partial: anything without a row is unknown, not absent.
    """

    path: Path
    clips: pd.DataFrame | None
    events: pd.DataFrame | None
    partial: bool


@dataclass(frozen=True)
class System:
    """Scores or detections of one system.

    clips: scores (index recording_id, one column a class) or None. events: detections with `score`
    (NaN where the table has none) or None. scores: scores over time or None. logits: clip scores
    are logits, so a threshold on probability is taken there.
    """

    name: str
    path: Path
    clips: pd.DataFrame | None
    events: pd.DataFrame | None
    scores: "Scores | None" = None
    logits: bool = False

    @property
    def scored(self) -> bool:
        """Whether detections can be ranked."""
        return self.scores is not None or (
            self.events is not None and bool(self.events["score"].notna().all())
        )


def named_paths(texts: list[str], submission: Path | None = None) -> dict[str, Path]:
    """Name -> file of options like `one=FILE`, in the order given."""
    systems = {"submission": submission} if submission else {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise CanopyError(f"--system is {text!r}; give a name and a file, as in one=FILE")
        if name in systems:
            raise CanopyError(f"--system {name} stands twice; give each system a name of its own")
        systems[name] = Path(path)
    return systems


def read_truth_file(path: Path, annotation: str = "auto") -> Truth:
    """Read truth.

    Parameters
    ----------
    annotation : complete (no row means absent), partial (no row means unknown), or auto: partial
        where a row says that a class was looked for and is not there.
    """
    if path.suffix == ".npz":
        raise CanopyError(f"{path}: scores are no truth; give a csv of events or of 0 and 1")
    if _kind(path) == "clips":
        return Truth(path, read_truth_table(path), None, False)
    events = read_events(path)
    events = events[~events["source"].str.startswith(PSEUDO)].reset_index(drop=True)
    partial = annotation == "partial"
    if annotation == "auto":
        partial = bool((events["polarity"] < 0).any())
    return Truth(path, None, events, partial)


def read_system(name: str, path: Path) -> System:
    """Read one system's scores or detections; a `CanopyError` names what is wrong with the file."""
    if path.suffix == ".npz":
        return _read_scores(name, path)
    if _kind(path) == "clips":
        return System(name, path, read_clip_table(path), None)
    events = read_events(path)
    return System(name, path, None, events[events["polarity"] > 0].reset_index(drop=True))


def _read_scores(name: str, path: Path) -> System:
    # torch takes seconds to load, and tables do not need it.
    from local.inference.score_files import (
        load_scores,
    )

    scores, members = load_scores(path)
    clips = pd.DataFrame(
        members["clip_logit"].astype(np.float64), index=scores.recording_ids, columns=scores.labels
    )
    return System(name, path, clips, None, scores if scores.frames else None, True)


def _kind(path: Path) -> str:
    if path.suffix == ".parquet":
        return "events"
    try:
        check_size(path, MAX_TABLE_BYTES, "table")
        columns = pd.read_csv(path, nrows=0, dtype=str, encoding="utf-8-sig").columns
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError):
        # The readers say what is wrong with it.
        return "clips"
    if {"t_min", "t_max"} <= set(columns):
        return "rainforest"
    return "events" if {"onset", "offset", "label"} & set(columns) else "clips"


def read_events(path: Path) -> pd.DataFrame:
    """Rows of any event table, spans checked; NaN where a number is not given.

    Columns recording_id, label, onset, offset, score, polarity, source, low_freq, high_freq.
    """
    if path.suffix == ".parquet":
        frame = _read_parquet(path)
    elif _kind(path) == "rainforest":
        frame = _read_rainforest(path)
    else:
        # Our own detections are guarded for spreadsheets.
        frame = spreadsheet_plain(read_table(path, _EVENT_COLUMNS))
    fail_at(
        ~((frame["onset"] >= 0) & (frame["onset"] < frame["offset"])),
        path,
        frame,
        lambda row: (
            f"onset {row['onset']} and offset {row['offset']} of {row['recording_id']}: expected "
            "0 <= onset < offset"
        ),
    )
    polarity = _numbers(frame, "polarity", path, 1.0)
    fail_at(
        ~polarity.isin([1, -1]),
        path,
        frame,
        lambda row: f"polarity is {row['polarity']}, expected 1 (sounds) or -1 (does not)",
    )
    source = frame["source"].astype(str) if "source" in frame else ""
    return frame[list(_EVENT_COLUMNS)].assign(
        score=_numbers(frame, "score", path, np.nan),
        polarity=polarity,
        source=source,
        low_freq=_band(frame, "low_freq"),
        high_freq=_band(frame, "high_freq"),
    )


def _read_rainforest(path: Path) -> pd.DataFrame:
    """True events of a csv with the rainforest's names; f_min and f_max may be missing."""
    frame = read_table(path, ("recording_id", "species_id", "t_min", "t_max"))
    names = {"t_min": "onset", "t_max": "offset", "f_min": "low_freq", "f_max": "high_freq"}
    return frame.rename(columns=names).assign(
        label="s" + frame["species_id"].astype(int).astype(str), polarity=1, source="truth"
    )


def _band(frame: pd.DataFrame, column: str) -> pd.Series:
    values = frame[column] if column in frame else pd.Series(np.nan, index=frame.index)
    return pd.to_numeric(values, errors="coerce").astype(np.float64)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        raise CanopyError(f"{path}: not readable as Parquet ({error})") from None
    missing = [column for column in _EVENT_COLUMNS if column not in frame]
    if missing:
        raise CanopyError(
            f"{path}: column {missing[0]} is missing; found {', '.join(map(str, frame.columns))}"
        )
    return frame.assign(
        recording_id=frame["recording_id"].astype(str), label=frame["label"].astype(str)
    )


def _numbers(frame: pd.DataFrame, column: str, path: Path, otherwise: float) -> pd.Series:
    if column not in frame:
        return pd.Series(otherwise, index=frame.index, dtype=np.float64)
    numbers = pd.to_numeric(frame[column], errors="coerce").astype(np.float64)
    fail_at(
        numbers.isna(),
        path,
        frame,
        lambda row: f"{column} is {row[column]!r}, expected a number",
    )
    return numbers


def detections(system: System, threshold: float) -> pd.DataFrame:
    """Detections of a system: rows of its table, or runs of its scores over time.

    Of a table, the rows that score at least `threshold` (all where it has no scores). Of scores
    over time, the runs of cells with a probability of at least `threshold`, each scored by its
    highest one.
    """
    if system.events is not None:
        if not system.scored:
            return system.events
        return system.events[system.events["score"] >= threshold].reset_index(drop=True)
    if system.scores is None:
        raise CanopyError(
            f"{system.path}: no scores over time and no detections; give a table of detections, or "
            "set inference.keep_frames and infer again"
        )
    rows = []
    for row, recording in enumerate(system.scores.recording_ids):
        grid = system.scores.grid(row)
        probability = expit(system.scores.frames[row].astype(np.float64))
        for label, track in zip(system.scores.labels, probability, strict=True):
            if track.size and track.max() >= threshold:
                spans = frames_to_events(track, grid, threshold)
                rows += [(recording, label, one.onset, one.offset, one.score) for one in spans]
    return pd.DataFrame(rows, columns=[*_EVENT_COLUMNS, "score"])
