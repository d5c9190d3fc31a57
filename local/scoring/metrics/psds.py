"""Measures over all thresholds from scores over time, by sed_scores_eval (an optional package).

PSDS (Bilen et al. 2020) computed exactly (Ebbers, Serizel and Haeb-Umbach 2022): the area under the
curve of hit rate against false alarms an hour, up to 100 an hour. A detection counts when it
overlaps true events by the share `dtc` of itself, an event when detections cover the share `gtc`.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from local.io.errors import CanopyError
from local.scoring.metrics.matching import EventList
from local.scoring.metrics.recording_sums import PlainStatistic


@dataclass(frozen=True)
class PsdsSetting:
    """Parameters as sed_scores_eval names them."""

    dtc: float
    gtc: float
    cttc: float | None
    alpha_ct: float
    alpha_st: float
    max_efpr: float = 100.0

    def options(self) -> dict[str, Any]:
        """Keyword arguments of `intersection_based.psds`."""
        return {
            "dtc_threshold": self.dtc,
            "gtc_threshold": self.gtc,
            "cttc_threshold": self.cttc,
            "alpha_ct": self.alpha_ct,
            "alpha_st": self.alpha_st,
            "max_efpr": self.max_efpr,
            "unit_of_time": "hour",
        }


# The two scenarios of DCASE's task 4: bounds matter, classes matter.
SETTINGS = {
    "psds1": PsdsSetting(0.7, 0.7, None, 0.0, 1.0),
    "psds2": PsdsSetting(0.1, 0.1, 0.3, 0.5, 1.0),
}


# Classes times cells of all recordings up to which PSDS is measured unasked: seven hours of 24
# classes in cells of 60 ms, beyond which it takes minutes.
MAX_UNASKED_CELLS = 10_000_000


def is_installed() -> bool:
    """Whether the package sed_scores_eval is there."""
    try:
        load_library()
    except CanopyError:
        return False
    return True


def load_library() -> ModuleType:
    """The package sed_scores_eval, or a `CanopyError` that says how to get it."""
    try:
        with warnings.catch_warnings():
            # Of what it imports in turn, about packages that are on their way out.
            warnings.simplefilter("ignore")
            import sed_scores_eval
    except ImportError:
        raise CanopyError(
            "measures over all thresholds of scores (PSDS, collars) need sed_scores_eval, which is "
            "not installed; run `make setup-eval`, or leave the measure out"
        ) from None
    return sed_scores_eval


@dataclass(frozen=True)
class ScoreTracks:
    """Scores over time: one frame table (onset, offset, one column a class) a recording."""

    tables: dict[str, pd.DataFrame]
    durations: dict[str, float]


def tracks_of_events(
    found: EventList, recordings: list[str], labels: list[str], durations: np.ndarray
) -> ScoreTracks:
    """Scored detections as scores over time: the highest score at each moment.

    Where there is no detection, the score is below every other, so that no threshold reaches it.
    """
    floor = float(found.score.min()) - 1.0 if len(found) else 0.0
    order = np.lexsort((found.score, found.recording))
    found = found.take(order)
    borders = np.searchsorted(found.recording, np.arange(len(recordings) + 1))
    tables = {}
    for row, name in enumerate(recordings):
        mine = found.take(np.arange(borders[row], borders[row + 1]))
        end = float(durations[row])
        times = np.unique(np.clip(np.concatenate([[0.0, end], mine.onset, mine.offset]), 0.0, end))
        score = np.full((len(times) - 1, len(labels)), floor)
        first, last = (
            np.searchsorted(times, np.clip(mine.onset, 0, end)),
            np.searchsorted(times, np.clip(mine.offset, 0, end)),
        )
        # Rising scores, so that the highest is written last.
        for event in range(len(mine)):
            score[first[event] : last[event], mine.label[event]] = mine.score[event]
        tables[name] = _frame(times, score, labels)
    return ScoreTracks(tables, dict(zip(recordings, durations.tolist(), strict=True)))


def tracks_of_frames(
    frames: Mapping[str, tuple[np.ndarray, np.ndarray]], labels: list[str]
) -> ScoreTracks:
    """Scores on a grid: recording -> borders of cells in seconds (n + 1,) and scores (C, n)."""
    tables, durations = {}, {}
    for name, (edges, score) in frames.items():
        times = np.concatenate([[max(0.0, float(edges[0]))], edges[1:]])
        tables[name] = _frame(times, np.asarray(score, np.float64).T, labels)
        durations[name] = float(edges[-1])
    return ScoreTracks(tables, durations)


def _frame(times: np.ndarray, score: np.ndarray, labels: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        np.column_stack([times[:-1], times[1:], score]), columns=["onset", "offset", *labels]
    )


def truth_tuples(
    true: EventList, recordings: list[str], labels: list[str]
) -> dict[str, list[tuple[float, float, str]]]:
    """True events as sed_scores_eval takes them; overlapping ones of a class become one."""
    result: dict[str, list[tuple[float, float, str]]] = {name: [] for name in recordings}
    order = np.lexsort((true.onset, true.label, true.recording))
    for row in order:
        events = result[recordings[true.recording[row]]]
        onset, offset, label = (
            float(true.onset[row]),
            float(true.offset[row]),
            labels[true.label[row]],
        )
        if events and events[-1][2] == label and onset <= events[-1][1]:
            before = events.pop()
            onset, offset = before[0], max(before[1], offset)
        events.append((onset, offset, label))
    return result


@dataclass(frozen=True)
class PsdsResult:
    """Value, value a class (C,), and the curve: false alarms an hour against effective hit rate."""

    value: float
    per_class: np.ndarray
    alarms: np.ndarray
    hit_rate: np.ndarray


def psds(
    tracks: ScoreTracks,
    truth: Mapping[str, list[tuple[float, float, str]]],
    labels: list[str],
    setting: PsdsSetting,
) -> PsdsResult:
    """PSDS of the classes that the truth has; detections of others are left out."""
    tables, truth, known = known_classes(tracks, truth, labels)
    if not known:
        nothing = np.zeros(0)
        return PsdsResult(float("nan"), np.full(len(labels), np.nan), nothing, nothing)
    value, per_class, alarms, hit_rate = _summary(
        load_library(), setting, known, truth, tracks.durations, tables
    )
    each = np.array([per_class.get(label, np.nan) for label in labels], dtype=np.float64)
    return PsdsResult(value, each, alarms, hit_rate)


def _summary(
    library: ModuleType,
    setting: PsdsSetting,
    known: list[str],
    truth: Mapping[str, list[tuple[float, float, str]]],
    durations: Mapping[str, float],
    scores: Mapping[str, pd.DataFrame],
) -> tuple[float, dict[str, float], np.ndarray, np.ndarray]:
    """PSDS, of each class, and the curve; classes that the truth lacks left out."""
    module = library.intersection_based
    present = {event[2] for events in truth.values() for event in events}
    if not present:
        return float("nan"), {}, np.zeros(0), np.zeros(0)
    _, rocs = module.psd_roc(
        scores=scores,
        ground_truth=truth,
        audio_durations=durations,
        **setting.options(),
    )
    rocs = {label: rocs[label] for label in known if label in present}
    hit_rate, alarms = module.multi_class_psd_roc_from_single_class_psd_rocs(
        rocs, setting.alpha_st, setting.max_efpr
    )
    per_class = {
        label: float(module.psds_from_psd_roc(roc[0], roc[1], setting.max_efpr))
        for label, roc in rocs.items()
    }
    value = float(module.psds_from_psd_roc(hit_rate, alarms, setting.max_efpr))
    return value, per_class, np.asarray(alarms), np.asarray(hit_rate)


def known_classes(
    tracks: ScoreTracks, truth: Mapping, labels: list[str]
) -> tuple[dict, dict, list[str]]:
    """Tables of the classes that the truth has, the truth, and these classes."""
    present = {event[2] for events in truth.values() for event in events}
    known = [label for label in labels if label in present]
    columns = ["onset", "offset", *known]
    return {name: table[columns] for name, table in tracks.tables.items()}, dict(truth), known


def draw(
    row: np.ndarray, recordings: list[str], *of_recordings: Mapping[str, Any]
) -> tuple[dict[str, Any], ...]:
    """A resample of tables by recording: each as often as `row` says, under its own names."""
    copies = [
        (f"{recordings[index]} {copy}", recordings[index])
        for index in np.flatnonzero(row)
        for copy in range(int(row[index]))
    ]
    return tuple({key: table[name] for key, name in copies} for table in of_recordings)


def psds_statistic(
    name: str,
    tracks: ScoreTracks,
    truth: Mapping[str, list[tuple[float, float, str]]],
    recordings: list[str],
    labels: list[str],
) -> PlainStatistic:
    """PSDS of resamples, from what each recording adds at each score (computed once).

    The column macro is PSDS itself, whose mean over classes has the spread between them taken off.
    """
    library, setting = load_library(), SETTINGS[name]
    tables, truth, known = known_classes(tracks, truth, labels)
    if not known:
        return PlainStatistic(name, lambda row: np.full(2 + len(labels), np.nan))
    deltas = library.intersection_based.intermediate_statistics_deltas(
        scores=tables,
        ground_truth=truth,
        dtc_threshold=setting.dtc,
        gtc_threshold=setting.gtc,
        cttc_threshold=setting.cttc,
    )
    classes = {label: _class_changes(deltas, label, recordings) for label in known}
    n_true, seconds = _sums_of_truth(truth, recordings, known)
    durations = np.array([tracks.durations[one] for one in recordings])

    def value(row: np.ndarray) -> np.ndarray:
        of_resample = _Resample(row, row @ n_true, row @ seconds, float(row @ durations) / 3600)
        rocs = {
            label: _roc(classes[label], place, of_resample, setting)
            for place, label in enumerate(known)
            if of_resample.n_true[place] > 0
        }
        if not rocs:
            return np.full(2 + len(labels), np.nan)
        module = library.intersection_based
        hit_rate, alarms = module.multi_class_psd_roc_from_single_class_psd_rocs(
            rocs, setting.alpha_st, setting.max_efpr
        )
        areas = {label: _area(module, *roc, setting) for label, roc in rocs.items()}
        numbers = [areas.get(label, np.nan) for label in labels]
        # One curve over all classes: there is no sum of counts that would make a micro average.
        return np.array([np.nan, _area(module, hit_rate, alarms, setting), *numbers])

    return PlainStatistic(name, value)


def _area(
    module: ModuleType, hit_rate: np.ndarray, alarms: np.ndarray, setting: PsdsSetting
) -> float:
    return float(module.psds_from_psd_roc(hit_rate, alarms, setting.max_efpr))


@dataclass(frozen=True)
class _ClassChanges:
    """Where the counts of one class change as the threshold falls, from the highest score on.

    recording : (P,) place of each change. change : (P, 2 + others) in hits, false alarms and cross
    triggers with each other class. last : the last change at each distinct score.
    """

    recording: np.ndarray
    change: np.ndarray
    last: np.ndarray


@dataclass(frozen=True)
class _Resample:
    """How often each recording counts (N,); events and their seconds (K,) of classes; hours."""

    counts: np.ndarray
    n_true: np.ndarray
    seconds: np.ndarray
    hours: float


def _class_changes(deltas: Mapping, label: str, recordings: list[str]) -> _ClassChanges:
    parts = [deltas[name][label] for name in recordings]
    score = np.concatenate([part[0] for part in parts])
    recording = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    columns = [
        np.concatenate([_columns(part[1])[row] for part in parts])
        for row in range(len(_columns(parts[0][1])))
    ]
    order = np.argsort(-score, kind="stable")
    score = score[order]
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True)[: len(score)])
    return _ClassChanges(recording[order], np.stack(columns, axis=1)[order], last)


def _columns(change: Mapping[str, Any]) -> list[np.ndarray]:
    """Changes in hits and false alarms, and in cross triggers where they are counted by class."""
    crossed = change.get("cts")
    if isinstance(crossed, Mapping):
        others = list(crossed.values())
    else:
        others = [value for name, value in change.items() if name.startswith("cts\\")]
    return [change["tps"], change["fps"], *others]


def _sums_of_truth(
    truth: Mapping[str, list[tuple[float, float, str]]], recordings: list[str], known: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Number of events and their seconds, (N, K) each."""
    n_true, seconds = np.zeros((2, len(recordings), len(known)))
    place = {label: column for column, label in enumerate(known)}
    for row, name in enumerate(recordings):
        for onset, offset, label in truth[name]:
            n_true[row, place[label]] += 1
            seconds[row, place[label]] += offset - onset
    return n_true, seconds


def _roc(
    changes: _ClassChanges, place: int, resample: _Resample, setting: PsdsSetting
) -> tuple[np.ndarray, np.ndarray]:
    """Rising hit rates of a class, and the effective false alarms an hour at which each is reached.

    As sed_scores_eval's `psd_roc` (Ebbers et al. 2022), but of changes that are sorted already.
    """
    weighted = changes.change * resample.counts[changes.recording, None]
    counts = np.cumsum(weighted, axis=0)[changes.last]
    hit_rate = counts[:, 0] / resample.n_true[place]
    alarms = counts[:, 1] / resample.hours
    if setting.alpha_ct > 0 and counts.shape[1] > 2:
        others = np.delete(resample.seconds, place) / 3600
        alarms += setting.alpha_ct * (counts[:, 2:] / np.maximum(others, 1e-12 / 3600)).mean(axis=1)
    within = alarms <= setting.max_efpr
    hit_rate, alarms = np.append(0.0, hit_rate[within]), np.append(0.0, alarms[within])
    order = np.lexsort((hit_rate, alarms))
    hit_rate, alarms = np.maximum.accumulate(hit_rate[order]), alarms[order]
    # Of equal alarms the highest rate; of equal rates the fewest alarms.
    kept = np.append(alarms[1:] != alarms[:-1], True)
    hit_rate, alarms = hit_rate[kept], alarms[kept]
    first = np.append(True, hit_rate[1:] > hit_rate[:-1])
    return hit_rate[first], alarms[first]
