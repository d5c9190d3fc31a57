"""Digital silence is found wherever it lies, and quiet sound is none."""

from itertools import pairwise

import numpy as np
import pytest

from local.features.silence import SilenceFinder, read_spans, settled, widened, write_spans

RATE = 16_000


def found(wave, size):
    finder = SilenceFinder(RATE)
    blocks = [wave[..., at : at + size].T for at in range(0, wave.shape[-1], size)]
    for passed, block in zip(finder.pass_on(blocks), blocks, strict=True):
        assert passed is block
    assert finder.end_s == pytest.approx(wave.shape[-1] / RATE)
    return finder.spans_s()


def sound(seconds=6.0):
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 331, 16_000, 10**6])
@pytest.mark.parametrize("level", [0.0, -0.25])
def test_stretches_of_constant_samples(size, level):
    wave = sound(3.0)
    wave[: RATE // 2] = level
    wave[RATE + 7 : RATE * 2 + 11] = level
    wave[RATE * 5 // 2 :] = level
    spans = found(wave, size)
    expected = np.array([[0, 0.5], [1.0004, 2.0007], [2.5, 3.0]])
    np.testing.assert_allclose(spans[:, 1], expected[:, 1], atol=1e-4)
    np.testing.assert_allclose(spans[:, 0], expected[:, 0], atol=0.0041)
    assert (spans[:, 0] >= expected[:, 0] - 1e-4).all()
    assert (spans[0, 0], spans[-1, 1]) == (0.0, 3.0)


def test_what_is_known_before_a_moment_is_known_to_all_alike():
    """Whoever has read more of the recording says the same of what lies before."""
    wave = sound()
    wave[RATE : RATE * 5 // 4] = wave[RATE * 3 : RATE * 4 + 321] = 0.0
    whole = found(wave, 7777)
    for end in (RATE + 900, RATE + 2000, RATE * 5 // 4 + 3, RATE * 3 + 5000, RATE * 4 + 400):
        part, end_s = found(wave[:end], 1000), end / RATE
        one, other = settled(part, end_s), settled(whole, end_s)
        np.testing.assert_allclose(np.minimum(one, end_s), np.minimum(other, end_s))


def test_what_is_no_silence():
    wave = sound()
    wave[RATE : RATE + RATE // 12] = 0.0  # too short
    assert len(found(wave, 5000)) == 0
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    assert len(found(tone, 5000)) == 0
    ticking = np.zeros(RATE, np.float32)
    ticking[::800] = 1 / 32768  # a bit, now and then
    assert len(found(ticking, 5000)) == 0


def test_silence_of_several_channels_is_that_of_all():
    wave = np.stack([sound(), sound()[::-1]])
    wave[0, : RATE * 2] = 0.0
    wave[1, RATE : RATE * 3] = 0.1
    np.testing.assert_allclose(found(wave, 3000), [[1.0, 2.0]], atol=0.005)


@pytest.mark.parametrize("channels", [(), (2,)])
def test_a_block_without_samples_changes_nothing(channels):
    wave = np.broadcast_to(sound(), (*channels, 6 * RATE)).copy()
    wave[..., RATE : RATE * 2] = 0.0
    finder = SilenceFinder(RATE)
    cuts = [0, 0, 700, 700, RATE + 5, RATE + 5, wave.shape[-1], wave.shape[-1]]
    for start, end in pairwise(cuts):
        finder.add(wave[..., start:end])
    np.testing.assert_array_equal(finder.spans_s(), found(wave, 5000))
    assert finder.end_s == 6.0


def test_only_what_ends_later_is_asked_for():
    wave = sound()
    wave[RATE : RATE * 2] = wave[RATE * 4 : RATE * 5] = 0.0
    finder = SilenceFinder(RATE)
    finder.add(wave)
    assert len(finder.spans_s(0.5)) == 2
    assert len(finder.spans_s(3.0)) == 1
    assert len(finder.spans_s(5.5)) == 0


def test_spans_as_text_and_beyond_the_ends():
    spans = np.array([[0.0, 1.5], [86_400.125, 86_401.0]])
    np.testing.assert_array_equal(read_spans(write_spans(spans)), spans)
    assert read_spans("").shape == (0, 2)
    wide = widened(spans, 86_401.0)
    np.testing.assert_array_equal(wide, [[-np.inf, 1.5], [86_400.125, np.inf]])
