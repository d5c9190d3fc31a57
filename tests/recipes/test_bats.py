"""The published files of the bat data, damaged as they are, become tables; so do simulated ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from local.config import load_config
from local.data.folds import write_folds
from local.data.tables import read_tables
from local.inference.scores import Scores
from local.io.errors import CanopyError
from recipes.bats.levels import by_level, folds_of
from recipes.bats.match_annotations import attach, group_syllables
from recipes.bats.prepare import VERSION, main
from recipes.bats.reading import (
    ANNOTATION_COLUMNS,
    BatFile,
    Faults,
    read_bat_annotations,
    read_file_info,
)
from recipes.bats.settings import CONTEXTS, SimulateConfig
from recipes.bats.simulate import RATE, plan, render_file, simulate, syllable
from recipes.bats.voices import by_mixtures, by_network, compared
from tests import golden

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf" / "bats" / "tiny.yaml"
HEADER = "FileID,Treatment ID,File name,File folder,Recording channel,Recording time,Voice sta\n"


def row_of(file_id, *bounds, name=None, treatment=1) -> str:
    name = name or f"12060101{file_id:02d}47196133.WAV"
    cells = [file_id, treatment, name, "files101", 1, "2012-06-01 01:10:47", *bounds]
    return ",".join(map(str, cells)) + "\n"


def annotation(file_id, emitter=215, context=3, start=0, end=10**6, addressee=0) -> str:
    return f"{file_id},{emitter},{addressee},{context},0,0,2,3,{start},{end}\n"


class Folder:
    """A data set by hand: 0.1 s of sound for each usable row."""

    def __init__(self, path: Path) -> None:
        self.data, self.out = path / "data", path / "tables"
        (self.data / "files101").mkdir(parents=True)

    def write(self, info: str, annotations: str, rate: int = RATE) -> None:
        (self.data / "FileInfo.csv").write_text(HEADER + info)
        (self.data / "Annotations.csv").write_text(
            ",".join(ANNOTATION_COLUMNS) + "\n" + annotations
        )
        for line in info.splitlines():
            cells = line.split(",")
            if len(cells) > 3 and cells[2].startswith("12"):
                soundfile.write(self.data / cells[3] / cells[2], np.zeros(rate // 10), rate,
                                format="WAV")  # fmt: skip

    def prepare(self, **settings):
        given = {"noise": "[]", **settings}
        options = [
            word for key, value in given.items() for word in ("--set", f"prepare.{key}={value}")
        ]
        places = ["--datadir", self.data, "--out", self.out, "--conf", CONF]
        assert main([*map(str, places), "--nj", "1", *options]) == 0
        return read_tables(self.out)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_rows_of_any_length_are_read_below_a_damaged_header(tmp_path):
    path = tmp_path / "FileInfo.csv"
    many = [sample for voice in range(47) for sample in (voice * 10, voice * 10 + 5)]
    path.write_text(HEADER + row_of(30, 47553, 95094, 298537, 349426) + row_of(31, *many) + "\n")
    faults = Faults()
    first, second = read_file_info(path, faults)
    assert first.voices == [(47553, 95094), (298537, 349426)]
    assert len(second.voices) == 47
    assert second.voices[0] == (0, 5)
    assert first.session == "120601_1"
    assert not faults.rows


def test_every_bad_row_is_listed_and_decided(tmp_path):
    path = tmp_path / "FileInfo.csv"
    rows = [row_of(1, 10, 20, "", ""), row_of(2, 10, 20, 30), row_of(3, 20, 10), row_of(4)]
    rows += [row_of(5, "1o", 20), "6,1,a.WAV\n", row_of(1, 10, 20), row_of(7, -5, 20)]
    rows += [row_of(8, 10, 50, 40, 60)]
    path.write_text(HEADER + "".join(rows))
    faults = Faults()
    assert [one.file_id for one in read_file_info(path, faults)] == [1, 8]
    found = dict(faults.frame().set_index("line")["fault"])
    assert found == {
        3: "odd number of boundaries",
        4: "end not after start",
        5: "no voices",
        6: "not a whole number",
        7: "fewer than six fields",
        8: "FileID twice",
        9: "starts before the file",
        10: "voices overlap",
    }
    decision = faults.frame().set_index("line")["decision"]
    assert set(decision[[3, 4, 5, 6, 7, 9]]) == {"file left out"}
    assert decision[8] == "row left out"


def test_annotations_without_a_file_are_listed(tmp_path):
    path = tmp_path / "Annotations.csv"
    text = annotation(1) + annotation(9) + annotation(1, start=5, end=5) + "1,2,3\n"
    path.write_text(",".join(ANNOTATION_COLUMNS) + "\n" + text + annotation(1, emitter=-215))
    faults = Faults()
    rows = read_bat_annotations(path, {1}, faults)
    assert rows["emitter"].tolist() == [215, -215]
    assert faults.frame()["line"].tolist() == [3, 4, 5]


def test_attributes_go_by_overlap_and_disagreements_are_noted():
    """The published example: the second voice alone lies in the section that is annotated."""
    file = BatFile(30, "1", "x.WAV", "f", "", [(47553, 95094), (298537, 349426)], 2)
    columns = ["file_id", "emitter", "addressee", "context"]
    columns += ["emitter_pre", "addressee_pre", "emitter_post", "addressee_post", "start", "end"]
    rows = pd.DataFrame([[30, 215, 0, 1, 0, 0, 0, 0, 298537, 607056]], columns=columns)
    (first, second), notes = attach(file, rows, "unlabelled")
    assert first.values["context"] is None
    assert second.values["context"] == 1
    assert [note[3] for note in notes] == ["voice without a row"]
    assert attach(file, rows, "file")[0][0].values["context"] == 1
    more = [[30, 211, 0, 1, 0, 0, 0, 0, 0, 300000], [30, 1, 0, 1, 0, 0, 0, 0, 400000, 500000]]
    rows = pd.concat([rows, pd.DataFrame(more, columns=columns)])
    (first, second), notes = attach(file, rows, "unlabelled")
    assert (first.values["emitter"], second.values["emitter"]) == (211, 215)
    kinds = {note[3]: note[4] for note in notes}
    assert kinds == {"emitter differs": "211 215", "row without a voice": ""}


def test_syllables_group_into_calls_of_one_label():
    spans = [
        (0.0, 0.1, "a"),
        (0.12, 0.2, "a"),
        (0.21, 0.3, "b"),
        (0.205, 0.4, "a"),
        (1.0, 1.1, "a"),
    ]
    apart = group_syllables(spans, 0.0)
    assert len(apart) == 5
    calls = group_syllables(spans, 0.03)
    assert calls == [(0.0, 0.4, "a"), (0.21, 0.3, "b"), (1.0, 1.1, "a")]
    assert group_syllables([(0, 2, "a"), (1, 1.5, "a")], 0.0) == [(0, 2, "a")]


def test_voices_at_both_ends_survive_and_are_cut_at_the_file(folder):
    folder.write(row_of(1, 0, 2500, 20000, 26000) + row_of(2, 30000, 40000), annotation(1))
    tables = folder.prepare()
    assert tables.recordings["recording_id"].tolist() == ["f1"]
    assert tables.events["onset"].tolist() == [0.0, 0.08]
    assert tables.events["offset"].tolist() == [0.01, 0.1]
    bad = pd.read_csv(folder.out / "bad_rows.csv")
    assert set(bad["fault"]) == {"voice ends after the file", "voice begins after the file"}


def test_other_tables_are_another_version(folder):
    info = "".join(row_of(number, 0, 2500, 20000, 26000) for number in range(1, 4))
    folder.write(info, annotation(1) + annotation(2, context=11) + annotation(3, emitter=-211))
    folder.prepare(task="context")
    golden.check("prepare bats", VERSION, golden.tables(folder.out))


def test_another_rate_is_an_error_that_says_both(folder):
    folder.write(row_of(1, 100, 200), annotation(1), rate=8000)
    with pytest.raises(
        CanopyError, match=r"files101.*WAV: sample rate is 8000 Hz, expected 250000"
    ):
        folder.prepare()


def test_tasks_take_files_whose_every_voice_has_a_class(folder):
    info = "".join(row_of(number, 100, 2000) for number in range(1, 7))
    rows = annotation(1) + annotation(2, context=11) + annotation(3, emitter=-215, context=4)
    rows += annotation(4, emitter=0, context=0) + annotation(5, emitter=211)
    folder.write(info, rows)
    assert folder.prepare().labels == ["call"]
    tables = folder.prepare(task="context")
    assert tables.labels == ["Feeding", "Fighting"]
    assert tables.recordings["recording_id"].tolist() == ["f1", "f3", "f5"]
    kept = folder.prepare(task="context", contexts_left_out="[]")
    assert kept.labels == ["Feeding", "Fighting", "General", "Unknown"]
    tables = folder.prepare(task="emitter")
    assert tables.labels == ["bat211", "bat215"]
    assert tables.recordings["recording_id"].tolist() == ["f1", "f2", "f5"]
    with pytest.raises(CanopyError, match="'Fun'"):
        folder.prepare(task="context", contexts_left_out="[Fun]")


def test_fewer_files_on_request_and_folds_by_bat(folder):
    info = "".join(row_of(number, 100, 2000) for number in range(1, 9))
    rows = "".join(annotation(n, emitter=211 if n < 4 else -215) for n in range(1, 8))
    folder.write(info, rows)
    assert len(folder.prepare(max_files=3).recordings) == 3
    assert len(folder.prepare(labelled_only="true").recordings) == 7
    assert len(folder.prepare(max_files_per_class=2).recordings) == 2
    groups = folder.prepare(fold_by="bat").recordings["group"]
    assert groups.tolist() == ["bat211"] * 3 + ["bat215"] * 4 + ["120601_1"]
    with pytest.raises(CanopyError, match="bats are the classes"):
        folder.prepare(fold_by="bat", task="emitter")


def test_absent_files_are_listed_up_to_a_share(folder):
    folder.write(row_of(1, 10, 200) + row_of(2, 10, 200, name="gone.WAV"), annotation(1))
    assert len(folder.prepare().recordings) == 1
    with pytest.raises(CanopyError, match="1 of the 2 chosen files are absent"):
        folder.prepare(max_absent_share=0.1)
    folder.write(row_of(1, 10, 200, name="../../x.WAV"), annotation(1))
    with pytest.raises(CanopyError, match="are absent"):
        folder.prepare()


def test_a_file_that_is_no_sound_is_left_out_and_listed(folder):
    folder.write(row_of(1, 10, 200) + row_of(2, 10, 200), annotation(1))
    (folder.data / "files101" / "120601010247196133.WAV").write_bytes(b"RIFF junk")
    assert folder.prepare().recordings["recording_id"].tolist() == ["f1"]
    bad = pd.read_csv(folder.out / "bad_rows.csv")
    assert bad[["file_id", "fault", "decision"]].to_numpy().tolist() == [
        [2, "file unreadable", "file left out"]
    ]
    with pytest.raises(CanopyError, match="1 of the 2 chosen files are absent or unreadable"):
        folder.prepare(max_absent_share=0.1)


def test_noise_denies_every_class_from_end_to_end(folder):
    folder.write(row_of(1, 10, 200), annotation(1))
    (folder.data / "rain").mkdir()
    soundfile.write(folder.data / "rain" / "a.wav", np.zeros(4000), 8000)
    tables = folder.prepare(noise="[rain]")
    assert tables.recordings["recording_id"].tolist() == ["f1", "noise0_a"]
    row = tables.events.iloc[-1]
    assert (row["polarity"], row["onset"], row["offset"]) == (-1, 0.0, 0.5)
    with pytest.raises(CanopyError, match="no such folder"):
        folder.prepare(noise="[wind]")


@pytest.mark.slow
def test_simulation_is_deterministic_and_hears_what_it_says(tmp_path):
    settings = SimulateConfig(size="tiny", snr_db=(20.0, 20.0), faults=False)
    for name in ("a", "b"):
        assert simulate(settings, tmp_path / name, 1)
    assert not simulate(settings, tmp_path / "a", 1)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 16 + 4 + 3
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
    plans = plan(settings)
    assert plans[0].voices[0][0] == 0
    assert plans[1].voices[-1][1] == plans[1].n_samples
    wave, rate = soundfile.read(tmp_path / "a" / plans[2].folder / plans[2].name)
    assert rate == RATE
    assert len(wave) == plans[2].n_samples


@pytest.mark.parametrize("level", [0.0, 15.0])
def test_a_level_is_that_of_the_lowest_line_over_the_noise_in_its_own_band(tmp_path, level):
    # A rodent has one line, and in these contexts nothing beside it.
    planned = [one for one in plan(SimulateConfig(size="tiny")) if one.context in (3, 6)]
    for one in [replace(one, emitter=301) for one in planned[:3]]:
        wave, loud = (
            rendered(replace(one, snr_db=db), tmp_path / f"{db:g}") for db in (level, 300.0)
        )
        silence = wave[one.voices[0][1] : one.voices[1][0]]
        for start, end in one.voices:
            # The band that the line sweeps, from a version without any noise to speak of.
            power = np.abs(np.fft.rfft(loud[start:end])) ** 2
            share = np.cumsum(power) / power.sum()
            hertz = np.fft.rfftfreq(end - start, 1 / RATE)
            low, high = hertz[np.searchsorted(share, [0.01, 0.99])] + [-1_000, 1_000]
            noise = band_power(silence, low, high)
            ratio = band_power(wave[start:end], low, high) / noise
            # The sum of both, each with the spread of a few hundred random values.
            assert 10 * np.log10(ratio) == pytest.approx(
                10 * np.log10(10 ** (level / 10) + 1), abs=2
            )


def rendered(planned, folder: Path) -> np.ndarray:
    render_file(planned, folder, 0)
    return soundfile.read(folder / planned.folder / planned.name)[0]


def band_power(wave: np.ndarray, low: float, high: float) -> float:
    power = 2 * np.abs(np.fft.rfft(wave)) ** 2 / len(wave) ** 2
    hertz = np.fft.rfftfreq(len(wave), 1 / RATE)
    return float(power[(hertz >= low) & (hertz <= high)].sum())


def test_individuals_and_contexts_sound_different():
    """Mean frequency tells emitters apart, and a rodent whistles above a bat's lowest line."""

    def pitch(emitter, context):
        wave, _ = syllable(emitter, context, 10_000, np.random.default_rng(0))
        power = np.abs(np.fft.rfft(wave)) ** 2
        return np.fft.rfftfreq(len(wave), 1 / RATE)[power.argmax()]

    assert abs(pitch(201, 12) - pitch(202, 12)) > 500
    assert pitch(301, 12) > 40_000 > pitch(201, 12)


@pytest.mark.slow
def test_the_simulated_set_becomes_tables(tmp_path):
    options = ["--datadir", tmp_path / "bats", "--out", tmp_path / "t", "--conf", CONF, "--nj", "1"]
    assert main([str(word) for word in options]) == 0
    tables = read_tables(tmp_path / "t")
    config = load_config(CONF, [])
    calls = tables.events[tables.events["polarity"] > 0]
    assert len(tables.recordings) == 16 + 4
    assert (calls["onset"] == 0).any()
    faults = pd.read_csv(tmp_path / "t" / "bad_rows.csv")
    assert len(faults) == 10
    groups = tables.recordings.loc[
        calls["recording_id"].map(
            dict(zip(tables.recordings["recording_id"], tables.recordings.index, strict=True))
        ),
        "group",
    ]
    assert groups.nunique() >= config.split.n_folds
    assert set(CONTEXTS.values()) >= {"Unknown", "General"}


def test_systems_are_compared_file_by_file_at_each_level():
    levels = {"f1": 2.0, "f2": 3.0, "f3": 18.0}
    rows = [(name, "call", at, at + 0.1) for name in levels for at in (0.1, 0.5)]
    true = pd.DataFrame(rows, columns=["recording_id", "label", "onset", "offset"])
    # One call of f2 is missed, and one of f3 found with a third of its length.
    found = true.drop(index=2)
    found.loc[4, "offset"] = 0.13
    systems = {"all": true, "some": found}
    table = by_level(systems, true.assign(polarity=1), ["call"], levels, 50)
    table = table.set_index(["level", "system"])
    low = table.loc[("-inf to 5 dB", "some")]
    assert (low["files"], low["calls"]) == (2, 4)
    assert low["f1_0"] == pytest.approx(6 / 7, abs=1e-3)
    assert low["f1_0_difference"] == pytest.approx(6 / 7 - 1, abs=1e-3)
    assert low["f1_0_difference_low"] <= low["f1_0_difference"] <= low["f1_0_difference_high"] == 0
    high = table.loc[("15 to inf dB", "some")]
    assert (high["f1_0"], high["f1_0.5"]) == (1.0, 0.5)
    assert (table.xs("all", level="system")["f1_0.5_difference"] == 0).all()


def test_runs_of_other_folds_are_not_compared(tmp_path):
    recordings = pd.DataFrame({"recording_id": ["a", "b"], "group": ["a", "b"]})
    for name, fold in (("x", [0, 1]), ("y", [0, 1]), ("z", [1, 0])):
        write_folds(
            tmp_path / name / "folds.csv",
            pd.DataFrame({"recording_id": ["a", "b"], "fold": fold}),
        )
    assert folds_of([tmp_path / "x", tmp_path / "y"], recordings).tolist() == [0, 1]
    with pytest.raises(CanopyError, match="its folds are not those of"):
        folds_of([tmp_path / "x", tmp_path / "z"], recordings)


def voices_of(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["recording_id", "label", "onset", "offset"])


def test_a_network_says_of_a_voice_what_scores_highest_over_it():
    frames = np.zeros((2, 10), dtype=np.float32)
    frames[0, :4], frames[1, 5:] = 3.0, 2.0
    frames[1, 0] = 9.0  # One loud cell is not the mean of four, nor of a voice elsewhere.
    scores = Scores(["x"], ["Feeding", "Fighting"], [frames], np.zeros((1, 2)), 0.01, 0.0)
    voices = voices_of(("x", "Feeding", 0.01, 0.045), ("x", "Fighting", 0.055, 0.1))
    assert by_network(scores, voices).tolist() == ["Feeding", "Fighting"]


def test_mixtures_are_fitted_on_other_folds(monkeypatch):
    """A file whose sound contradicts all others is misjudged by mixtures that never heard it."""
    rng = np.random.default_rng(0)
    tone = {"a": 0.0, "b": 4.0, "c": 0.0, "d": 4.0, "odd": 4.0}
    label = {"a": "low", "b": "high", "c": "low", "d": "high", "odd": "low"}

    def heard(dump, name, onset, offset):
        return tone[name] + rng.standard_normal((24, 30)) * np.linspace(1, 2, 24)[:, None]

    monkeypatch.setattr("recipes.bats.voices.segment_frames", heard)
    voices = voices_of(*[(name, label[name], 0.0, 0.1) for name in tone])
    said = by_mixtures(None, voices, np.array([0, 0, 1, 1, 2]))
    assert said[-1] == "high"
    assert set(said) == {"low", "high"}


@pytest.mark.slow
def test_classifiers_are_compared_by_class_and_file():
    rows = [(name, label, at, at + 0.1) for name, label in (("x", "p"), ("y", "p"), ("z", "q"))
            for at in (0.0, 0.2)]  # fmt: skip
    voices = voices_of(*rows)
    right = voices["label"].to_numpy(dtype=object)
    blind = np.full(len(voices), "p", dtype=object)
    table = compared({"network": right, "mfcc_gmm": blind}, voices, 100).set_index("system")
    assert table["balanced_accuracy"].tolist() == [1.0, 0.5, 0.5]
    assert table.loc["mfcc_gmm", "less_first"] == -0.5
    assert table.loc["network", "less_first_high"] == 0
    assert (table.loc["mfcc_gmm", "voices"], table.loc["mfcc_gmm", "files"]) == (6, 3)
