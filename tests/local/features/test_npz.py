import os
import zipfile

import numpy as np
import pytest
import soundfile
import torch

from local.config import AudioConfig, FeatureConfig
from local.features.audio import load_audio
from local.features.front_ends.logmel import LogMelFrontEnd
from local.features.front_ends.logmel_torch import LogMel
from local.features.front_ends.wave import WaveFrontEnd
from local.features.npz import (
    FeatureInfo,
    FeatureReader,
    read_crop,
    read_header,
    wave_to_float,
    wave_to_int16,
    write_features,
)
from local.features.recording import process_recording
from local.io.errors import CanopyError

SCALARS = {"sample_rate": 16_000, "hop_length": 160, "duration": 5.0, "schema": 1}


def random_feats(n_frames: int = 500, seed: int = 0, dtype: str = "float16") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((8, n_frames)).astype(dtype)


def write(path, array, hop_length=160):
    write_features(path, array, sample_rate=16_000, hop_length=hop_length, duration=5.0)
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_crops_are_slices(tmp_path, dtype):
    feats = random_feats(dtype=dtype)
    path = write(tmp_path / "a.npz", feats)
    reader = FeatureReader()
    for start, stop in ((0, 500), (0, 1), (499, 500), (123, 321), (7, 7)):
        crop = reader.read_crop(path, start, stop)
        assert crop.dtype == dtype
        assert crop.flags.writeable
        np.testing.assert_array_equal(crop, feats[:, start:stop])
    np.testing.assert_array_equal(read_crop(path, 3, 9), feats[:, 3:9])


def test_header(tmp_path):
    info = read_header(write(tmp_path / "a.npz", random_feats()))
    assert info == FeatureInfo(500, (8,), 16_000, 160, 5.0, 1)


@pytest.mark.parametrize("shape", [(200,), (2, 200), (3, 2, 5, 200)])
def test_crops_of_any_number_of_axes(tmp_path, shape):
    feats = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    path = write(tmp_path / "a.npz", feats)
    assert read_header(path).axes == shape[:-1]
    np.testing.assert_array_equal(read_crop(path, 30, 90), feats[..., 30:90])
    np.savez(tmp_path / "b.npz", feats=np.ascontiguousarray(feats), **SCALARS)
    np.testing.assert_array_equal(read_crop(tmp_path / "b.npz", 30, 90), feats[..., 30:90])


def test_waveforms(tmp_path):
    wave = np.arange(-300, 700, dtype=np.int16)
    path = write(tmp_path / "a.npz", wave, hop_length=1)
    assert read_header(path) == FeatureInfo(1000, (), 16_000, 1, 5.0, 1)
    np.testing.assert_array_equal(read_crop(path, 10, 20), wave[10:20])


def test_sixteen_bits_survive_floating_point():
    every = np.arange(-32768, 32768).astype(np.int16)
    assert wave_to_float(every).dtype == np.float32
    assert wave_to_float(every).min() == -1.0
    np.testing.assert_array_equal(wave_to_int16(wave_to_float(every)), every)
    np.testing.assert_array_equal(wave_to_int16(np.array([2.0, -2.0])), [32767, -32768])


def test_numpy_reads_it_and_frames_lie_one_after_the_other(tmp_path):
    feats = random_feats()
    with np.load(write(tmp_path / "a.npz", feats), allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["feats"], feats)
        assert archive["feats"].flags.f_contiguous
        assert {name: archive[name].item() for name in SCALARS} == SCALARS


def test_a_crop_touches_nothing_but_itself(tmp_path):
    feats = random_feats()
    path = write(tmp_path / "a.npz", feats)
    content = bytearray(path.read_bytes())
    frame_400 = content.index(np.asfortranarray(feats[:, 400:401]).tobytes(order="F"))
    content[frame_400] ^= 0xFF
    path.write_bytes(content)
    with np.load(path) as archive, pytest.raises(zipfile.BadZipFile):
        archive["feats"]
    np.testing.assert_array_equal(read_crop(path, 100, 400), feats[:, 100:400])


def test_a_rewritten_file_is_read_anew(tmp_path):
    path = write(tmp_path / "a.npz", random_feats(500, seed=1))
    reader = FeatureReader()
    assert reader.read_header(path).n_frames == 500
    feats = random_feats(300, seed=2)
    write(path, feats)
    assert reader.read_header(path).n_frames == 300
    np.testing.assert_array_equal(reader.read_crop(path, 5, 50), feats[:, 5:50])


def test_files_in_row_order_are_read_as_well(tmp_path):
    feats = random_feats()
    np.savez(tmp_path / "a.npz", feats=np.ascontiguousarray(feats), **SCALARS)
    np.testing.assert_array_equal(read_crop(tmp_path / "a.npz", 20, 90), feats[:, 20:90])


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (0, 501), (9, 8)])
def test_frames_that_are_not_there(tmp_path, start, stop):
    path = write(tmp_path / "a.npz", random_feats())
    with pytest.raises(CanopyError, match=f"frames {start} to {stop} .*500"):
        read_crop(path, start, stop)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 5)),
        np.zeros((8, 0), np.float16),
        np.zeros((), np.float32),
        np.array([["a"]], dtype=object),
    ],
)
def test_other_arrays_are_not_written(tmp_path, array):
    with pytest.raises(ValueError, match="expected"):
        write(tmp_path / "a.npz", array)
    assert not list(tmp_path.iterdir())


def refused(path, word):
    with pytest.raises(CanopyError, match=word) as caught:
        read_header(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"feats": np.array([[{}]], dtype=object), **SCALARS}, "Python objects"),
        ({"feats": random_feats(), **SCALARS, "schema": 2}, "schema 2"),
        ({"feats": random_feats(), **SCALARS, "hop_length": 0}, "hop_length is 0"),
        ({"feats": random_feats(), **SCALARS, "sample_rate": 0.5}, "sample_rate is 0.5"),
        ({"feats": random_feats(), **SCALARS, "duration": np.nan}, "duration is nan"),
        ({"feats": random_feats(), **SCALARS, "duration": np.ones(2)}, "no scalar"),
        ({"feats": random_feats(), **SCALARS, "duration": np.ones(2000)}, "no scalar"),
        ({"feats": random_feats()}, "no member sample_rate"),
        (SCALARS, "found 0"),
        ({"feats": random_feats(), "wave": np.ones(9), **SCALARS}, "wave has type float64"),
        ({"feats": random_feats(dtype="float64"), **SCALARS}, "float64"),
        ({"feats": random_feats(dtype=">f4"), **SCALARS}, ">f4"),
        ({"feats": random_feats()[:0], **SCALARS}, "shape"),
    ],
)
def test_foreign_content_is_refused(tmp_path, members, word):
    np.savez(tmp_path / "a.npz", **members)
    refused(tmp_path / "a.npz", word)


def test_missing_file(tmp_path):
    refused(tmp_path / "a.npz", "No such file")


AUDIO = AudioConfig(sample_rate=16_000)
MEL = FeatureConfig(n_fft=512, hop_length=160, n_mels=32, dtype="float32")
LOGMEL, WAVE = LogMelFrontEnd(AUDIO, MEL), WaveFrontEnd(AUDIO, FeatureConfig(kind="wave"))


def write_sound(path, seconds=3.0, rate=22_050, scale=0.1):
    wave = scale * np.random.default_rng(0).standard_normal(int(seconds * rate))
    soundfile.write(path, wave.astype(np.float32), rate, subtype="FLOAT")
    return path


def test_a_recording_from_sound_to_npz(tmp_path, monkeypatch):
    # Blocks of a fraction of a second: the seams are inside the recording.
    monkeypatch.setattr("local.features.recording._BLOCK_SAMPLES", 10_000)
    path = write_sound(tmp_path / "a.wav")
    result = process_recording(path, tmp_path / "a.npz", LOGMEL)
    expected = LogMel(MEL, 16_000)(torch.from_numpy(load_audio(path, AUDIO))).numpy()
    assert result["status"] == "ok"
    assert result["message"] == ""
    assert result["duration"] == 3.0
    assert result["n_frames"] == expected.shape[1] == 301
    np.testing.assert_array_equal(read_crop(tmp_path / "a.npz", 0, 301), expected)
    assert read_header(tmp_path / "a.npz") == FeatureInfo(301, (32,), 16_000, 160, 3.0, 1)
    np.testing.assert_allclose(result["stats"].mean, expected.mean(axis=1), atol=1e-4)
    np.testing.assert_allclose(result["stats"].std, expected.std(axis=1), atol=1e-4)


@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_equal_samples_are_silence_whatever_the_rate_of_the_file(tmp_path, rate):
    path = tmp_path / "still.wav"
    soundfile.write(path, np.full(2 * rate, 0.3, np.float32), rate, subtype="FLOAT")
    result = process_recording(path, tmp_path / "still.npz", LOGMEL)
    np.testing.assert_array_equal(result["silence"], [[0.0, 2.0]])


def test_half_precision_is_the_rounded_single(tmp_path):
    path = write_sound(tmp_path / "a.wav")
    process_recording(path, tmp_path / "single.npz", LOGMEL)
    half = MEL.model_copy(update={"dtype": "float16"})
    process_recording(path, tmp_path / "half.npz", LogMelFrontEnd(AUDIO, half))
    single = read_crop(tmp_path / "single.npz", 0, 301)
    np.testing.assert_array_equal(
        read_crop(tmp_path / "half.npz", 0, 301), single.astype(np.float16)
    )


def test_a_waveform_from_sound_to_npz(tmp_path):
    path = write_sound(tmp_path / "a.wav")
    result = process_recording(path, tmp_path / "a.npz", WAVE)
    expected = load_audio(path, AUDIO)
    assert result["n_frames"] == len(expected) == 48_000
    stored = wave_to_float(read_crop(tmp_path / "a.npz", 0, 48_000))
    np.testing.assert_allclose(stored, expected, atol=0.51 / 32768)
    assert read_header(tmp_path / "a.npz").axes == ()
    np.testing.assert_allclose(result["stats"].std, expected.std(), rtol=1e-5)


def test_a_waveform_beyond_full_scale_is_invalid(tmp_path):
    path = write_sound(tmp_path / "a.wav", scale=10.0)
    result = process_recording(path, tmp_path / "a.npz", WAVE)
    assert result["status"] == "invalid"
    assert "full scale" in result["message"]


def test_a_bad_recording_is_reported_and_leaves_no_file(tmp_path):
    path = write_sound(tmp_path / "a.wav")
    os.truncate(path, path.stat().st_size // 2)
    result = process_recording(path, tmp_path / "a.npz", LOGMEL)
    assert result["status"] == "invalid"
    assert str(path) in result["message"]
    assert result["n_frames"] == 0
    assert result["stats"] is None
    assert not (tmp_path / "a.npz").exists()
