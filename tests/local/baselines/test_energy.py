"""The energy detector on sounds whose calls are known to the sample."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from local.baselines.energy import EnergyDetector, EnergyParams, energy_scores
from local.config import load_config
from local.features.front_ends.front_end_registry import front_end_of
from local.features.recording import process_recording
from local.features.store import FeatureStore
from local.io.errors import CanopyError
from local.io.files import write_csv

RATE = 250_000
CALLS = [(0.0, 0.030), (0.5, 0.54), (1.2, 1.215), (2.1, 2.2), (2.46, 2.5)]


def params(**values):
    return EnergyParams(**{"f_min_hz": 3e4, "f_max_hz": 12e4, **values})


def sweep(n, start_hz, end_hz):
    time = np.arange(n) / RATE
    return np.sin(2 * np.pi * (start_hz + (end_hz - start_hz) * time / (2 * n / RATE)) * time)


def recording(level=0.03, seed=0, seconds=2.5, noise=0.01):
    """Noise with sweeps; with level 0.03 over 0.01 they stand some 20 dB above it."""
    rng = np.random.default_rng(seed)
    wave = noise * rng.standard_normal(round(seconds * RATE))
    for onset, offset in CALLS:
        first, last = round(onset * RATE), round(offset * RATE)
        wave[first:last] += level * sweep(last - first, 6e4, 7.5e4)
    return wave.astype(np.float32)


def spans(detector, wave):
    return np.array([[s.onset, s.offset] for s in detector.events(detector.scores(wave))])


def test_calls_are_found_where_they_are_also_at_the_ends():
    """An event at sample 0 and one that reaches the end are events as any other."""
    detector = EnergyDetector(params(), RATE)
    found = spans(detector, recording())
    np.testing.assert_allclose(found, CALLS, atol=0.0025)
    assert found[0, 0] == 0.0
    assert found[-1, 1] == pytest.approx(2.5)


def test_noise_alone_is_silent():
    detector = EnergyDetector(params(), RATE)
    for seed in range(3):
        noise = np.random.default_rng(seed).standard_normal(4 * RATE) * 0.01
        assert detector.events(detector.scores(noise)) == []
    assert detector.events(detector.scores(np.zeros(RATE))) == []


@pytest.mark.parametrize("gain", [0.01, 1.0, 30.0])
def test_level_of_the_recorder_does_not_matter(gain):
    detector = EnergyDetector(params(), RATE)
    scores = detector.scores(gain * recording())
    np.testing.assert_allclose(scores, detector.scores(recording()), atol=0.05)


def test_the_floor_follows_the_noise():
    """Noise that is a hundred times stronger in one half is not a call, frequency by frequency."""
    rng = np.random.default_rng(0)
    wave = 0.001 * rng.standard_normal(12 * RATE)
    wave[6 * RATE :] *= 10
    hum = 0.02 * np.sin(2 * np.pi * 50_000 / RATE * np.arange(len(wave)))
    detector = EnergyDetector(params(floor_s=0.5), RATE)
    found = detector.events(detector.scores((wave + hum).astype(np.float32)))
    # Around the step the quantile still hears the quieter side.
    assert all(abs(span.onset - 6) < 1.1 for span in found)


def test_clicks_are_flat_and_calls_are_not():
    wave = 0.01 * np.random.default_rng(1).standard_normal(2 * RATE)
    burst = slice(RATE, RATE + RATE // 50)
    wave[burst] *= 20
    gated, open_gate = (EnergyDetector(params(max_flatness_db=db), RATE) for db in (-4.0, 0.0))
    assert spans(gated, wave).size == 0
    np.testing.assert_allclose(spans(open_gate, wave), [[1.0, 1.02]], atol=0.003)


def test_hysteresis_keeps_a_call_together():
    """A call that fades below the upper threshold goes on until it passes the lower one."""
    wave = 0.01 * np.random.default_rng(2).standard_normal(RATE)
    fade = np.geomspace(0.1, 0.004, 25_000)
    wave[100_000:125_000] += fade * np.sin(2 * np.pi * 0.3 * np.arange(25_000))
    high = spans(EnergyDetector(params(on_db=20, off_db=20, max_gap_s=0), RATE), wave)
    both = spans(EnergyDetector(params(on_db=20, off_db=8, max_gap_s=0), RATE), wave)
    assert len(both) == 1
    assert both[0, 1] > high[:, 1].max() + 0.01


@pytest.mark.parametrize("length", [999, 30_001, 10**7])
def test_blocks_do_not_matter(length):
    detector = EnergyDetector(params(floor_s=0.3, smooth_s=0.004), RATE)
    wave = recording()[: 2 * RATE + 77]
    blocks = [wave[start : start + length] for start in range(0, len(wave), length)]
    streamed = np.concatenate(list(detector.stream(blocks)))
    assert len(streamed) == 2000
    np.testing.assert_array_equal(streamed, detector.scores(wave))


@pytest.mark.parametrize("n", [1, 100, 249, 250, 251, 499, 1000])
def test_short_recordings(n):
    scores = EnergyDetector(params(), RATE).scores(np.full(n, 0.1, dtype=np.float32))
    assert len(scores) == max(1, n // 250)
    assert np.isfinite(scores).all()


def test_level_is_decibels_above_the_noise():
    """A tone that fills a sub-band of its own width has the level that arithmetic gives it."""
    n = RATE
    tone_at = 0.05 * np.sin(2 * np.pi * 80_000 / RATE * np.arange(n))
    wave = 0.01 * np.random.default_rng(3).standard_normal(n)
    wave[n // 2 : n // 2 + n // 10] += tone_at[: n // 10]
    detector = EnergyDetector(params(width_hz=500.0), RATE)
    taper = np.hanning(502)[1:-1]
    tone = (0.05 / 2 * taper.sum()) ** 2
    noise = 0.01**2 * (taper**2).sum()
    expected = 10 * np.log10(tone / noise + 1)
    found = np.median(detector.scores(wave)[510:590])
    assert found == pytest.approx(expected, abs=0.5)


def test_logits_are_zero_at_the_threshold():
    detector = EnergyDetector(params(on_db=7.0), RATE)
    np.testing.assert_allclose(detector.logits(np.array([7.0, 17.0])), [0, np.log(10)], rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"f_max_hz": 130e3}, "band 30000 to 130000 Hz .* reach up to 125000 Hz"),
        ({"f_min_hz": 119_900.0}, "has [012] frequencies"),
    ],
)
def test_bands_that_the_rate_cannot_give(values, message):
    with pytest.raises(CanopyError, match=message):
        EnergyDetector(params(**values), RATE)


def test_scores_of_a_dump_are_those_of_the_recording(tmp_path):
    config_path = tmp_path / "conf.yaml"
    config_path.write_text(
        f"audio: {{sample_rate: {RATE}}}\nfeatures: {{kind: wave}}\nmodel: {{name: denet}}\n"
    )
    config = load_config(config_path)
    soundfile.write(tmp_path / "a.wav", recording(), RATE, subtype="PCM_16")
    folder = tmp_path / "dump"
    folder.mkdir()
    result = process_recording(tmp_path / "a.wav", folder / "a.npz", front_end_of(config))
    import pandas as pd

    row = {"recording_id": "a", "file": "a.npz", "n_frames": result["n_frames"]}
    row |= {"duration": result["duration"], "status": "ok", "reason": ""}
    write_csv(folder / "manifest.csv", pd.DataFrame([row]))
    scores = energy_scores(FeatureStore(folder, config), ["a"], "call", params())
    assert scores.hop_s == pytest.approx(0.001)
    detector = EnergyDetector(params(), RATE)
    stored = soundfile.read(tmp_path / "a.wav", dtype="float32")[0]
    np.testing.assert_array_equal(scores.frames[0][0], detector.logits(detector.scores(stored)))
    assert scores.window[0, 0] == scores.frames[0].max()


# --------------------------------------------------------------------- recordings of mice, if there


def _true_positives(true, found, iou):
    shared = np.minimum(true[:, None, 1], found[:, 1]) - np.maximum(true[:, None, 0], found[:, 0])
    union = np.maximum(true[:, None, 1], found[:, 1]) - np.minimum(true[:, None, 0], found[:, 0])
    fits = shared > 0 if iou is None else np.maximum(shared, 0) / union > iou
    return int((maximum_bipartite_matching(csr_matrix(fits)) >= 0).sum())


def test_mouse_calls_with_one_setting_for_all():
    folder = Path(__file__).parents[4] / "shared" / "data" / "usv"
    if not (folder / "rec_1.wav").exists():
        pytest.skip("the recordings of mouse calls are not beside the repository")
    detector = EnergyDetector(params(), RATE)
    counts = np.zeros(4)
    for number in range(1, 5):
        wave, rate = soundfile.read(folder / f"rec_{number}.wav", dtype="float32")
        assert rate == RATE
        true = np.loadtxt(folder / f"gt_{number}.csv", delimiter=",", ndmin=2)
        found = spans(detector, wave)
        counts += [
            _true_positives(true, found, None),
            _true_positives(true, found, 0.5),
            len(found),
            len(true),
        ]
    f1 = 2 * counts[:2] / counts[2:].sum()
    assert f1[0] > 0.951
    assert f1[1] > 0.880
