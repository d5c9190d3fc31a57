"""Which files are used, what their voices are called, and where their sounds lie."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from local.data.tables import EVENT_COLUMNS
from local.features.audio import SOUND_SUFFIXES, probe
from local.io.errors import CanopyError
from local.io.seeds import generator
from recipes.bats.match_annotations import Voice, group_syllables
from recipes.bats.reading import FILE_INFO, LEFT_OUT, BatFile, Faults
from recipes.bats.settings import CONTEXTS, PrepareConfig
from recipes.mine.folder import find_files as find_sounds

CALL = "call"
# Start and end in samples, label.
Span = tuple[int, int, str]


@dataclass(frozen=True)
class Labelled:
    """A file with its voices; `spans` are samples and label of those that the task names."""

    file: BatFile
    voices: list[Voice]
    spans: tuple[Span, ...] = ()

    @property
    def labels(self) -> set[str]:
        """The labels that it has."""
        return {label for *_, label in self.spans}


def label_of(voice: Voice, settings: PrepareConfig) -> str | None:
    """The class of a voice by the task; None where it has none."""
    if settings.task == "call":
        return CALL
    value = voice.values[settings.task]
    if settings.task == "emitter":
        # Negative: one of two bats. 0: nobody knows.
        return f"bat{value}" if value is not None and value > 0 else None
    name = CONTEXTS.get(value) if value is not None else None
    return None if name in settings.contexts_left_out else name


def label_files(files: list[Labelled], settings: PrepareConfig) -> list[Labelled]:
    """Files all of whose voices have a class, with their spans.

    A file with a voice of unknown class is left out: it is known that something calls there, but
    not what, and neither its presence nor its absence could be taught.
    """
    unknown = set(settings.contexts_left_out) - set(CONTEXTS.values())
    if unknown:
        raise CanopyError(
            f"prepare.contexts_left_out names {min(unknown)!r}, expected some of "
            f"{', '.join(CONTEXTS.values())}"
        )
    named = []
    for one in files:
        labels = [label_of(voice, settings) for voice in one.voices]
        if None in labels:
            continue
        spans = [
            (voice.start, voice.end, str(label))
            for voice, label in zip(one.voices, labels, strict=True)
        ]
        named.append(Labelled(one.file, one.voices, tuple(spans)))
    return named


def choose_files(files: list[Labelled], settings: PrepareConfig) -> list[Labelled]:
    """Sub-sampling, by chance and in the order of the set; rare classes first, then the rest."""
    rng = generator(settings.subsample_seed, "bats files")
    if settings.labelled_only:
        files = [
            one for one in files if any(voice.values["context"] is not None for voice in one.voices)
        ]
    counts = pd.Series([label for one in files for label in one.labels]).value_counts()
    rare = set(counts.index[counts < settings.min_files_per_class])
    files = [one for one in files if not one.labels & rare]
    order = rng.permutation(len(files))
    if settings.max_files_per_class is not None:
        taken: dict[str, int] = {}
        kept = []
        for place in order:
            labels = files[place].labels
            if all(taken.get(label, 0) < settings.max_files_per_class for label in labels):
                kept.append(place)
                taken.update({label: taken.get(label, 0) + 1 for label in labels})
        order = np.array(kept, dtype=np.int64)
    return [files[place] for place in sorted(order[: settings.max_files])]


def find_files(
    files: list[Labelled], datadir: Path, settings: PrepareConfig, faults: Faults
) -> list[tuple[dict[str, object], Labelled]]:
    """Rows of recordings, each with its file, whose voices are cut at its end.

    Raises
    ------
    CanopyError
        A sound of another rate; more absent and unreadable files than `max_absent_share`; none
        at all.
    """
    found = []
    n_absent = 0
    for one in files:
        path = _sound(datadir, one.file)
        if path is None:
            faults.add(FILE_INFO, one.file.line, one.file.file_id, "file absent", LEFT_OUT)
            n_absent += 1
            continue
        try:
            info = probe(path)
        except CanopyError:
            faults.add(FILE_INFO, one.file.line, one.file.file_id, "file unreadable", LEFT_OUT)
            n_absent += 1
            continue
        if info.sample_rate != settings.sample_rate:
            raise CanopyError(
                f"{path}: sample rate is {info.sample_rate} Hz, expected {settings.sample_rate:g}; "
                "the boundaries of FileInfo.csv are samples at that rate, so mend the file"
            )
        kept = _within(one, info.frames, faults)
        if kept is None:
            continue
        row = {
            "recording_id": f"f{one.file.file_id}",
            "path": path.relative_to(datadir).as_posix(),
            "subset": "train",
            "duration": info.duration,
            "sample_rate": info.sample_rate,
            "channels": info.channels,
            "group": _group(one, settings),
        }
        found.append((row, kept))
    if not found or n_absent > settings.max_absent_share * len(files):
        raise CanopyError(
            f"{datadir}: {n_absent} of the {len(files)} chosen files are absent or unreadable; "
            "complete the folders or raise prepare.max_absent_share"
        )
    return found


def _sound(datadir: Path, file: BatFile) -> Path | None:
    path = datadir / file.folder / file.name
    if datadir.resolve() not in path.resolve().parents:
        return None
    places = (path, path.with_suffix(".wav"), path.with_suffix(".WAV"))
    return next((place for place in places if place.is_file()), None)


def _within(one: Labelled, n_samples: int, faults: Faults) -> Labelled | None:
    """The file with voices cut at its end; None where a voice begins after it."""
    beyond = [span for span in one.spans if span[1] > n_samples]
    if not beyond:
        return one
    line, file_id = one.file.line, one.file.file_id
    if any(start >= n_samples for start, _, _ in beyond):
        faults.add(FILE_INFO, line, file_id, "voice begins after the file", LEFT_OUT)
        return None
    faults.add(FILE_INFO, line, file_id, "voice ends after the file", "cut at the end")
    spans = tuple((start, min(end, n_samples), label) for start, end, label in one.spans)
    return Labelled(one.file, one.voices, spans)


def _group(one: Labelled, settings: PrepareConfig) -> str:
    """The session, or the bat that calls first; files of unknown bats go by their session."""
    if settings.fold_by == "session":
        return one.file.session
    if settings.task == "emitter":
        raise CanopyError(
            "prepare.fold_by is bat, but bats are the classes of task emitter; set it to session"
        )
    emitters = [voice.values["emitter"] for voice in one.voices if voice.values["emitter"]]
    return f"bat{abs(emitters[0])}" if emitters else one.file.session


def spans_of(
    found: list[tuple[dict[str, object], Labelled]], settings: PrepareConfig
) -> pd.DataFrame:
    """Rows of events: syllables, or calls where `max_gap_s` groups them."""
    rows = []
    for recording, one in found:
        rate = settings.sample_rate
        seconds = [(start / rate, end / rate, label) for start, end, label in one.spans]
        calls = group_syllables(seconds, settings.max_gap_s)
        rows += [(recording["recording_id"], label, on, off) for on, off, label in calls]
    events = pd.DataFrame(rows, columns=list(EVENT_COLUMNS[:4]))
    return events.assign(low_freq=np.nan, high_freq=np.nan, polarity=1, weight=1.0, source="voice")


def noise_recordings(
    datadir: Path, settings: PrepareConfig, labels: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Recordings without calls, and the rows that say so from their first to their last sample."""
    recordings, rows = [], []
    for folder in settings.noise:
        where = datadir / folder
        sounds = find_sounds(where, ["**/*"], SOUND_SUFFIXES)
        if not sounds:
            raise CanopyError(f"{where}: no recordings; check prepare.noise")
        for path in sounds:
            info = probe(path)
            name = f"noise{len(recordings)}_{path.stem}"
            recordings.append(
                {
                    "recording_id": name,
                    "path": str(path if Path(folder).is_absolute() else path.relative_to(datadir)),
                    "subset": "train",
                    "duration": info.duration,
                    "sample_rate": info.sample_rate,
                    "channels": info.channels,
                    "group": name,
                }
            )
            rows += [(name, label, 0.0, info.duration) for label in labels]
    events = pd.DataFrame(rows, columns=list(EVENT_COLUMNS[:4]))
    events = events.assign(
        low_freq=np.nan, high_freq=np.nan, polarity=-1, weight=1.0, source="noise"
    )
    return pd.DataFrame(recordings), events
