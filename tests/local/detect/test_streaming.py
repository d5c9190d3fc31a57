"""Detection of one recording: streamed as in one pass, in bounded memory, by either engine."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from local.config import Config
from local.detect import streaming
from local.detect.detectors import Request, load
from local.detect.sound import OpenSound
from local.detect.streaming import FrameStream, ScoresError, find_events, score_stream
from local.features.audio import load_audio
from local.features.front_ends.logmel_torch import LogMel
from local.features.silence import SilenceFinder
from local.inference.score_recordings import score_recordings
from local.inference.scores import average_scores
from local.inference.sliding import Chunk
from local.labels.grid import FrameGrid
from local.labels.spans import SpanRule, frames_to_events

RULE = SpanRule(0.5, -0.5, 0.2, 0.3)


def detector(folder, engine="onnx", **options):
    return load(Request([folder], engine=engine, **options))


def logits(found, path, **options):
    """(C, n) logits and what was found."""
    pieces = []
    result = find_events(found, path, [RULE] * 3, None, lambda _, x: pieces.append(x), **options)
    return np.concatenate(pieces, axis=1), result


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "torch"])
@pytest.mark.parametrize("n_samples", [1, 63, 1600, 1601, 1650, 7777, 30_011])
def test_blocks_of_any_length_change_no_bit(
    published, toy_sound, tmp_path, monkeypatch, engine, n_samples
):
    monkeypatch.setattr(streaming, "_JOINED_FRAMES", 7)
    path = tmp_path / "x.wav"
    sound = toy_sound.make(40)
    sound[3_000:5_017] = sound[20_000:20_300] = 0.0
    soundfile.write(path, sound[:n_samples], toy_sound.rate, subtype="FLOAT")
    found = detector(published, engine)
    whole, spans = logits(found, path, block_s=1000.0)
    for block_s in (0.001 if n_samples < 2000 else 0.05, 0.333, 1.7):
        again, spans_again = logits(found, path, block_s=block_s)
        np.testing.assert_array_equal(again, whole)
        assert vars(spans_again).keys() == vars(spans).keys()
        assert (spans_again.onset, spans_again.score) == (spans.onset, spans.score)


TTA = {"shifts_s": [0.0, 0.35], "speeds": [0.9, 1.0, 1.2], "flip": True, "lengths_s": [0.8]}


@pytest.mark.slow
@pytest.mark.parametrize("tta", [{}, TTA, {"gains_db": [-6.0, 0.0]}])
@pytest.mark.parametrize("stitch", ["max", "mean"])
def test_a_stream_scores_as_stage_3_does(publish_toy, toy_sound, sound_dump, tmp_path, tta, stitch):
    """The same bits from a file that streams as from the feature files, for all views."""
    inference = {"window_frames": 32, "overlap_frames": 13, "batch_size": 3, "stitch": stitch}
    folder = publish_toy(tmp_path / "m", with_onnx=False, inference={**inference, "tta": tta})
    found = detector(folder, "torch")
    wave = toy_sound.make(23.21, seed=3)
    wave[9_000:12_345] = 0.0
    dump = sound_dump({"r": wave, "still": np.full(5_000, -0.1)}, found.config)
    path = tmp_path / "sound" / "r.wav"
    streamed, _ = logits(found, path, block_s=0.77)
    parts = [
        score_recordings(scorer._model, dump, ["r", "still"], toy_sound.labels, "cpu")
        for scorer in found.engine.scorers
    ]
    mean = average_scores(parts)
    assert max(mean.frames[1].max(), mean.window[1].max()) < -30
    np.testing.assert_array_equal(streamed.astype(np.float32), mean.frames[0].astype(np.float32))


def test_engines_agree(published, toy_sound, tmp_path):
    path = tmp_path / "x.flac"
    soundfile.write(path, toy_sound.make(31.3), toy_sound.rate)
    a, found = logits(detector(published, "onnx"), path)
    b, other = logits(detector(published, "torch"), path)
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)
    assert found.label == other.label
    assert found.onset == other.onset
    assert len(found.onset) > 3


def test_one_pass_by_hand(publish_toy, toy_sound, tmp_path):
    """Whole log-mel, one window after the other, maximum over windows: stated without the room."""
    folder = publish_toy(tmp_path / "m", n_networks=1, with_onnx=False)
    found = detector(folder, "torch")
    path = tmp_path / "x.wav"
    soundfile.write(path, toy_sound.make(9.0), 4000)
    config = Config.model_validate(found.config.model_dump())
    wave = torch.from_numpy(load_audio(path, config.audio))
    features = LogMel(config.features, 1000)(wave)
    n = features.shape[1]
    starts = [*range(0, n - 32, 19), n - 32]
    expected = np.full((3, round(n / 2 + 1e-9)), -np.inf)
    model = found.engine.scorers[0]._model
    for start in starts:
        with torch.no_grad():
            out = model(features[None, None, :, start : start + 32]).frame_logit[0].numpy()
        first = (start + 1) // 2
        piece = out[:, : expected.shape[1] - first]
        here = expected[:, first : first + 16]
        np.maximum(here, piece, out=here)
    streamed, result = logits(found, path)
    np.testing.assert_allclose(streamed, expected, rtol=0, atol=2e-5)
    grid = FrameGrid(expected.shape[1], 0.1, -0.025)
    for label in range(3):
        spans = frames_to_events(streamed[label], grid, 0.5, -0.5, 0.2, 0.3)
        mine = [i for i, one in enumerate(result.label) if one == label]
        assert [result.onset[i] for i in mine] == [span.onset for span in spans]
        assert result.highest[label] == streamed[label].max()


def test_a_short_recording_is_padded(published, toy_sound, tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, toy_sound.make(0.3), toy_sound.rate)
    whole, result = logits(detector(published), path)
    assert whole.shape == (3, 4)  # 7 frames of 50 ms, cells of two
    assert all(offset <= 0.3 for offset in result.offset)


def test_stretched_views_read_the_file_twice(publish_toy, toy_sound, sound_dump, tmp_path):
    features = {**{"n_fft": 128, "hop_length": 50, "n_mels": 16, "f_min_hz": 0.0}}
    features |= {"dtype": "float32", "stretches": [1.25]}
    inference = {"window_frames": 32, "overlap_frames": 13, "tta": {"stretches": [1.25]}}
    folder = publish_toy(tmp_path / "m", 1, False, features=features, inference=inference)
    found = detector(folder, "torch")
    dump = sound_dump({"r": toy_sound.make(12.0)}, found.config)
    streamed, _ = logits(found, tmp_path / "sound" / "r.wav")
    model = found.engine.scorers[0]._model
    expected = score_recordings(model, dump, ["r"], toy_sound.labels, "cpu").frames[0]
    np.testing.assert_array_equal(streamed.astype(np.float32), expected)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(published, toy_sound):
    found = detector(published)

    def peak(minutes):
        def blocks():
            for minute in range(minutes):
                yield toy_sound.make(60, seed=minute % 3)

        tracemalloc.start()
        silence = SilenceFinder(toy_sound.rate)
        opened = OpenSound(60.0 * minutes, silence.pass_on(blocks()), silence)
        n = sum(chunk.frames.shape[1] for chunk in score_stream(found, lambda: opened))
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert n == minutes * 600 + 1
        return peak_bytes

    peak(2)
    assert peak(30) < 1.3 * peak(6)


@pytest.mark.parametrize("engine", ["onnx", "torch"])
@pytest.mark.parametrize(("level", "rate"), [(0.0, 1000), (0.25, 1000), (0.3, 1378), (0.5, 1500)])
def test_nothing_is_detected_where_no_sample_moves(
    published, toy_sound, tmp_path, engine, level, rate
):
    """A network may say anything of a constant input: it was reported as a call all along.

    That of another rate than the model's is constant no more once it is resampled.
    """
    still = np.full(8 * rate, level, np.float32)
    sound = toy_sound.make(8, seed=1, rate=rate)
    found = detector(published, engine)
    always = SpanRule(-30.0)

    def spans(wave):
        path = tmp_path / "x.wav"
        soundfile.write(path, wave, rate, subtype="FLOAT")
        return find_events(found, path, [always] * 3)

    nothing = spans(still)
    assert nothing.onset == []
    assert nothing.silent_s == pytest.approx(8.0, abs=0.2)
    assert nothing.highest.max() < -30
    assert spans(sound).silent_s == 0
    mixed = spans(np.concatenate([still, sound, still, sound]))
    assert mixed.silent_s == pytest.approx(16.0, abs=0.4)
    onset, offset = (np.array(part) for part in (mixed.onset, mixed.offset))
    assert len(onset) == 6  # of each class both stretches of sound
    bounds = np.where(onset[:, None] < 16, (8.0, 16.0), (24.0, 32.0))
    np.testing.assert_allclose(np.stack([onset, offset], axis=1), bounds, atol=0.21)


def test_scores_that_are_no_numbers_are_refused(published, toy_sound, tmp_path, monkeypatch):
    path = tmp_path / "x.wav"
    soundfile.write(path, toy_sound.make(4, seed=1), toy_sound.rate, subtype="FLOAT")
    broken = Chunk(0, np.full((3, 7), np.nan), np.zeros(3))
    monkeypatch.setattr(streaming, "score_stream", lambda *_: iter([broken]))
    with pytest.raises(ScoresError, match=r"x\.wav: its scores are NaN"):
        find_events(detector(published, "onnx"), path, [SpanRule(0.0)] * 3)


def test_frames_are_held_only_as_long_as_somebody_may_ask(monkeypatch):
    monkeypatch.setattr(streaming, "_JOINED_FRAMES", 10)
    pieces = iter([np.arange(i, i + 5, dtype=np.float32)[None] for i in range(0, 1000, 5)])
    stream = FrameStream(pieces, [0, 1])
    stream.reach(95)
    np.testing.assert_array_equal(stream.read(3, 8)[0], [3, 4, 5, 6, 7])
    stream.release(0, 80)
    np.testing.assert_array_equal(stream.read(3, 8)[0], [3, 4, 5, 6, 7])
    stream.release(1, 70)
    assert len(stream._held) < 50
    with pytest.raises(ValueError, match="not held"):
        stream.read(3, 8)
    stream.reach(10_000)
    assert (stream.n_known, stream.ended) == (1000, True)


@pytest.mark.slow
def test_detection_by_onnx_runtime_imports_no_pytorch(published):
    code = (
        "import sys; from pathlib import Path; import local.detect.job, local.stages.starting; "
        "from local.detect.detectors import Request, load; load(Request([Path(sys.argv[1])])); "
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(published)]
    root = Path(__file__).resolve().parents[3]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert result.stdout.strip() == "False"


def test_threads_of_a_session_rest_between_its_runs(published):
    engine = detector(published, n_threads=2).engine
    for scorer in engine.scorers:
        options = scorer._session.get_session_options()
        assert options.get_session_config_entry("session.force_spinning_stop") == "1"
        assert options.intra_op_num_threads == 2
