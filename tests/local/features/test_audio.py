from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from local.config import AudioConfig
from local.features.audio import AudioInfo, load_audio, load_part, probe, stream_audio
from local.io.errors import CanopyError

RATE = 16_000
REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def noise(n: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    wave = 0.1 * np.random.default_rng(seed).standard_normal((n, channels)).astype(np.float32)
    return wave[:, 0] if channels == 1 else wave


def config(**values) -> AudioConfig:
    return AudioConfig(**{"sample_rate": RATE, **values})


def write(path: Path, wave: np.ndarray, rate: int = RATE, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, wave, rate, subtype=subtype)
    return path


def cut(path: Path, share: float = 0.5) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def test_probe_reads_the_header(tmp_path):
    path = write(tmp_path / "a.wav", noise(24_000, 3), 48_000)
    assert probe(path) == AudioInfo(duration=0.5, sample_rate=48_000, channels=3, frames=24_000)


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [("a.wav", "FLOAT", 0.0), ("a.wav", "PCM_16", 2**-15), ("a.flac", "PCM_16", 2**-15)],
)
def test_samples_come_back_as_written(tmp_path, name, subtype, tolerance):
    wave = noise(5000)
    loaded = load_audio(write(tmp_path / name, wave, subtype=subtype), config())
    assert loaded.dtype == np.float32
    assert loaded.shape == (5000,)
    np.testing.assert_allclose(loaded, wave, atol=tolerance)


@pytest.mark.parametrize("channel", ["mix", "first", 0, 2])
def test_channel_choice(tmp_path, channel):
    wave = noise(1000, 3)
    loaded = load_audio(write(tmp_path / "a.wav", wave), config(channel=channel))
    expected = {"mix": wave.mean(axis=1), "first": wave[:, 0], 0: wave[:, 0], 2: wave[:, 2]}
    np.testing.assert_allclose(loaded, expected[channel], atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_resampling_is_soxr_high_quality(tmp_path, rate):
    wave = noise(rate)
    loaded = load_audio(write(tmp_path / "a.wav", wave, rate), config())
    np.testing.assert_allclose(loaded, soxr.resample(wave, rate, RATE, "HQ"), atol=1e-6)
    assert len(loaded) == RATE


def test_resampling_keeps_pitch_and_level(tmp_path):
    t = np.arange(48_000) / 48_000
    path = write(tmp_path / "a.wav", np.sin(2 * np.pi * 1000 * t).astype(np.float32), 48_000)
    expected = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    inside = slice(1000, -1000)
    np.testing.assert_allclose(load_audio(path, config())[inside], expected[inside], atol=1e-3)


@pytest.mark.parametrize("block_s", [0.0011, 0.1, 0.77, 100.0])
@pytest.mark.parametrize(
    ("name", "rate", "subtype"),
    [
        ("a.wav", RATE, "FLOAT"),
        ("a.flac", 44_100, "PCM_16"),
        ("a.ogg", 32_000, "VORBIS"),
        ("a.mp3", 48_000, "MPEG_LAYER_III"),
    ],
)
def test_stream_is_the_whole(tmp_path, name, rate, subtype, block_s):
    path = write(tmp_path / name, noise(rate, 2), rate, subtype)
    blocks = list(stream_audio(path, config(), block_s))
    assert all(block.dtype == np.float32 and block.ndim == 1 for block in blocks)
    np.testing.assert_allclose(np.concatenate(blocks), load_audio(path, config()), atol=1e-6)


def test_stream_reads_no_further_than_asked(tmp_path):
    wave = noise(RATE * 2)
    wave[-1] = np.nan
    blocks = stream_audio(write(tmp_path / "a.wav", wave), config(), 0.5)
    assert len(next(blocks)) == RATE // 2
    with pytest.raises(CanopyError, match=r"sample 31999 .*NaN"):
        list(blocks)


@pytest.mark.parametrize(("start_s", "end_s"), [(0, 0.3), (1.237, 2.5), (2.9, 4.0), (5.0, 6.0)])
@pytest.mark.parametrize(
    ("name", "rate", "subtype"),
    [
        ("a.wav", RATE, "FLOAT"),
        ("a.wav", 24_000, "PCM_16"),
        ("a.flac", 44_100, "PCM_16"),
        ("a.aiff", 22_050, "PCM_16"),
        ("a.ogg", 32_000, "VORBIS"),
        ("a.mp3", 48_000, "MPEG_LAYER_III"),
    ],
)
def test_a_part_is_what_the_whole_has_there(tmp_path, name, rate, subtype, start_s, end_s):
    path = write(tmp_path / name, noise(3 * rate, 2), rate, subtype)
    whole = load_audio(path, config())[round(start_s * RATE) : round(end_s * RATE)]
    part = load_part(path, config(), start_s, end_s)
    assert part.dtype == np.float32
    np.testing.assert_allclose(part, whole, atol=2e-6)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_late_part_is_sought_and_not_decoded_for(tmp_path, name, monkeypatch):
    path = write(tmp_path / name, noise(60 * RATE), RATE, "PCM_16")
    read = []
    original = soundfile.SoundFile.read

    def counted(sound, frames, **options):
        read.append(frames)
        return original(sound, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    load_part(path, config(), 50.0, 51.0)
    assert sum(read) <= 2 * RATE


def test_block_length_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="block_s"):
        stream_audio(tmp_path / "a.wav", config(), 0.0)


def fails(path: Path, *words: str, **values) -> None:
    """Loading fails with one sentence that names the file and holds the words."""
    with pytest.raises(CanopyError) as caught:
        load_audio(path, config(**values))
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_missing_file(tmp_path):
    fails(tmp_path / "nothing.wav", "no such file")


def test_folder_in_place_of_a_file(tmp_path):
    fails(tmp_path, "cannot be opened")


def test_empty_file(tmp_path):
    (tmp_path / "a.wav").touch()
    fails(tmp_path / "a.wav", "0 bytes")


def test_not_audio(tmp_path):
    (tmp_path / "a.wav").write_text("recording_id,label\n" * 50)
    fails(tmp_path / "a.wav", "not readable as audio")


def test_no_samples(tmp_path):
    fails(write(tmp_path / "a.wav", noise(0)), "no samples")


@pytest.mark.parametrize("share", [0.3, 0.99])
@pytest.mark.parametrize(
    ("name", "subtype"),
    [("a.wav", "PCM_16"), ("a.aiff", "PCM_16"), ("a.flac", "PCM_16"), ("a.ogg", "VORBIS")],
)
def test_truncated_file(tmp_path, name, subtype, share):
    path = write(tmp_path / name, noise(RATE), subtype=subtype)
    assert len(load_audio(path, config())) == RATE
    fails(cut(path, share), "truncated")


def test_truncated_mp3(tmp_path):
    fails(cut(write(tmp_path / "a.mp3", noise(RATE * 3), subtype="MPEG_LAYER_III")), "truncated")


def test_damaged_flac(tmp_path):
    path = write(tmp_path / "a.flac", noise(RATE * 2), subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)
    fails(path, "damaged")


@pytest.mark.parametrize("size", [0x7FFFF000, 0x80000000, 0xFFFFFFFF])
def test_wav_with_its_size_left_open_is_whole(tmp_path, size):
    wave = noise(RATE)
    path = write(tmp_path / "a.wav", wave, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    field = content.index(b"data") + 4
    content[field : field + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)
    np.testing.assert_allclose(load_audio(path, config()), wave, atol=2**-15)


def test_flac_with_its_length_left_open(tmp_path):
    path = write(tmp_path / "a.flac", noise(RATE), subtype="PCM_16")
    content = bytearray(path.read_bytes())
    # STREAMINFO begins at byte 8; its total of samples is the last 36 bits before the checksum.
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    fails(path, "how long")


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_first_sample_that_is_no_number_is_named(tmp_path, value, word):
    wave = noise(RATE)
    wave[[4000, 9000]] = value
    fails(write(tmp_path / "a.wav", wave), "sample 4000", "0.250000 s", word)


def test_a_bad_channel_that_is_not_used_does_no_harm(tmp_path):
    wave = noise(100, 2)
    wave[50, 1] = np.nan
    path = write(tmp_path / "a.wav", wave)
    np.testing.assert_array_equal(load_audio(path, config(channel=0)), wave[:, 0])
    fails(path, "sample 50", channel="mix")


def test_channel_out_of_range(tmp_path):
    fails(write(tmp_path / "a.wav", noise(10, 2)), "audio.channel is 2", "2 channels", channel=2)


def test_another_rate_is_refused_when_asked(tmp_path):
    path = write(tmp_path / "a.wav", noise(10), 48_000)
    fails(path, "48000", "16000", "audio.sample_rate", other_rates="refuse")
    assert len(load_audio(write(path, noise(10)), config(other_rates="refuse"))) == 10


def test_real_recordings(tmp_path):
    paths = sorted((REAL / "usv").glob("*.wav"))[:1] + sorted((REAL / "esc10").glob("*/*.ogg"))[:2]
    if not paths:
        pytest.skip("no real recordings beside the repository (../shared/data)")
    for path in paths:
        info = probe(path)
        loaded = load_audio(path, config())
        assert len(loaded) == pytest.approx(info.duration * RATE, abs=1)
        assert np.abs(loaded).max() > 0
