"""The recordings and classes that all systems are scored on, and everything laid onto them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from local.data.tables import CLASS_COLUMNS, read_table
from local.io.errors import CanopyError
from local.scoring.evaluation.score_sources import System, Truth
from local.scoring.metrics.clip_tables import join_clips
from local.scoring.metrics.matching import EventList


@dataclass(frozen=True)
class ScoringSet:
    """N recordings and C classes in the order of all arrays.

    durations: (N,) seconds or None. groups: (N,) text or None. others: recordings that exist and
    are not scored here; what is said of them is left out.
    """

    recordings: list[str]
    labels: list[str]
    durations: np.ndarray | None
    groups: np.ndarray | None
    others: frozenset[str] = frozenset()

    def event_list(self, events: pd.DataFrame, path: Path) -> EventList:
        """Events as arrays; an unknown recording or label is a `CanopyError`."""
        events = events[~events["recording_id"].isin(self.others)]
        _check_known(events["recording_id"], self.recordings, "recording", path)
        _check_known(events["label"], self.labels, "label", path)
        return EventList.of(events, self.recordings, self.labels)

    def needed_durations(self, why: str) -> np.ndarray:
        """Durations, or a `CanopyError` that says what needs them."""
        if self.durations is None:
            raise CanopyError(f"{why} needs the recordings' lengths; give --recordings FILE")
        return self.durations


def _check_known(values: pd.Series, known: list[str], what: str, path: Path) -> None:
    bad = values[~values.isin(known)]
    if len(bad):
        more = f" ({bad.nunique()} such {what}s)" if bad.nunique() > 1 else ""
        mend = {
            "label": "mend it, or give --classes FILE with all classes",
            "recording": "mend it, or give --recordings FILE with all recordings (and --subset)",
        }[what]
        raise CanopyError(
            f"{path}: {what} {bad.iloc[0]!r} is not among the {len(known)} {what}s scored{more}; "
            f"{mend}"
        )


def make_scoring_set(
    truth: Truth,
    systems: list[System],
    recordings: Path | None,
    subset: str | None,
    classes: Path | None,
    group: str = "group",
) -> ScoringSet:
    """Decide what is scored.

    Recordings: those of the table `recordings` (of one `subset`), or else those of a clip truth, of
    the first system with one score a recording, or of the truth's rows. Classes: those of the table
    `classes`, or else of a clip truth, of the first system with scores, or of the truth's rows.
    """
    if recordings is None and subset is not None:
        raise CanopyError("--subset needs the table that tells subsets; give --recordings FILE")
    labels = _labels_of(truth, systems, classes)
    if recordings is not None:
        scoring_set = _from_table(recordings, subset, group, labels)
    else:
        names, durations = _recordings_of(truth, systems)
        scoring_set = ScoringSet(names, labels, durations, None)
    if not scoring_set.recordings or not labels:
        raise CanopyError(f"{truth.path}: nothing to score; it names no recording or no class")
    return scoring_set


def _from_table(path: Path, subset: str | None, group: str, labels: list[str]) -> ScoringSet:
    whole = frame = read_table(path, ("recording_id", "duration"))
    if subset is not None:
        if "subset" not in frame:
            raise CanopyError(f"{path}: no column subset; leave --subset out")
        frame = frame[frame["subset"] == subset]
        if frame.empty:
            raise CanopyError(f"{path}: no recording of subset {subset!r}")
    if frame["recording_id"].duplicated().any():
        twice = frame["recording_id"][frame["recording_id"].duplicated()].iloc[0]
        raise CanopyError(f"{path}: recording {twice} stands twice; keep one row of it")
    durations = frame["duration"].to_numpy(np.float64)
    if not (durations > 0).all():
        bad = frame["recording_id"].iloc[int(np.flatnonzero(~(durations > 0))[0])]
        raise CanopyError(f"{path}: duration of {bad} is not more than 0")
    if group not in frame and group != "group":
        raise CanopyError(f"{path}: no column {group}; found {', '.join(frame.columns)}")
    groups = frame[group].astype(str).to_numpy() if group in frame else None
    names = frame["recording_id"].tolist()
    others = frozenset(whole["recording_id"]) - frozenset(names)
    return ScoringSet(names, labels, durations, groups, others)


def _recordings_of(truth: Truth, systems: list[System]) -> tuple[list[str], np.ndarray | None]:
    timed = next((one.scores for one in systems if one.scores is not None), None)
    if truth.clips is not None:
        names = truth.clips.index.tolist()
    elif timed is not None:
        names = timed.recording_ids
    else:
        clips = next((one.clips for one in systems if one.clips is not None), None)
        rows = truth.events["recording_id"] if truth.events is not None else []
        names = clips.index.tolist() if clips is not None else sorted(set(rows))
    if timed is None or set(names) - set(timed.recording_ids):
        return names, None
    ends = {name: timed.grid(row).end_s for row, name in enumerate(timed.recording_ids)}
    return names, np.array([ends[name] for name in names])


def _labels_of(truth: Truth, systems: list[System], classes: Path | None) -> list[str]:
    if classes is not None:
        return read_table(classes, CLASS_COLUMNS[:1])["label"].tolist()
    if truth.clips is not None:
        return truth.clips.columns.tolist()
    for system in systems:
        if system.clips is not None:
            return system.clips.columns.tolist()
    return [] if truth.events is None else sorted(set(truth.events["label"]))


def clip_truth(truth: Truth, scoring_set: ScoringSet) -> np.ndarray:
    """(N, C) bool: whether a class sounds in a recording, of complete truth."""
    if truth.clips is not None:
        missing = [name for name in scoring_set.recordings if name not in truth.clips.index]
        if missing:
            raise CanopyError(
                f"{truth.path}: no row for recording {missing[0]} ({len(missing)} such recordings)"
            )
        absent = [label for label in scoring_set.labels if label not in truth.clips.columns]
        if absent:
            raise CanopyError(f"{truth.path}: no column for class {absent[0]}")
        return truth.clips.loc[scoring_set.recordings, scoring_set.labels].to_numpy() == 1
    events = scoring_set.event_list(true_events(truth), truth.path)
    return events.counts(len(scoring_set.recordings), len(scoring_set.labels)) > 0


def true_events(truth: Truth) -> pd.DataFrame:
    """Events that sound."""
    if truth.events is None:
        raise CanopyError(f"{truth.path}: has no events, only recordings; leave --level event out")
    return truth.events[truth.events["polarity"] > 0]


def clip_scores(system: System, scoring_set: ScoringSet) -> np.ndarray:
    """(N, C) one score a recording: given, or the highest of a class's detections (else -inf)."""
    shape = (len(scoring_set.recordings), len(scoring_set.labels))
    if system.clips is not None:
        rows = system.clips[~system.clips.index.isin(scoring_set.others)]
        table = pd.DataFrame(
            np.zeros(shape), index=scoring_set.recordings, columns=scoring_set.labels
        )
        try:
            return join_clips(rows, table).to_numpy(np.float64)
        except CanopyError as error:
            raise CanopyError(f"{system.path}: {error}") from None
    if system.events is None:
        raise CanopyError(f"{system.path}: neither scores nor detections")
    found = scoring_set.event_list(system.events, system.path)
    scores = np.full(shape, -np.inf)
    value = found.score if system.scored else np.ones(len(found))
    np.maximum.at(scores, (found.recording, found.label), value)
    return scores
