"""Every fault planted in a corpus is listed, at its place and no other; a clean one has none."""

import re

import numpy as np
import pandas as pd
import pytest
import soundfile

from local.data.tables import CLASS_COLUMNS, EVENT_COLUMNS, RECORDING_COLUMNS
from local.io.csv_cells import read_cells
from tests.scripts import caller

RATE = 8000
CONF = """
audio: {sample_rate: 8000}
features: {n_fft: 256, hop_length: 100, n_mels: 16}
split: {n_folds: 2}
window: {length_s: 1.0, short: refuse}
"""


def noise(seed: int, seconds: float = 2.0, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (round(seconds * RATE), channels))


@pytest.fixture
def corpus(tmp_path, capsys):
    """Six clean recordings in three groups; `call()`: exit code, findings, what is shown."""
    data, tables = tmp_path / "data", tmp_path / "dump" / "tables"
    data.mkdir()
    tables.mkdir(parents=True)
    recordings, events = [], []
    for number in range(6):
        name = f"r{number}"
        soundfile.write(data / f"{name}.wav", noise(number), RATE, subtype="PCM_16")
        recordings.append((name, f"{name}.wav", "train", 2.0, RATE, 1, f"g{number // 2}"))
        for label, onset in (("a", 0.2), ("b", 1.1)):
            events.append((name, label, onset, onset + 0.5, 300, 900, 1, 1, "tp"))
    (tmp_path / "v.yaml").write_text(CONF)

    def call(*more):
        frames = {
            "recordings": pd.DataFrame(call.recordings, columns=RECORDING_COLUMNS),
            "events": pd.DataFrame(call.events, columns=EVENT_COLUMNS),
            "classes": pd.DataFrame(call.classes, columns=CLASS_COLUMNS),
        }
        for table, frame in frames.items():
            frame.to_csv(tables / f"{table}.csv", index=False)
        options = ["--recipe", "rfcx", "--conf", str(tmp_path / "v.yaml"), "--nj", "1"]
        for option in ("data", "dump", "exp"):
            options += [f"--{option}dir", str(tmp_path / option)]
        options += ["--out", str(tmp_path / "faults.csv"), *more]
        ran = caller("validate", capsys)(*options)
        rows, _ = read_cells(tmp_path / "faults.csv")
        found = {
            (row.fault, row.severity, row.where.rpartition("/")[2]) for row in rows.itertuples()
        }
        assert len(found) == len(rows)
        return ran.code, found, ran.out

    call.recordings, call.events, call.data, call.exp = recordings, events, data, tmp_path / "exp"
    call.classes = [("a", "A", 300, 900), ("b", "B", "", "")]
    return call


def test_a_clean_corpus_has_no_fault(corpus):
    code, found, shown = corpus()
    assert (code, found) == (0, set())
    assert shown == "6 recordings: 0 errors, 0 warnings\n"


def sound(samples: np.ndarray, subtype: str = "FLOAT", rate: int = RATE, name: str = "r0"):
    return lambda corpus: soundfile.write(
        corpus.data / f"{name}.wav", samples, rate, subtype=subtype
    )


def content(new):
    """`new`, or what it makes of the file's bytes, in its place."""

    def spoil(corpus):
        path = corpus.data / "r0.wav"
        path.write_bytes(new(path.read_bytes()) if callable(new) else new)

    return spoil


def with_nan() -> np.ndarray:
    samples = noise(0)
    samples[100] = np.nan
    return samples


SILENT, CUT = sound(np.zeros((2 * RATE, 1))), content(lambda whole: whole[:9000])
ONE_DEAD = noise(0, channels=2) * [1, 0]


def copy_between_groups(corpus):
    # Another container, the same sound.
    samples, _ = soundfile.read(corpus.data / "r0.wav")
    (corpus.data / "r4.wav").unlink()
    soundfile.write(corpus.data / "r4.flac", samples, RATE)
    corpus.recordings[4] = ("r4", "r4.flac", *corpus.recordings[4][2:])


def copy_within_a_group(corpus):
    (corpus.data / "r1.wav").write_bytes((corpus.data / "r0.wav").read_bytes())


def change(table: str, row: int, **values):
    columns = {"recordings": RECORDING_COLUMNS, "events": EVENT_COLUMNS, "classes": CLASS_COLUMNS}

    def spoil(corpus):
        rows = getattr(corpus, table)
        rows[row] = tuple(
            values.get(key, old) for key, old in zip(columns[table], rows[row], strict=True)
        )

    return spoil


def add_event(**values):
    def spoil(corpus):
        corpus.events.append(corpus.events[0])
        change("events", -1, **values)(corpus)

    return spoil


def in_test_too(corpus):
    sound(noise(77), "PCM_16", name="t")(corpus)
    corpus.recordings.append(("t", "t.wav", "test", 2.0, RATE, 1, "g0"))


def torn_fold(corpus):
    path = corpus.exp / "v" / "folds.csv"
    path.parent.mkdir(parents=True)
    rows = "".join(f"r{number},{int(number != 0)}\n" for number in range(6))
    path.write_text("recording_id,fold\n" + rows)


def in_test_beside_folds(corpus):
    """A recording of test, which is in no fold, is no second fold of its group."""
    in_test_too(corpus)
    torn_fold(corpus)
    path = corpus.exp / "v" / "folds.csv"
    path.write_text("recording_id,fold\n" + "".join(f"r{n},{n % 3 % 2}\n" for n in (0, 3)))


ERROR, WARNING = "error", "warning"
PLANTED = [
    (sound(with_nan()), {("non-finite", ERROR, "r0.wav")}),
    (SILENT, {("silent", WARNING, "r0.wav")}),
    (sound(np.full((2 * RATE, 1), 0.25)), {("constant", WARNING, "r0.wav")}),
    (
        sound(np.clip(noise(0) * 20, -1, 32767 / 32768), "PCM_16"),
        {("clipped", WARNING, "r0.wav")},
    ),
    (sound(noise(0) * 20), {("over full scale", WARNING, "r0.wav")}),
    (sound(noise(0) + 0.2), {("offset", WARNING, "r0.wav")}),
    (
        sound(ONE_DEAD),
        {("dead channel", WARNING, "r0.wav"), ("channels differ", ERROR, "r0.wav")},
    ),
    (
        sound(noise(0)[:8000], rate=4000),
        {("rate differs", ERROR, "r0.wav"), ("rate not as set", WARNING, "r0.wav")},
    ),
    (
        sound(noise(0, 0.75)),
        {
            ("duration differs", ERROR, "r0.wav"),
            ("too short", ERROR, "r0.wav"),
            ("event after the sound", ERROR, "events.csv line 3"),
        },
    ),
    (CUT, {("truncated", ERROR, "r0.wav")}),
    (content(b""), {("empty", ERROR, "r0.wav")}),
    (lambda corpus: (corpus.data / "r0.wav").unlink(), {("missing", ERROR, "r0.wav")}),
    (content(b"no sound at all" * 100), {("unreadable", ERROR, "r0.wav")}),
    (copy_between_groups, {("copy leaks", ERROR, "r4.flac")}),
    (copy_within_a_group, {("copy", WARNING, "r1.wav")}),
    (in_test_too, {("group leaks", WARNING, "group g0")}),
    (torn_fold, {("group leaks", ERROR, "group g0")}),
    (in_test_beside_folds, {("group leaks", WARNING, "group g0")}),
    (
        change("recordings", 1, recording_id="R0"),
        {
            ("id twice", ERROR, "recordings.csv line 3"),
            ("unknown recording", ERROR, "events.csv line 4"),
            ("unknown recording", ERROR, "events.csv line 5"),
            ("train without events", WARNING, "recordings.csv line 3"),
        },
    ),
    (
        change("recordings", 1, path="r0.wav"),
        {
            ("file twice", ERROR, "recordings.csv line 3"),
            ("copy", WARNING, "r0.wav"),
            ("no row", WARNING, "r1.wav"),
        },
    ),
    (
        change("classes", 1, label="../b"),
        {("unsafe label", ERROR, "classes.csv line 3")}
        | {("unknown label", ERROR, f"events.csv line {line}") for line in range(3, 14, 2)}
        | {("label without events", WARNING, "classes.csv line 3")},
    ),
    (change("events", 0, offset=9.0), {("event outside", ERROR, "events.csv line 2")}),
    (change("events", 0, offset=0.1), {("no time", ERROR, "events.csv line 2")}),
    (change("events", 0, polarity=0), {("polarity", ERROR, "events.csv line 2")}),
    (change("events", 0, high_freq=5000), {("band above Nyquist", WARNING, "events.csv line 2")}),
    (
        change("events", 0, low_freq=4500, high_freq=5000),
        {("band above Nyquist", ERROR, "events.csv line 2")},
    ),
    (add_event(), {("event twice", WARNING, "events.csv line 14")}),
    (
        add_event(polarity=-1, onset=0.6, offset=0.9),
        {("contradiction", WARNING, "events.csv line 14")},
    ),
    # Another band: both can be true.
    (add_event(polarity=-1, low_freq=1000, high_freq=2000), set()),
]


@pytest.mark.slow
@pytest.mark.parametrize(("plant", "expected"), PLANTED)
def test_every_planted_fault_is_listed_and_no_other(corpus, plant, expected):
    plant(corpus)
    code, found, shown = corpus()
    assert found == expected
    n_errors = sum(severity == ERROR for _, severity, _ in expected)
    assert code == int(n_errors > 0)
    assert shown.endswith(f"{n_errors} errors, {len(expected) - n_errors} warnings\n")
    for fault, _, _ in expected:
        assert re.search(rf"^(error|warning)\s+{re.escape(fault)}\s+\d+  \S", shown, re.M)


def test_too_few_groups_for_the_folds(corpus):
    corpus.events[:] = [row for row in corpus.events if row[1] == "a" or row[0] == "r0"]
    code, found, _ = corpus()
    assert (code, found) == (1, {("too few", ERROR, "classes.csv")})


def test_warnings_fail_when_asked(corpus):
    SILENT(corpus)
    assert corpus()[0] == 0
    assert corpus("--strict")[0] == 1


def test_several_processes_find_the_same(corpus):
    sound(with_nan())(corpus)
    cut = corpus.data / "r3.wav"
    cut.write_bytes(cut.read_bytes()[:5000])
    assert corpus("--nj", "2")[1] == corpus("--nj", "1")[1]


def test_tables_that_cannot_be_made_do_not_hide_the_sound(corpus, tmp_path):
    """Before stage 0: the preparation refuses, and the files are listed all the same."""
    CUT(corpus)
    silent_path = corpus.data / "deep" / "er" / "s.flac"
    silent_path.parent.mkdir(parents=True)
    soundfile.write(silent_path, np.zeros(RATE), RATE)
    code, found, _ = corpus("--dumpdir", str(tmp_path / "other"))
    assert code == 1
    assert found == {
        ("preparation", ERROR, "rfcx"),
        ("truncated", ERROR, "r0.wav"),
        ("silent", WARNING, "s.flac"),
    }
    rows, _ = read_cells(tmp_path / "faults.csv")
    assert rows["detail"].str.contains("no such file; complete the data or check").sum() == 1


def test_formulas_in_the_list_are_text(corpus):
    corpus.events.append(("=1+1", *corpus.events[0][1:]))
    corpus.recordings[0] = ("=cmd|' /C calc'!A0", *corpus.recordings[0][1:])
    _, found, _ = corpus()
    assert ("unsafe id", ERROR, "recordings.csv line 2") in found
