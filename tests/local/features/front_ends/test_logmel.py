import warnings

import librosa
import numpy as np
import pytest
import torch

from local.config import AudioConfig, FeatureConfig
from local.features.band_statistics import RunningStats
from local.features.front_ends.logmel import LogMelFrontEnd
from local.features.front_ends.logmel_onnx import best_factor
from local.features.front_ends.logmel_torch import LogMel, stream_features
from local.features.mel import check_filters, mel_edges, mel_filters
from local.io.errors import CanopyError

FLOOR = 1e-10
SETTINGS = {
    "common": (48_000, {"f_min_hz": 50.0}),
    "short window": (32_000, {"win_length": 1366, "hop_length": 716, "n_mels": 64}),
    "odd window": (22_050, {"n_fft": 512, "win_length": 401, "hop_length": 160, "n_mels": 40}),
    "htk": (48_000, {"mel_scale": "htk", "f_max_hz": 16_000.0}),
    "ultrasound": (
        250_000,
        {"n_fft": 512, "hop_length": 128, "n_mels": 67, "f_min_hz": 20_000.0, "f_max_hz": 12e4},
    ),
    "infrasound": (4_000, {"n_fft": 1024, "hop_length": 128, "n_mels": 48, "f_min_hz": 10.0}),
    "hop beyond the frame": (8_000, {"n_fft": 256, "hop_length": 300, "n_mels": 20}),
}


def settings(name: str) -> tuple[int, FeatureConfig]:
    rate, values = SETTINGS[name]
    return rate, FeatureConfig(**values)


def sound(n: int, seed: int = 0) -> np.ndarray:
    """Noise, a tone a hundred times stronger, and a stretch of digital silence."""
    wave = 0.003 * np.random.default_rng(seed).standard_normal(n)
    wave += 0.3 * np.sin(0.37 * np.arange(n))
    wave[n // 2 : n // 2 + n // 6] = 0.0
    return wave.astype(np.float32)


def librosa_log_mel(wave: np.ndarray, rate: int, config: FeatureConfig) -> np.ndarray:
    """In double precision, over numpy's own mirroring."""
    padded = np.pad(wave.astype(np.float64), config.n_fft // 2, mode="reflect")
    mel = librosa.feature.melspectrogram(
        y=padded,
        sr=rate,
        n_fft=config.n_fft,
        win_length=config.win_length,
        hop_length=config.hop_length,
        center=False,
        n_mels=config.n_mels,
        fmin=config.f_min_hz,
        fmax=config.f_max_hz,
        htk=config.mel_scale == "htk",
        dtype=np.float64,
    )
    return np.log(np.maximum(mel, config.floor))


@pytest.mark.parametrize("name", SETTINGS)
def test_filters_are_librosas(name):
    rate, config = settings(name)
    expected = librosa.filters.mel(
        sr=rate,
        n_fft=config.n_fft,
        n_mels=config.n_mels,
        fmin=config.f_min_hz,
        fmax=config.f_max_hz,
        htk=config.mel_scale == "htk",
        dtype=np.float64,
    )
    np.testing.assert_allclose(mel_filters(config, rate), expected, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_log_mel_is_librosas(name):
    rate, config = settings(name)
    wave = sound(2 * rate + 123)
    front_end = LogMel(config, rate)
    features = front_end(torch.from_numpy(wave))
    assert features.dtype == torch.float32
    assert features.shape == (config.n_mels, front_end.n_frames(len(wave)))
    expected = librosa_log_mel(wave, rate, config)
    assert expected.min() == np.log(FLOOR)
    np.testing.assert_allclose(features.numpy(), expected, atol=1e-3)


def gaps_between_ways(wave: np.ndarray, rate: int, config: FeatureConfig) -> list[float]:
    """Largest differences of NumPy's numbers and of a graph's from those of PyTorch."""
    front_end = LogMelFrontEnd(AudioConfig(sample_rate=rate), config)
    expected = LogMel(config, rate)(torch.from_numpy(wave)).numpy()
    streamed = list(front_end.stream_numpy(np.array_split(wave, 7)))
    around = np.pad(wave, front_end.n_before, mode="reflect")
    n_frames = front_end.n_frames(len(wave))
    graph = front_end.onnx_module()(torch.from_numpy(around)[None])[0].numpy()
    ways = [np.concatenate(streamed, axis=1), graph[:, :n_frames]]
    return [float(np.abs(found - expected).max()) for found in ways]


# 1022 = 2 * 7 * 73, and 400 is no power of two.
@pytest.mark.parametrize("n_fft", [None, 400, 1022])
@pytest.mark.parametrize("name", SETTINGS)
def test_all_ways_to_compute_give_the_same_numbers(name, n_fft):
    """Of one definition: PyTorch, NumPy for detection without it, matrix products for graphs."""
    rate, config = settings(name)
    if n_fft is not None:
        config = config.model_copy(update={"n_fft": n_fft, "win_length": None, "n_mels": 16})
    noise = np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)
    assert max(gaps_between_ways(noise, rate, config)) < 3e-5
    # A tone a hundred times stronger leaves few digits to the bands beside it.
    assert max(gaps_between_ways(sound(20_000), rate, config)) < 1e-3
    assert max(gaps_between_ways(np.zeros(20_000, np.float32), rate, config)) < 1e-5


@pytest.mark.parametrize("n", [2048, 512, 1022, 7, 2])
def test_the_best_factor_divides(n):
    assert n % best_factor(n) == 0


@pytest.mark.parametrize("rate", [250_000, 48_000])
def test_linear_filters_against_the_definition(rate):
    config = FeatureConfig(
        n_fft=1024, n_mels=40, f_min_hz=rate / 12, f_max_hz=0.48 * rate, mel_scale="linear"
    )
    corners = np.linspace(rate / 12, 0.48 * rate, 42)
    np.testing.assert_allclose(mel_edges(config, rate), corners, rtol=1e-15)
    width = corners[1] - corners[0]
    bins = np.arange(513) * rate / 1024
    expected = [
        np.maximum(0, 1 - np.abs(bins - centre) / width) / width for centre in corners[1:-1]
    ]
    np.testing.assert_allclose(mel_filters(config, rate), expected, atol=1e-15)


def test_linear_spectra_of_ultrasound_against_double_precision():
    """Every band, a tone among them, from the definition in float64."""
    rate = 250_000
    config = FeatureConfig(
        n_fft=512, hop_length=125, n_mels=60, f_min_hz=15e3, f_max_hz=125e3, mel_scale="linear"
    )
    rng = np.random.default_rng(3)
    wave = 1e-3 * rng.standard_normal(rate // 10)
    wave += 0.1 * np.sin(2 * np.pi * 70e3 / rate * np.arange(len(wave)))
    front_end = LogMel(config, rate)
    features = front_end(torch.from_numpy(wave)).numpy()
    padded = np.pad(wave, 256, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    frames = np.lib.stride_tricks.sliding_window_view(padded, 512)[::125]
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    expected = np.log(np.maximum(mel_filters(config, rate) @ power.T, config.floor))
    np.testing.assert_allclose(features, expected, atol=1e-3)
    loudest = features[:, 10:-10].mean(axis=1).argmax()
    edges = mel_edges(config, rate)
    assert edges[loudest] < 70e3 < edges[loudest + 2]


@pytest.mark.slow
def test_librosa_itself_centres_and_mirrors_like_this():
    rate, config = settings("common")
    wave = sound(rate)
    mel = librosa.feature.melspectrogram(
        y=wave, sr=rate, n_fft=2048, hop_length=512, n_mels=128, fmin=50.0, pad_mode="reflect"
    )
    features = LogMel(config, rate)(torch.from_numpy(wave))
    np.testing.assert_allclose(features.numpy(), np.log(np.maximum(mel, FLOOR)), atol=1e-3)


def test_a_tone_of_full_scale_has_its_analytic_power():
    # A sine on bin 64 has |X| = (sum of the window) / 2 there and half of that in its neighbours.
    rate, n_fft = 16_384, 1024
    config = FeatureConfig(n_fft=n_fft, hop_length=256, n_mels=20, f_min_hz=0.0)
    wave = torch.sin(2 * torch.pi * 64 / n_fft * torch.arange(rate, dtype=torch.float64))
    power = np.zeros(n_fft // 2 + 1)
    power[[63, 64, 65]] = (n_fft / 4) ** 2 * np.array([0.25, 1.0, 0.25])
    expected = mel_filters(config, rate) @ power
    middle = LogMel(config, rate)(wave)[:, 32].exp().numpy()
    np.testing.assert_allclose(middle, expected, atol=1e-4 * expected.max())


def test_silence_is_the_floor():
    config = FeatureConfig(floor=1e-6)
    features = LogMel(config, 32_000)(torch.zeros(5000))
    np.testing.assert_allclose(features.numpy(), np.log(1e-6), atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 100, 128, 129, 255, 256, 257, 300])
def test_short_recordings_are_mirrored_as_often_as_needed(n):
    rate, config = 8_000, FeatureConfig(n_fft=256, hop_length=64, n_mels=10)
    wave = sound(n) + np.float32(0.01)
    front_end = LogMel(config, rate)
    features = front_end(torch.from_numpy(wave))
    assert features.shape == (10, 1 + n // 64)
    expected = librosa_log_mel(wave, rate, config)
    np.testing.assert_allclose(features.numpy(), expected, atol=1e-3)
    pieces = stream_features([wave[: n // 2], wave[n // 2 :]], front_end)
    torch.testing.assert_close(torch.cat(list(pieces), dim=1), features, rtol=0, atol=0)


def test_a_batch_is_its_rows():
    rate, config = settings("common")
    front_end = LogMel(config, rate)
    waves = torch.from_numpy(np.stack([sound(rate, seed) for seed in range(3)]))
    batch = front_end(waves)
    assert batch.shape == (3, 128, 1 + rate // 512)
    for features, wave in zip(batch, waves, strict=True):
        torch.testing.assert_close(features, front_end(wave), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("longest", [50, 5_000, 200_000])
def test_stream_equals_whole_bit_by_bit(name, longest):
    rate, config = settings(name)
    front_end = LogMel(config, rate)
    rng = np.random.default_rng(longest)
    wave = sound(min(rate, 40 * longest) + 77)
    edges = np.cumsum(rng.integers(0, longest, 10 + 2 * len(wave) // longest))
    blocks = np.split(wave, edges[edges < len(wave)])
    streamed = torch.cat(list(stream_features(blocks, front_end)), dim=1)
    whole = front_end(torch.from_numpy(wave))
    torch.testing.assert_close(streamed, whole, rtol=0, atol=0)


def test_stream_gives_frames_as_they_become_complete():
    rate, config = settings("common")
    front_end = LogMel(config, rate)
    taken = []

    def blocks():
        for index in range(20):
            taken.append(index)
            yield sound(rate, index)

    first = next(stream_features(blocks(), front_end))
    assert first.shape[1] > 0
    assert len(taken) < 4


def test_autocast_and_gradients_leave_the_values_alone():
    rate, config = settings("common")
    front_end = LogMel(config, rate)
    wave = torch.from_numpy(sound(rate))
    plain = front_end(wave)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = front_end(wave.requires_grad_())
    assert not inside.requires_grad
    torch.testing.assert_close(inside, plain, rtol=0, atol=0)


def test_nothing_of_it_enters_a_checkpoint():
    front_end = LogMel(FeatureConfig(), 32_000)
    assert not front_end.state_dict()
    assert not list(front_end.parameters())


@pytest.mark.parametrize("wave", [torch.zeros(0), torch.zeros(2, 2, 9), torch.ones(9).int()])
def test_wrong_input_is_refused(wave):
    with pytest.raises(ValueError, match="floating-point"):
        LogMel(FeatureConfig(), 32_000)(wave)


def test_empty_stream_is_refused():
    with pytest.raises(ValueError, match="no samples"):
        list(stream_features([np.zeros(0, np.float32)], LogMel(FeatureConfig(), 32_000)))


def test_empty_filters_are_counted_and_the_keys_named():
    config = FeatureConfig(n_fft=256, n_mels=128, f_min_hz=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa warns of the empty filters that are counted here
        filters = librosa.filters.mel(sr=32_000, n_fft=256, n_mels=128)
    n_empty = int((filters.max(axis=1) == 0).sum())
    with pytest.raises(CanopyError, match=rf"^{n_empty} of the 128") as caught:
        check_filters(config, 32_000)
    for key in ("features.n_mels", "features.n_fft", "features.f_min_hz"):
        assert key in str(caught.value)
    with pytest.raises(CanopyError, match="empty"):
        LogMel(config, 32_000)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"n_fft": 1023}, "n_fft is 1023"),
        ({"f_max_hz": 16_001.0}, "Nyquist"),
        ({"f_min_hz": 16_000.0}, "f_min_hz"),
        ({"win_length": 4096}, "win_length 4096"),
    ],
)
def test_impossible_front_ends(values, word):
    with pytest.raises(CanopyError, match=word):
        check_filters(FeatureConfig(**values), 32_000)


def test_running_stats_are_those_of_the_whole():
    # A mean far from 0 shows what a sum of squares in one pass would lose.
    data = (1e4 + np.random.default_rng(0).standard_normal((3, 1000))).astype(np.float32)
    left, right = RunningStats(3), RunningStats(3)
    for start, stop in ((0, 1), (1, 400), (400, 400)):
        left.update(data[:, start:stop])
    right.update(data[:, 400:])
    left.merge(right)
    left.merge(RunningStats(3))
    exact = data.astype(np.float64)
    assert left.count == 1000
    np.testing.assert_allclose(left.mean, exact.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(left.std, exact.std(axis=1), rtol=1e-9)
    again = RunningStats.from_dict(left.to_dict())
    np.testing.assert_array_equal(again.mean, left.mean)
    np.testing.assert_array_equal(again.std, left.std)
    assert again.count == left.count


def test_running_stats_refuse_other_rows_and_know_nothing_at_first():
    stats = RunningStats(3)
    assert np.isnan(stats.std).all()
    with pytest.raises(ValueError, match="shape"):
        stats.update(np.zeros((2, 5)))
    with pytest.raises(ValueError, match="merged"):
        stats.merge(RunningStats(2))
