"""A corpus: what its tables show, what its sound shows against them, and copies that would leak."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from local.config import Config
from local.data.folds import check_enough
from local.data.tables import END_TOLERANCE_S, Check, class_checks, event_checks, recording_checks
from local.io.errors import CanopyError
from local.stages.quality.sound_faults import Finding, Survey


def row_findings(table: str, frame: pd.DataFrame, checks: Iterable[Check]) -> Iterator[Finding]:
    """Every row that fails a check, as an error at its line."""
    for check in checks:
        for row in np.flatnonzero(np.asarray(check.bad)):
            sentence = check.say(frame.iloc[row])
            yield Finding(check.fault, "error", f"{table} line {row + 2}", sentence)


def table_findings(
    recordings: pd.DataFrame, events: pd.DataFrame, classes: pd.DataFrame, n_folds: int
) -> list[Finding]:
    """Every fault that the three tables show by themselves."""
    durations = recordings.drop_duplicates("recording_id").set_index("recording_id")["duration"]
    labels = classes["label"].tolist()
    found = list(row_findings("recordings.csv", recordings, recording_checks(recordings)))
    found += row_findings("classes.csv", classes, class_checks(classes))
    found += row_findings("events.csv", events, event_checks(events, durations, labels))
    found += _repeated_paths(recordings)
    found += _repeated_events(events)
    found += _contradictions(events)
    found += _idle(recordings, events, labels)
    found += _straddling(recordings)
    if not any(finding.severity == "error" for finding in found):
        try:
            check_enough(recordings, events, labels, n_folds)
        except CanopyError as error:
            found.append(Finding("too few", "error", "classes.csv", str(error)))
    return found


def _repeated_paths(recordings: pd.DataFrame) -> Iterator[Finding]:
    twice = recordings["path"].duplicated()
    for row in np.flatnonzero(twice):
        path = recordings["path"].iloc[row]
        yield Finding("file twice", "error", f"recordings.csv line {row + 2}", f"{path} again")


def _repeated_events(events: pd.DataFrame) -> Iterator[Finding]:
    key = ["recording_id", "label", "onset", "offset", "low_freq", "high_freq", "polarity"]
    for row in np.flatnonzero(events.duplicated(key)):
        event = events.iloc[row]
        yield Finding(
            "event twice",
            "warning",
            f"events.csv line {row + 2}",
            f"{event['label']} in {event['recording_id']} from {event['onset']:g} s stands twice",
        )


def _contradictions(events: pd.DataFrame) -> Iterator[Finding]:
    """A label that sounds and does not sound in the same time and band of a recording."""
    events = events.assign(
        row=np.arange(len(events)),
        low=events["low_freq"].fillna(0.0),
        high=events["high_freq"].fillna(np.inf),
    )
    for (name, label), rows in events.groupby(["recording_id", "label"], sort=False):
        if rows["polarity"].nunique() < 2:
            continue
        present = rows[rows["polarity"] > 0]
        for absent in rows[rows["polarity"] < 0].itertuples():
            clash = present[
                (present["onset"] < absent.offset)
                & (present["offset"] > absent.onset)
                & (present["low"] < absent.high)
                & (present["high"] > absent.low)
            ]
            if len(clash):
                yield Finding(
                    "contradiction",
                    "warning",
                    f"events.csv line {absent.row + 2}",
                    f"{label} is said not to sound in {name} from {absent.onset:g} to "
                    f"{absent.offset:g} s, line {clash['row'].iloc[0] + 2} says it does",
                )


def _idle(recordings: pd.DataFrame, events: pd.DataFrame, labels: list[str]) -> Iterator[Finding]:
    """Classes that nothing sounds of, and train recordings that nothing is said of."""
    positives = set(events.loc[events["polarity"] > 0, "label"])
    for row, label in enumerate(labels):
        if label not in positives:
            yield Finding(
                "label without events",
                "warning",
                f"classes.csv line {row + 2}",
                f"no event says where {label} sounds; label some, or drop the class",
            )
    spoken_of = set(events["recording_id"])
    for row, (name, subset) in enumerate(
        zip(recordings["recording_id"], recordings["subset"], strict=True)
    ):
        if subset == "train" and name not in spoken_of:
            yield Finding(
                "train without events",
                "warning",
                f"recordings.csv line {row + 2}",
                f"nothing is said of {name}; its subset may be unlabelled",
            )


def _straddling(recordings: pd.DataFrame) -> Iterator[Finding]:
    subsets = recordings.groupby("group", sort=True)["subset"].unique()
    for group, names in subsets.items():
        if {"train", "test"} <= set(names):
            yield Finding(
                "group leaks",
                "warning",
                f"group {group}",
                "is in train and in test; test scores will flatter unless that is meant",
            )


def fold_findings(recordings: pd.DataFrame, folds: pd.DataFrame) -> list[Finding]:
    """Groups that stand in several folds; `folds` has recording_id and fold, as text."""
    fold_of = folds.drop_duplicates("recording_id").set_index("recording_id")["fold"]
    # Recordings of no fold, as those of test are, tear nothing.
    fold = recordings["recording_id"].map(fold_of).dropna()
    torn = fold.groupby(recordings["group"]).unique()
    return [
        Finding(
            "group leaks", "error", f"group {group}", f"is in folds {' and '.join(map(str, f))}"
        )
        for group, f in torn.items()
        if len(set(f)) > 1
    ]


def sound_findings(
    recordings: pd.DataFrame, events: pd.DataFrame, surveys: list[Survey], config: Config
) -> list[Finding]:
    """What the sound itself shows against the tables and the configuration.

    `surveys` in the order of the rows of `recordings`.
    """
    found = [finding for one in surveys for finding in one.findings]
    for row, one in zip(recordings.itertuples(), surveys, strict=True):
        if one.sample_rate:
            found += _against_table(row, one)
            found += _against_config(row, one, config)
    found += _copies(recordings, surveys)
    names = recordings["recording_id"]
    sounding = {name: one for name, one in zip(names, surveys, strict=True) if one.sample_rate}
    declared = dict(zip(names, recordings["duration"], strict=True))
    found += _events_against_sound(events, sounding, declared)
    return found


def _against_table(row: Any, one: Survey) -> Iterator[Finding]:
    for fault, said, true in (
        ("rate differs", row.sample_rate, one.sample_rate),
        ("channels differ", row.channels, one.channels),
    ):
        if said != true:
            yield Finding(fault, "error", one.where, f"the table says {said:g}, the file {true:g}")
    if not abs(row.duration - one.duration) <= END_TOLERANCE_S:
        yield Finding(
            "duration differs",
            "error",
            one.where,
            f"the table says {row.duration:g} s, the file has {one.duration:g} s",
        )


def _against_config(row: Any, one: Survey, config: Config) -> Iterator[Finding]:
    audio, window = config.audio, config.window
    if one.sample_rate != audio.sample_rate:
        refused = audio.other_rates == "refuse"
        if refused or one.sample_rate < audio.sample_rate:
            yield Finding(
                "rate not as set",
                "error" if refused else "warning",
                one.where,
                f"has {one.sample_rate} Hz, audio.sample_rate is {audio.sample_rate}",
            )
    if isinstance(audio.channel, int) and audio.channel >= one.channels:
        detail = f"has {one.channels} channels, audio.channel is {audio.channel} (from 0)"
        yield Finding("channel", "error", one.where, detail)
    too_short = one.duration < window.length_s - 1e-6
    if too_short and window.short == "refuse" and not window.whole:
        detail = f"lasts {one.duration:.3f} s, window.length_s is {window.length_s:g}"
        yield Finding("too short", "error", one.where, detail)


def _copies(recordings: pd.DataFrame, surveys: list[Survey]) -> Iterator[Finding]:
    """Recordings with the same sound: a leak when they may be told apart by fold or subset."""
    first: dict[str, Any] = {}
    for row, one in zip(recordings.itertuples(), surveys, strict=True):
        if not one.digest or any(f.fault in ("silent", "constant") for f in one.findings):
            continue
        other = first.setdefault(one.digest, row)
        if other is row:
            continue
        leaks = other.group != row.group or {other.subset, row.subset} == {"train", "test"}
        yield Finding(
            "copy leaks" if leaks else "copy",
            "error" if leaks else "warning",
            one.where,
            f"sounds the same as {other.recording_id} ({other.subset}, group {other.group}; this "
            f"one {row.subset}, group {row.group}); keep one, or give both one group and subset",
        )


def _events_against_sound(
    events: pd.DataFrame, sounding: dict[str, Survey], declared: dict[str, float]
) -> Iterator[Finding]:
    for row, event in enumerate(events.itertuples()):
        one = sounding.get(event.recording_id)
        if one is None:
            continue
        where, nyquist = f"events.csv line {row + 2}", one.sample_rate / 2
        # What ends after what the table says is a fault of the tables, and told by them.
        if one.duration < event.offset - END_TOLERANCE_S <= declared[event.recording_id]:
            detail = f"ends at {event.offset:g} s, {event.recording_id} at {one.duration:.3f} s"
            yield Finding("event after the sound", "error", where, detail)
        if event.low_freq >= nyquist:
            detail = f"low_freq {event.low_freq:g} is above the {nyquist:g} Hz the file can hold"
            yield Finding("band above Nyquist", "error", where, detail)
        elif event.high_freq > nyquist:
            detail = f"high_freq {event.high_freq:g} is above the {nyquist:g} Hz the file can hold"
            yield Finding("band above Nyquist", "warning", where, detail)


# ------------------------------------------------------------------------------------- the account


def findings_table(findings: list[Finding]) -> pd.DataFrame:
    """All findings as rows of fault, severity, where, detail: errors first, then by kind."""
    rows = sorted(findings, key=lambda finding: (finding.severity, finding.fault))
    return pd.DataFrame(
        [(one.fault, one.severity, one.where, one.detail) for one in rows],
        columns=["fault", "severity", "where", "detail"],
    )


def summary(findings: list[Finding], width: int = 160) -> str:
    """A line for each kind of fault: severity, how many, and the first of them."""
    table = findings_table(findings)
    lines = [f"{'severity':<9} {'fault':<21} {'count':>6}  first example"]
    for (severity, fault), rows in table.groupby(["severity", "fault"], sort=False):
        first = rows.iloc[0]
        where, detail = first["where"], first["detail"]
        example = detail if where in detail else f"{where}: {detail}"
        example = "".join(mark if mark.isprintable() else "?" for mark in example)
        if len(example) > width:
            example = f"{example[: width - 3]}..."
        lines.append(f"{severity:<9} {fault:<21} {len(rows):>6}  {example}")
    return "\n".join(lines)
