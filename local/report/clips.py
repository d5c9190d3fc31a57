"""An experiment's recordings -> the clips of the page: chosen, with items, boxes and sound."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from local.config import RelabelConfig
from local.data.tables import EVENT_COLUMNS, read_table
from local.features.audio import load_part
from local.features.corpus import source_path
from local.features.npz import FeatureReader
from local.inference.score_files import load_scores
from local.io.errors import CanopyError
from local.io.files import fingerprint
from local.report.media import encode_picture, encode_sound, expansion_of
from local.report.page_records import Box, Clip, EventKind, Item, Media, Viewer
from local.report.review_items import Row, Sources, Track, items_of, rows_of, tracks_of
from local.scoring.known_labels import known_rows
from local.stages.experiment import Experiment
from local.tasks.detection_events import true_events

log = logging.getLogger("canopy")

# Longer recordings are shown in parts: more than this on one time axis cannot be read.
MAX_CLIP_S = 60.0
# Classes whose scores are drawn, of those that have nothing in the clip but score highest.
N_TRACES = 5
MAX_TRACE_POINTS = 400


@dataclass(frozen=True)
class Part:
    """A recording, or one of the equal parts of a long one."""

    recording_id: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Place:
    """Where a recording's sound lies, and its subset."""

    sound: Path
    subset: str


def build_viewer(
    experiment: Experiment, cycles: Sequence[int], threshold: np.ndarray, rules: RelabelConfig
) -> Viewer | None:
    """The viewer over `report.n_recordings` clips; None when none are asked for or can be shown.

    threshold : (C,) logits from which on a detection is shown; `rules` says what else it must be.
    """
    config = experiment.run.config
    sources = _sources(experiment, cycles, threshold, rules)
    if config.report.n_recordings == 0 or not sources.last:
        return None
    durations = experiment.tables.recordings.set_index("recording_id")["duration"].to_dict()
    names = [name for name in experiment.dump_ids if name in sources.last]
    parts = [part for name in names for part in parts_of(name, durations[name])]
    items: dict[str, list[Item]] = {}
    if len(parts) > config.report.n_recordings:
        items = {name: items_of(sources, name, durations[name]) for name in names}
        parts = choose(parts, items, config.report.n_recordings)
    shown = list(dict.fromkeys(part.recording_id for part in parts))
    sources = replace(sources, folds=_fold_tracks(experiment, cycles[-1], shown))
    items = {name: items_of(sources, name, durations[name]) for name in shown}
    labels, places = experiment.tables.labels, _places(experiment)
    expansion = expansion_of(config.audio.sample_rate, config.report.time_expansion)
    return Viewer(
        clips=[_clip(experiment, sources, part, items, places, expansion) for part in parts],
        labels=labels,
        names=dict(experiment.tables.classes[["label", "name"]].itertuples(index=False)),
        thresholds={
            label: float(expit(value))
            for label, value in zip(labels, sources.threshold, strict=True)
        },
        mel_centres_hz=_band_centres_hz(experiment),
        expansion=expansion,
        key="canopy-review-" + fingerprint(sorted(durations))[:12],
        note=_note(experiment, len(names), cycles[-1]),
        n_jobs=experiment.run.nj,
    )


def parts_of(name: str, duration_s: float) -> list[Part]:
    """The whole recording, or equal parts of at most `MAX_CLIP_S`."""
    n_parts = max(1, int(np.ceil(duration_s / MAX_CLIP_S - 1e-9)))
    edges = np.linspace(0.0, duration_s, n_parts + 1).tolist()
    return [Part(name, start, end) for start, end in pairwise(edges)]


def choose(parts: Sequence[Part], items: dict[str, list[Item]], n: int) -> list[Part]:
    """Half of `n` evenly through the table, the rest where models or labels disagree most.

    The first half is an unbiased impression, the second is what review pays for. The order of the
    table is kept.
    """
    even = np.linspace(0, len(parts) - 1, (n + 1) // 2).round().astype(int)
    chosen = set(even.tolist())
    most = [
        max((item.disagreement for item in _inside(items[part.recording_id], part)), default=0.0)
        for part in parts
    ]
    for index in np.argsort(-np.array(most), kind="stable").tolist():
        if len(chosen) >= n:
            break
        chosen.add(index)
    return [parts[index] for index in sorted(chosen)]


def _inside(items: Sequence[Item], part: Part) -> list[Item]:
    """Items whose middle lies in the part."""
    return [item for item in items if part.start_s <= (item.onset + item.offset) / 2 < part.end_s]


def _note(experiment: Experiment, n_scored: int, cycle: int) -> str:
    n = experiment.run.config.report.n_recordings
    which = (
        f"All {n_scored} scored recordings."
        if n >= n_scored
        else f"{n} of {n_scored} scored recordings: half of them evenly through the table, half "
        "where labels, cycles or folds disagree most (report.n_recordings sets how many)."
    )
    return (
        f"{which} Scores are those of cycle {cycle} before the prior correction: out-of-fold for "
        "train recordings, the mean of all folds for test recordings."
    )


# ------------------------------------------------------------------------------ what is known


def _sources(
    experiment: Experiment, cycles: Sequence[int], threshold: np.ndarray, rules: RelabelConfig
) -> Sources:
    run, tables = experiment.run, experiment.tables
    known = known_rows(experiment.known_events)
    truth = _true_events(experiment)
    bands = tables.classes.set_index("label")[["low_freq", "high_freq"]]
    pseudo = pd.DataFrame(columns=list(EVENT_COLUMNS))
    if cycles[-1] > 0 and run.config.relabel.kind == "events":
        pseudo = read_table(run.cycle(cycles[-1]) / "pseudo_events.csv", EVENT_COLUMNS)
    return Sources(
        labels=tables.labels,
        last=_tracks(experiment, cycles[-1]),
        first=_tracks(experiment, cycles[0]) if len(cycles) > 1 else None,
        threshold=threshold,
        rules=rules,
        known=rows_of(known),
        pseudo=rows_of(pseudo[pseudo["polarity"] > 0]),
        truth=rows_of(truth) if truth is not None else {},
        judged=frozenset(experiment.ids("test")) if truth is not None else frozenset(),
        bands={label: (float(low), float(high)) for label, low, high in bands.itertuples()},
    )


def _tracks(experiment: Experiment, cycle: int) -> dict[str, Track]:
    """Out-of-fold scores of what is not test, fold means of test."""
    folder, test = experiment.run.cycle(cycle), set(experiment.ids("test"))
    oof = tracks_of(load_scores(folder / "oof.npz")[0])
    tested = tracks_of(load_scores(folder / "test.npz")[0])
    return {name: track for name, track in oof.items() if name not in test} | tested


def _fold_tracks(
    experiment: Experiment, cycle: int, names: Sequence[str]
) -> list[dict[str, Track]]:
    paths = [experiment.run.fold(cycle, fold) / "scores.npz" for fold in experiment.folds]
    return [tracks_of(load_scores(path)[0], names) for path in paths if path.is_file()]


def _true_events(experiment: Experiment) -> pd.DataFrame | None:
    events = true_events(experiment)
    return None if events is None else events[events["polarity"] > 0]


# ----------------------------------------------------------------------------------- one clip


def _clip(
    experiment: Experiment,
    sources: Sources,
    part: Part,
    items: dict[str, list[Item]],
    places: dict[str, Place],
    expansion: float,
) -> Clip:
    name = part.recording_id
    mine = _inside(items[name], part)
    events = _boxes(sources, part)
    traces, trace_start_s, hop_s = _traces(sources, part, mine, events)
    return Clip(
        recording_id=name,
        subset=places[name].subset,
        start_s=part.start_s,
        end_s=part.end_s,
        items=mine,
        events=events,
        traces=traces,
        trace_start_s=trace_start_s,
        trace_hop_s=hop_s,
        media=partial(_media, experiment, part, places[name], expansion),
    )


def _boxes(sources: Sources, part: Part) -> list[Box]:
    kinds = [(sources.pseudo, EventKind.PSEUDO, EventKind.PSEUDO)]
    if part.recording_id in sources.judged:
        kinds.append((sources.truth, EventKind.TRUE, EventKind.KNOWN_NEGATIVE))
    else:
        kinds.append((sources.known, EventKind.KNOWN_POSITIVE, EventKind.KNOWN_NEGATIVE))
    return [
        _box(row, label, positive if row.polarity > 0 else negative, sources, part)
        for rows, positive, negative in kinds
        for label in sources.labels
        for row in rows.get((part.recording_id, label), ())
        if row.onset < part.end_s and row.offset > part.start_s
    ]


def _box(row: Row, label: str, kind: EventKind, sources: Sources, part: Part) -> Box:
    low, high = row.low_freq, row.high_freq
    if np.isnan(low) or np.isnan(high):
        low, high = sources.bands.get(label, (low, high))
    return Box(
        max(row.onset, part.start_s),
        min(row.offset, part.end_s),
        label,
        kind,
        low_freq=None if np.isnan(low) else low,
        high_freq=None if np.isnan(high) else high,
    )


def _traces(
    sources: Sources, part: Part, items: Sequence[Item], events: Sequence[Box]
) -> tuple[dict[str, np.ndarray], float, float]:
    """Scores of the classes with anything in the clip, and of the highest ones besides.

    Returns
    -------
    traces : label -> (n,) the highest probability of each step.
    start_s, hop_s : where the first step begins, and their length.
    """
    track = sources.last[part.recording_id]
    edges = track.grid.edges_s
    inside = np.flatnonzero((edges[1:] > part.start_s) & (edges[:-1] < part.end_s))
    if len(inside) == 0:
        return {}, part.start_s, track.grid.hop_s
    logit = track.logit[:, inside]
    named = {item.label for item in items} | {event.label for event in events}
    ranked = [sources.labels[row] for row in np.argsort(-logit.max(axis=1), kind="stable")]
    kept = [label for label in ranked if label in named]
    kept += [label for label in ranked if label not in named][: max(0, N_TRACES - len(kept))]
    step = int(np.ceil(len(inside) / MAX_TRACE_POINTS))
    starts = np.arange(0, len(inside), step)
    thinned = np.maximum.reduceat(expit(logit.astype(np.float64)), starts, axis=1)
    column = {label: row for row, label in enumerate(sources.labels)}
    traces = {label: thinned[column[label]] for label in kept}
    return traces, float(edges[inside[0]]), track.grid.hop_s * step


def _places(experiment: Experiment) -> dict[str, Place]:
    run, recordings = experiment.run, experiment.tables.recordings
    columns = recordings[["recording_id", "path", "subset"]]
    return {
        name: Place(source_path(run.datadir, path), subset)
        for name, path, subset in columns.itertuples(index=False)
    }


def _media(experiment: Experiment, part: Part, place: Place, expansion: float) -> Media:
    picture = None
    front_end = experiment.dump.front_end
    if front_end.band_edges_hz() is not None:
        n_frames = experiment.dump.n_frames(part.recording_id)
        first = min(int(part.start_s / front_end.hop_s), max(0, n_frames - 1))
        last = min(n_frames, max(first + 1, round(part.end_s / front_end.hop_s)))
        features = experiment.dump.place(part.recording_id)
        picture = encode_picture(FeatureReader().read_crop(features, first, last))
    return Media(picture, _sound(experiment, part, place.sound, expansion))


def _sound(experiment: Experiment, part: Part, path: Path, expansion: float) -> bytes | None:
    """The part's sound; None, with a line in the log, where the recording cannot be read."""
    config = experiment.run.config.audio
    try:
        sound = load_part(path, config, part.start_s, part.end_s)
    except CanopyError as error:
        log.warning("report: no sound for %s: %s", part.recording_id, error)
        return None
    return encode_sound(sound, config.sample_rate, expansion) if len(sound) else None


def _band_centres_hz(experiment: Experiment) -> list[float]:
    """(n_bands,) centre of mass of every band; empty where bands have no frequencies."""
    weighted = experiment.dump.front_end.band_weights()
    if weighted is None:
        return []
    weights, hertz = weighted
    return (weights @ hertz / weights.sum(axis=1)).tolist()
