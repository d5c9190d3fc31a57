"""bin/plot.py as a user runs it: files of the asked size, and what is in them."""

import numpy as np
import pytest
import soundfile
from PIL import Image

from local.report.plots.recording_figure import RecordingPicture, decibels
from local.scoring.metrics.average_precision import ranked_curve
from tests.scripts import caller, fault_of

RATE = 16000


@pytest.fixture
def plot(capsys):
    return caller("plot", capsys)


@pytest.fixture
def folder(tmp_path):
    time = np.arange(4 * RATE) / RATE
    sound = 0.3 * np.sin(2 * np.pi * 3000 * time) * ((time > 1) & (time < 2))
    sound += np.random.default_rng(0).normal(0, 0.003, len(time))
    soundfile.write(tmp_path / "x.wav", sound, RATE)
    (tmp_path / "recordings.csv").write_text(
        "recording_id,path,duration\nx,x.wav,4\ny,y.wav,4\n", encoding="utf-8"
    )
    (tmp_path / "true.csv").write_text(
        "recording_id,label,onset,offset,low_freq,high_freq\nx,frog,1,2,2500,3500\n",
        encoding="utf-8",
    )
    (tmp_path / "found.csv").write_text(
        "recording_id,label,onset,offset,score\nx,frog,1.1,2,0.9\nx,owl,3,3.5,0.2\ny,frog,1,2,0.4\n",
        encoding="utf-8",
    )
    (tmp_path / "classes.csv").write_text("label\nfrog\nowl\n", encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_recording_has_the_asked_size_and_its_words(plot, folder):
    options = ["--true", folder / "true.csv", "--detected", folder / "found.csv"]
    size = ["--width-cm", 12, "--height-cm", 8, "--dpi", 127]
    ran = plot("recording", folder / "x.wav", *options, *size, "--out", folder / "fig.v1")
    assert ran.code == 0
    with Image.open(folder / "fig.v1.png") as picture:
        assert picture.size == pytest.approx((600, 400), abs=1)
    svg = (folder / "fig.v1.svg").read_text(encoding="utf-8")
    for word in ("frog", "true", "detected", "time (s)", "frequency (kHz)", "level (dB)"):
        assert f">{word}<" in svg
    # Its only detection scores below the threshold.
    assert ">owl<" not in svg


def test_a_part_by_id_without_spectrogram(plot, folder):
    options = ["--recordings", folder / "recordings.csv", "--datadir", folder]
    more = ["--true", folder / "true.csv", "--start", 0.5, "--end", 2.5]
    more += ["--no-spectrogram", "--format", "svg", "--out", folder / "part"]
    assert plot("recording", "x", *options, *more).code == 0
    assert "frequency" not in (folder / "part.svg").read_text(encoding="utf-8")
    assert not (folder / "part.png").exists()


def test_the_spectrogram_peaks_where_the_sound_is(folder):
    audio, rate = soundfile.read(folder / "x.wav")
    picture = RecordingPicture(audio, rate, 0.0, 4.0, [])
    level, times, frequencies = decibels(picture)
    row, column = np.unravel_index(level.argmax(), level.shape)
    assert frequencies[row] <= 3000 <= frequencies[row + 1]
    assert 0.9 < times[column] < 2.1
    assert level.max() == 0
    loud = level[row] > -10
    assert times[:-1][loud].min() == pytest.approx(1, abs=0.03)
    assert times[1:][loud].max() == pytest.approx(2, abs=0.03)


@pytest.mark.parametrize("kind", ["pr", "alarms", "psds", "pr collar"])
def test_curves_of_systems(plot, folder, kind):
    kind, *level = kind.split()
    if kind == "psds" or level:
        pytest.importorskip("sed_scores_eval", reason="needs `make setup-eval`")
    tables = [f"--{name}={folder}/{name}.csv" for name in ("recordings", "classes")]
    systems = ["--system", f"one={folder}/found.csv", "--system", f"two={folder}/found.csv"]
    out = ["--out", folder / kind, *(f"--level={each}" for each in level)]
    assert plot(kind, *systems, f"--truth={folder}/true.csv", *tables, *out).code == 0
    svg = (folder / f"{kind}.svg").read_text(encoding="utf-8")
    assert ">one" in svg
    assert ">two" in svg
    assert (">precision<" if kind == "pr" else ">false alarms per hour<") in svg


def test_curve_takes_equal_scores_together():
    score, right = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    curve = ranked_curve(score, right, 4)
    assert curve.threshold.tolist() == [0.9, 0.5, 0.1]
    assert curve.recall.tolist() == [0.25, 0.5, 0.5]
    assert curve.precision == pytest.approx([1, 2 / 3, 0.5])
    assert curve.wrong.tolist() == [0, 1, 2]
    assert len(ranked_curve(np.zeros(0), np.zeros(0, bool), 3).recall) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["recording", "none.wav"], "none.wav: no such sound file"),
        (["recording", "{}/true.csv"], "not readable as sound"),
        (["recording", "{}/x.wav", "--start", "9"], "hold nothing of its 4.00 s"),
        (["recording", "{}/x.wav", "--dpi", "5"], "--dpi is 5"),
        (["recording", "{}/x.wav", "--f-max", "9000"], "--f-max is 9000"),
        (["recording", "{}/x.wav", "--label", "q"], "--label q"),
        (["recording", "q", "--recordings", "{}/recordings.csv"], "no recording q"),
        (["pr", "--system", "a={}/true.csv", "--truth", "{}/true.csv"], "have no scores, so"),
    ],
)
def test_faults_are_one_line(plot, folder, options, message):
    options = [option.format(folder) for option in options]
    assert message in fault_of(plot(*options, "--out", folder / "fig"))


@pytest.mark.slow
def test_a_picture_that_is_there_is_kept(plot, folder):
    options = ["recording", folder / "x.wav", "--out", folder / "fig", "--format", "svg"]
    assert plot(*options).code == 0
    assert "is there already" in fault_of(plot(*options))
    before = (folder / "fig.svg").read_bytes()
    assert plot(*options, "--force").code == 0
    assert (folder / "fig.svg").read_bytes() == before
