import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from local.report.media import encode_picture, encode_sound, expansion_of, pool


@pytest.mark.parametrize(("rate", "expansion"), [(8000, 1.0), (20000, 1.0), (250000, 10.0)])
def test_sound_keeps_its_place_and_length(beep, rate, expansion):
    wave = beep(1.0, 2.0, rate)
    decoded, played = soundfile.read(io.BytesIO(encode_sound(wave, rate, expansion)))
    loud = np.flatnonzero(np.abs(decoded) > 0.3)[0] / played / expansion
    assert loud == pytest.approx(1.0, abs=0.06 / expansion)
    assert len(decoded) / played == pytest.approx(2.0 * expansion, abs=0.15)


def test_sound_is_the_same_twice_and_quiet_is_made_louder(beep):
    wave = beep(1.0, 2.0) * 0.1
    assert encode_sound(wave, 8000) == encode_sound(wave, 8000)
    assert np.abs(soundfile.read(io.BytesIO(encode_sound(wave, 8000)))[0]).max() > 0.7
    silence, _ = soundfile.read(io.BytesIO(encode_sound(np.zeros(8000, np.float32), 8000)))
    assert np.abs(silence).max() < 1e-3


def test_only_what_cannot_be_heard_is_slowed():
    assert expansion_of(48000, None) == 1
    assert expansion_of(96000, None) == 10
    assert expansion_of(256000, 8.0) == 8


def test_low_frequencies_are_at_the_bottom_and_clicks_survive():
    image = np.full((300, 5000), -9.0, dtype=np.float16)
    image[10, 2500] = 0.0
    image[5, 0] = np.nan
    picture = np.asarray(Image.open(io.BytesIO(encode_picture(image))).convert("L"))
    assert picture.shape == (128, 900)
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    assert row == pytest.approx(128 * (1 - 10 / 300), abs=2)
    assert column == pytest.approx(450, abs=1)


def test_pool_averages_rows_and_keeps_the_loudest_moment():
    feats = np.zeros((4, 6))
    feats[0, 1] = 8.0
    np.testing.assert_array_equal(pool(feats, 2, 3), [[4, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(pool(feats, 10, 10), feats)


def test_pool_covers_every_cell_when_sizes_do_not_divide():
    feats = np.random.default_rng(0).normal(size=(7, 1001))
    pooled = pool(feats, 7, 64)
    assert pooled.shape == (7, 64)
    np.testing.assert_array_equal(pooled.max(axis=1), feats.max(axis=1))
