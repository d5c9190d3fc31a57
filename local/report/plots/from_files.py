"""From the options of `bin/plot.py` to figures."""

from argparse import Namespace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit

from local.data.tables import read_table
from local.io.errors import CanopyError
from local.report.plots.curves import alarm_figure, pr_figure
from local.report.plots.page import Page
from local.report.plots.recording_figure import (
    KINDS,
    Annotated,
    RecordingPicture,
    read_part,
    recording_figure,
)
from local.scoring.evaluation.event_level import event_lists, score_tracks
from local.scoring.evaluation.score_sources import (
    System,
    Truth,
    named_paths,
    read_events,
    read_system,
    read_truth_file,
)
from local.scoring.evaluation.scoring_set import (
    ScoringSet,
    clip_scores,
    clip_truth,
    make_scoring_set,
    true_events,
)
from local.scoring.metrics.average_precision import Curve, ranked_curve
from local.scoring.metrics.collar_curves import collar_curve
from local.scoring.metrics.event_statistics import CollarRule, EventOptions
from local.scoring.metrics.matching import matching_by_score, overlapping_pairs
from local.scoring.metrics.psds import SETTINGS, psds, truth_tuples


def draw_recording(args: Namespace, page: Page) -> Figure:
    """The figure of `bin/plot.py recording`."""
    path, name = _find_recording(args)
    audio, rate, end = read_part(path, args.start, args.end)
    events = _events(args, name)
    scores = _scores(args.scores, name) if args.scores else {}
    known = {event.label for event in events} | scores.keys()
    absent = [label for label in args.label if label not in known]
    if absent:
        raise CanopyError(f"--label {absent[0]}: no event and no score of it in recording {name}")
    inside = [event for event in events if event.offset > args.start and event.onset < end]
    labels = args.label or _worth_showing(inside, scores, args, end)
    return recording_figure(
        RecordingPicture(
            audio=audio,
            sample_rate=rate,
            start_s=args.start,
            end_s=end,
            labels=labels,
            events=[event for event in inside if event.label in labels],
            scores={label: scores[label] for label in labels if label in scores} or None,
            threshold=args.threshold if scores else None,
            spectrogram=not args.no_spectrogram,
            colours=args.colours,
            f_min=args.f_min,
            f_max=args.f_max,
            window_ms=args.window_ms,
        ),
        page,
    )


def _find_recording(args: Namespace) -> tuple[Path, str]:
    if args.recordings is None:
        path = Path(args.recording)
        if not path.is_file():
            raise CanopyError(
                f"{path}: no such sound file; for an id of a table, give --recordings FILE"
            )
        return path, path.stem
    table = read_table(args.recordings, ("recording_id", "path")).set_index("recording_id")
    if args.recording not in table.index:
        raise CanopyError(f"{args.recordings}: no recording {args.recording}")
    path = args.datadir / str(table.loc[args.recording, "path"])
    if not path.is_file():
        raise CanopyError(f"{path}: no such sound file; give --datadir, where the paths start")
    return path, args.recording


def _events(args: Namespace, name: str) -> list[Annotated]:
    events = []
    for kind in KINDS:
        path = getattr(args, kind)
        if path is None:
            continue
        table = read_events(path)
        table = table[(table["recording_id"] == name) & (table["polarity"] > 0)]
        if kind == "detected":
            table = table[~(table["score"] < args.threshold)]
        events += [
            Annotated(row.onset, row.offset, row.label, kind, row.low_freq, row.high_freq)
            for row in table.itertuples()
        ]
    return events


def _scores(path: Path, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    scores = read_system("scores", path).scores
    if scores is None or name not in scores.recording_ids:
        raise CanopyError(f"{path}: no scores over time of recording {name}")
    row = scores.recording_ids.index(name)
    times = scores.grid(row).centres_s
    values = expit(scores.frames[row].astype(np.float64))
    return {label: (times, values[index]) for index, label in enumerate(scores.labels)}


def _worth_showing(
    events: list[Annotated],
    scores: dict[str, tuple[np.ndarray, np.ndarray]],
    args: Namespace,
    end: float,
) -> list[str]:
    """Classes with events first, by kind; then those with the highest score in this part."""

    def peak(label: str) -> float:
        if label not in scores:
            return 0.0
        times, values = scores[label]
        inside = values[(times >= args.start) & (times <= end)]
        return float(inside.max()) if inside.size else 0.0

    place = {kind: position for position, kind in enumerate(KINDS)}
    first: dict[str, int] = {}
    for event in events:
        first[event.label] = min(first.get(event.label, 9), place[event.kind])
    ranked = sorted(first, key=lambda label: (first[label], -peak(label), label))
    ranked += sorted(scores.keys() - first.keys(), key=lambda label: (-peak(label), label))
    return ranked[: args.n_classes]


# ------------------------------------------------------------------------------------------ systems


def draw_systems(args: Namespace, page: Page) -> Figure:
    """The figure of `bin/plot.py pr`, `alarms` and `psds`."""
    truth = read_truth_file(args.truth, "auto")
    if truth.partial:
        raise CanopyError(
            f"{args.truth}: is partial (it rejects spans), and curves need complete truth"
        )
    systems = [read_system(name, path) for name, path in named_paths(args.system).items()]
    scoring_set = make_scoring_set(truth, systems, args.recordings, args.subset, args.classes)
    if args.kind == "psds":
        return _draw_psds(args, page, truth, systems, scoring_set)
    curves, n_positive = {}, 0.0
    for system in systems:
        curves[system.name], n_positive = _curve(args, system, truth, scoring_set)
    title = f"{', '.join(args.label) or 'all classes'}, {_rule(args)}, {n_positive:.0f} positives"
    if args.kind == "pr":
        lines = {name: (curve.recall, curve.precision) for name, curve in curves.items()}
        cells = len(scoring_set.recordings) * (len(args.label) or len(scoring_set.labels))
        chance = n_positive / cells if args.level == "clip" else float("nan")
        return pr_figure(lines, page, title, chance)
    hours = scoring_set.needed_durations("false alarms per hour").sum() / 3600
    lines = {name: (curve.wrong / hours, curve.recall) for name, curve in curves.items()}
    return alarm_figure(lines, page, title, "recall", args.most)


def _rule(args: Namespace) -> str:
    if args.level == "clip":
        return "recordings"
    if args.level == "collar":
        ends = "onsets alone" if args.onset_only else f"ends {args.offset_share:g} of the length"
        return f"collar {args.collar:g} s, {ends}"
    return "any overlap" if args.iou == 0 else f"IoU of at least {args.iou:g}"


def _chosen(args: Namespace, scoring_set: ScoringSet) -> np.ndarray:
    """Indices of the classes asked for."""
    absent = [label for label in args.label if label not in scoring_set.labels]
    if absent:
        raise CanopyError(f"--label {absent[0]} is not among the {len(scoring_set.labels)} classes")
    return np.array([scoring_set.labels.index(label) for label in args.label or scoring_set.labels])


def _curve(
    args: Namespace, system: System, truth: Truth, scoring_set: ScoringSet
) -> tuple[Curve, float]:
    """The curve of the chosen classes together, and how many positives there are."""
    columns = _chosen(args, scoring_set)
    if args.level == "clip":
        positive = clip_truth(truth, scoring_set)[:, columns]
        score = clip_scores(system, scoring_set)[:, columns]
        return ranked_curve(score.ravel(), positive.ravel(), positive.sum()), positive.sum()
    true = scoring_set.event_list(true_events(truth), truth.path)
    true = true.take(np.isin(true.label, columns))
    if args.level == "collar":
        rule = CollarRule(args.collar, args.offset_share, not args.onset_only)
        tuples = truth_tuples(true, scoring_set.recordings, scoring_set.labels)
        curve = collar_curve(score_tracks(system, scoring_set), tuples, scoring_set.labels, rule)
        return curve, sum(map(len, tuples.values()))
    options = EventOptions(threshold=args.threshold, candidate_threshold=args.candidates)
    _, ranked = event_lists(system, scoring_set, options)
    if ranked is None:
        raise CanopyError(f"{system.path}: detections have no scores, so there is no curve")
    ranked = ranked.take(np.isin(ranked.label, columns))
    right = matching_by_score(overlapping_pairs(true, ranked).reaching(args.iou), true, ranked)
    return ranked_curve(ranked.score, right, len(true)), len(true)


def _draw_psds(
    args: Namespace, page: Page, truth: Truth, systems: list[System], scoring_set: ScoringSet
) -> Figure:
    lines: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    true = scoring_set.event_list(true_events(truth), truth.path)
    tuples = truth_tuples(true, scoring_set.recordings, scoring_set.labels)
    setting = SETTINGS[args.setting]
    for system in systems:
        tracks = score_tracks(system, scoring_set)
        result = psds(tracks, tuples, scoring_set.labels, setting)
        lines[f"{system.name} ({result.value:.3f})"] = (result.alarms, result.hit_rate)
    most = args.most or setting.max_efpr
    title = f"PSDS, setting {args.setting}"
    return alarm_figure(lines, page, title, "effective recall", most, logarithmic=False)
