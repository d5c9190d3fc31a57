"""What a fold may draw from, and which windows an epoch draws."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from local.config import Config
from local.data.tables import Tables
from local.features.front_ends.front_end_registry import front_end_of
from local.features.store import FeatureStore
from local.io.errors import CanopyError
from local.labels.soft_labels import SoftLabels
from local.labels.targets import EventArrays, events_by_recording, needed_s
from local.training.pseudo_windows import PseudoWindows, capped, find_pseudo_windows


@dataclass(frozen=True)
class TrainingSet:
    """What a fold may draw from: recordings in order, and their events as flat arrays.

    `event_*` have one entry an event: the recording's position, class, onset, offset (s), and kind:
    0 true positive, 1 true negative, 2 pseudo; the band (E, 2) in hertz, the class's where the row
    says none, NaN where that does not either. Events of a recording stand in the order of
    `events[recording_id]`. `stretched_frames`: `n_frames` in the dump of each stretch factor.
    `n_background`: so many at the end are laid under windows, and no window is drawn from them;
    they may stand before as well. `soft`, `pseudo`: soft labels of recordings and
    the windows that are drawn by them, in cycles that have such.
    `unlabelled`: (n_own,) recordings that no person listened through, outside subset train.
    """

    recording_ids: list[str]
    n_frames: np.ndarray
    events: dict[str, EventArrays]
    event_recording: np.ndarray
    event_label: np.ndarray
    event_onset: np.ndarray
    event_offset: np.ndarray
    event_kind: np.ndarray
    event_band: np.ndarray | None = None
    stretched_frames: dict[float, np.ndarray] = field(default_factory=dict)
    n_background: int = 0
    soft: SoftLabels | None = None
    pseudo: PseudoWindows | None = None
    unlabelled: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))

    @property
    def n_own(self) -> int:
        """Recordings, from the first on, that windows are drawn from."""
        return len(self.recording_ids) - self.n_background

    def frames_at(self, rows: np.ndarray, factors: np.ndarray | float) -> np.ndarray:
        """Frames of the recordings `rows` in the dumps of their stretch factors."""
        n_frames = self.n_frames[rows]
        for factor, stretched in self.stretched_frames.items():
            n_frames = np.where(factors == factor, stretched[rows], n_frames)
        return n_frames


def make_training_set(
    tables: Tables,
    events: pd.DataFrame,
    recording_ids: list[str],
    dump: FeatureStore,
    background_ids: Sequence[str] = (),
    soft: SoftLabels | None = None,
) -> TrainingSet:
    """Collect recordings (those that could be read) and `events` that lie in them.

    `background_ids`: recordings to be laid under windows, whatever is known of them. `soft`: soft
    labels, of recordings of which only those of `recording_ids` count.
    """
    own = [name for name in recording_ids if name in dump]
    backgrounds = [name for name in background_ids if name in dump]
    ids = [*own, *backgrounds]
    position = {name: row for row, name in enumerate(own)}
    mine = events[events["recording_id"].isin(position)]
    mine = mine.sort_values(["recording_id", "onset", "offset", "label"], kind="stable")
    index = {label: row for row, label in enumerate(tables.labels)}
    pseudo = mine["source"].astype(str).str.startswith("pseudo").to_numpy()
    negative = (mine["polarity"] < 0).to_numpy()
    config = dump.config
    factors = config.features.stretches if config.window.p_stretched > 0 else ()
    by_recording = events_by_recording(mine, tables.labels)
    return TrainingSet(
        recording_ids=ids,
        n_frames=np.array([dump.n_frames(name) for name in ids], dtype=np.int64),
        events=by_recording,
        event_recording=mine["recording_id"].map(position).to_numpy(dtype=np.int64),
        event_label=mine["label"].map(index).to_numpy(dtype=np.int64),
        event_onset=mine["onset"].to_numpy(dtype=np.float64),
        event_offset=mine["offset"].to_numpy(dtype=np.float64),
        event_kind=np.where(pseudo, 2, np.where(negative, 1, 0)),
        event_band=_bands(mine, tables),
        stretched_frames={
            factor: np.array([dump.at(factor).n_frames(name) for name in ids], dtype=np.int64)
            for factor in factors
        },
        n_background=len(backgrounds),
        soft=soft,
        **({} if soft is None else _by_soft(soft, own, tables, config, by_recording)),
    )


def _by_soft(
    soft: SoftLabels,
    recording_ids: list[str],
    tables: Tables,
    config: Config,
    events: dict[str, EventArrays],
) -> dict[str, Any]:
    """What a training set has only with soft labels: windows drawn by them, who has no others."""
    train = set(tables.subset("train")["recording_id"])
    window_s = np.inf if config.window.whole else config.window.length_s
    return {
        "pseudo": find_pseudo_windows(soft, enumerate(recording_ids), window_s, events),
        "unlabelled": np.array([name not in train for name in recording_ids], dtype=bool),
    }


def _bands(events: pd.DataFrame, tables: Tables) -> np.ndarray:
    """(E, 2) hertz of each event: the row's, else its class's, else NaN."""
    band = np.full((len(events), 2), np.nan)
    for column, key in enumerate(("low_freq", "high_freq")):
        if key in events:
            band[:, column] = events[key].to_numpy(dtype=np.float64)
        if key in tables.classes:
            of_class = tables.classes.set_index("label")[key].astype(float)
            of_event = events["label"].map(of_class).to_numpy(dtype=np.float64)
            band[:, column] = np.where(np.isnan(band[:, column]), of_event, band[:, column])
    return band


# The kind of pseudo windows in a plan; kinds below it are of windows around a person's row.
PSEUDO_KIND = 2


def draw_kinds(
    training_set: TrainingSet, config: Config, n_windows: int, rng: np.random.Generator
) -> np.ndarray:
    """(n_windows,) kinds: 0 true event, 1 known negative, 2 pseudo, 3 anywhere.

    The first draws of `plan_epoch`: the same generator gives the kinds of its windows.
    """
    rule, pseudo = config.window, training_set.pseudo
    if training_set.n_own == 0:
        raise CanopyError(
            "no readable train recording is left for this fold; look at the reasons in manifest.csv"
        )
    shares = np.array([rule.p_positive, rule.p_negative, rule.p_pseudo, rule.p_random])
    for kind, rows in enumerate(_rows_of(training_set)):
        shares[kind] *= len(rows) > 0 or (kind == PSEUDO_KIND and pseudo is not None)
    if shares.sum() == 0:
        raise CanopyError(
            "no window can be drawn: there are no events of the kinds that window.p_positive, "
            "p_negative and p_pseudo ask for, and window.p_random is 0; raise p_random"
        )
    kinds = rng.choice(4, size=n_windows, p=shares / shares.sum())
    if pseudo is not None:
        _cap_pseudo(kinds, shares, config.train.batch_size, rng)
        if config.relabel.pseudo_mixup > 0 and config.relabel.pseudo_mixup_kind == "substitute":
            chosen = rng.random(n_windows) < config.relabel.pseudo_mixup
            kinds[(kinds < PSEUDO_KIND) & chosen] = PSEUDO_KIND
    return kinds


def _rows_of(training_set: TrainingSet) -> list[np.ndarray]:
    """Events of each kind."""
    return [np.flatnonzero(training_set.event_kind == kind) for kind in range(3)]


def plan_epoch(
    training_set: TrainingSet,
    config: Config,
    window: int,
    n_windows: int,
    rng: np.random.Generator,
    dump_factor: np.ndarray | float = 1.0,
    factor: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Draw the windows of an epoch: (n_windows, 2) of recording position and first frame.

    The kind of a window is drawn first (true event, known negative, pseudo event, anywhere), then
    for true rows a class with equal chance and one of its rows, for pseudo rows any row: pseudo
    events keep their natural balance, which carries the prior of the recordings. With
    `window.balance_batches` the classes of true rows are spread evenly over each batch.

    With soft labels, a pseudo window is drawn by its confidence; no batch holds more of them than
    their share, rounded up, and windows from anywhere come from recordings of subset train.

    Parameters
    ----------
    window : frames of the window as the network sees it.
    dump_factor : (n_windows,) or 1: the stretch of the dump that each window is read from, in whose
        frames its place is given.
    factor : (n_windows,) or 1: how much each window is stretched after that; it shows
        window / factor frames.
    """
    rule, pseudo = config.window, training_set.pseudo
    kinds = draw_kinds(training_set, config, n_windows, rng)
    rows_of = _rows_of(training_set)
    dump_factor = np.broadcast_to(dump_factor, n_windows)
    factor = np.broadcast_to(factor, n_windows)
    plan = np.empty((n_windows, 2), dtype=np.int64)
    spread = _spread(kinds, rows_of, training_set, config, rng) if rule.balance_batches else None
    for kind in range(3):
        where = np.flatnonzero(kinds == kind)
        stretch = dump_factor[where], factor[where]
        if kind == PSEUDO_KIND and pseudo is not None:
            plan[where] = place_pseudo(training_set, pseudo, window, config, rng, *stretch)
            continue
        if spread is not None and kind != PSEUDO_KIND:
            chosen = spread[where]
        else:
            balanced = rule.balance_classes and kind != PSEUDO_KIND
            chosen = _draw_rows(rows_of[kind], training_set.event_label, len(where), balanced, rng)
        plan[where, 0] = training_set.event_recording[chosen]
        plan[where, 1] = place_windows(training_set, chosen, window, config, rng, *stretch)
    where = np.flatnonzero(kinds == 3)
    plan[where] = random_windows(
        training_set, window, len(where), rng, dump_factor[where], factor[where]
    )
    return plan


def _cap_pseudo(
    kinds: np.ndarray, shares: np.ndarray, batch_size: int, rng: np.random.Generator
) -> None:
    """Change, in place, the kind of pseudo windows beyond their share of each batch.

    Where nothing else can be drawn, there is nothing to hold them against.
    """
    most = int(np.ceil(batch_size * shares[PSEUDO_KIND] / shares.sum()))
    others = np.where(np.arange(len(shares)) == PSEUDO_KIND, 0.0, shares)
    if others.sum() > 0:
        over = capped(kinds, PSEUDO_KIND, most, batch_size)
        kinds[over] = rng.choice(len(shares), size=len(over), p=others / others.sum())


def place_pseudo(
    training_set: TrainingSet,
    pseudo: PseudoWindows,
    window: int,
    config: Config,
    rng: np.random.Generator,
    dump_factor: np.ndarray,
    factor: np.ndarray,
) -> np.ndarray:
    """(n, 2) recording positions and first frames of pseudo windows, one for each stretch.

    What a stretched window shows is centred on what the plain one would show.
    """
    front_end = front_end_of(config)
    plan = np.empty((len(factor), 2), dtype=np.int64)
    plan[:, 0], middle = pseudo.draw(len(plan), rng)
    first = (middle * dump_factor - front_end.start_s) / front_end.hop_s - window / factor / 2
    room = _room(training_set, plan[:, 0], window, dump_factor, factor)
    plan[:, 1] = np.clip(np.round(first).astype(np.int64), 0, room)
    return plan


def random_windows(
    training_set: TrainingSet,
    window: int,
    n: int,
    rng: np.random.Generator,
    dump_factor: np.ndarray | float = 1.0,
    factor: np.ndarray | float = 1.0,
    of_backgrounds: bool = False,
) -> np.ndarray:
    """(n, 2) recording positions and first frames, evenly from all time.

    Of the set's own recordings, or with `of_backgrounds` of those that only lie under windows.
    """
    plan = np.empty((n, 2), dtype=np.int64)
    rows = (
        np.arange(training_set.n_own, len(training_set.recording_ids))
        if of_backgrounds
        else _open_to_all(training_set)
    )
    # Longer recordings hold more windows, so they are drawn more often.
    n_frames = training_set.n_frames[rows]
    plan[:, 0] = rng.choice(rows, size=n, p=n_frames / n_frames.sum())
    room = _room(training_set, plan[:, 0], window, dump_factor, factor)
    plan[:, 1] = rng.integers(0, room + 1)
    return plan


def _open_to_all(training_set: TrainingSet) -> np.ndarray:
    """Recordings of which any window may be drawn, whatever it holds.

    With soft labels, recordings that nobody listened to come by their confidence alone: they may be
    many, and most of them is silence.
    """
    rows = np.arange(training_set.n_own)
    if training_set.soft is None or training_set.unlabelled.all():
        return rows
    return rows[~training_set.unlabelled]


def _draw_rows(
    rows: np.ndarray, labels: np.ndarray, n: int, balanced: bool, rng: np.random.Generator
) -> np.ndarray:
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    if not balanced:
        return rng.choice(rows, size=n)
    by_label = [rows[labels[rows] == label] for label in np.unique(labels[rows])]
    drawn = rng.integers(0, len(by_label), size=n)
    return np.array([rng.choice(by_label[label]) for label in drawn], dtype=np.int64)


def _spread(
    kinds: np.ndarray,
    rows_of: list[np.ndarray],
    training_set: TrainingSet,
    config: Config,
    rng: np.random.Generator,
) -> np.ndarray:
    """One event for each window of a true row, so that classes come equally often in every batch.

    Each window takes, of the classes that its kind has, one that the batch has least of; among
    those one that the epoch has least of; among those any. (n_windows,) rows, -1 for other kinds.
    """
    labels = training_set.event_label
    by_label = [
        {int(label): rows[labels[rows] == label] for label in np.unique(labels[rows])}
        for rows in rows_of[:2]
    ]
    known = [np.array(list(of_kind), dtype=np.int64) for of_kind in by_label]
    n_labels = int(labels.max()) + 1 if len(labels) else 0
    in_epoch, in_batch = np.zeros(n_labels), np.zeros(n_labels)
    chance = rng.random((len(kinds), n_labels))
    rows = np.full(len(kinds), -1, dtype=np.int64)
    for begin in range(0, len(kinds), config.train.batch_size):
        in_batch[:] = 0
        batch = begin + np.flatnonzero(kinds[begin : begin + config.train.batch_size] < 2)
        # The kind with fewer classes goes first, so that the other can even out what it must leave.
        for position in sorted(batch, key=lambda place: len(known[kinds[place]])):
            kind = kinds[position]
            open_to = known[kind]
            rank = np.lexsort((chance[position, open_to], in_epoch[open_to], in_batch[open_to]))
            label = open_to[rank[0]]
            in_batch[label] += 1
            in_epoch[label] += 1
            rows[position] = rng.choice(by_label[kind][int(label)])
    return rows


def place_windows(
    training_set: TrainingSet,
    rows: np.ndarray,
    window: int,
    config: Config,
    rng: np.random.Generator,
    dump_factor: np.ndarray | float = 1.0,
    factor: np.ndarray | float = 1.0,
) -> np.ndarray:
    """First frames of windows drawn evenly from all those that show enough of the event."""
    onset, offset = (
        training_set.event_onset[rows] * dump_factor,
        training_set.event_offset[rows] * dump_factor,
    )
    # The rule speaks of what the network sees; placing is done in the time of the dump.
    needed = needed_s((offset - onset) * factor, config.window) / factor
    # A window from frame s on shows [s, s + window) frames, which begin where frame 0 does.
    front_end = front_end_of(config)
    hop_s, early_s = front_end.hop_s, -front_end.start_s
    earliest = np.ceil((onset + needed + early_s) / hop_s - window / factor - 1e-6)
    latest = np.floor((offset - needed + early_s) / hop_s + 1e-6)
    start = rng.integers(
        earliest.astype(np.int64), np.maximum(latest, earliest).astype(np.int64) + 1
    )
    room = _room(training_set, training_set.event_recording[rows], window, dump_factor, factor)
    return np.clip(start, 0, room)


def _room(
    training_set: TrainingSet,
    rows: np.ndarray,
    window: int,
    dump_factor: np.ndarray | float,
    factor: np.ndarray | float,
) -> np.ndarray:
    """Last first frame of a window inside its recording."""
    shown = np.ceil(window / np.asarray(factor)).astype(np.int64)
    return np.maximum(0, training_set.frames_at(rows, dump_factor) - shown)
