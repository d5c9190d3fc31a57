"""Blocks of samples: read ahead of their use, and decoded by a program that may do anything."""

import threading
import time

import numpy as np
import pytest

from local.config import AudioConfig
from local.detect import sound as sounds
from local.detect.sound import duration_of, open_sound, read_ahead
from local.io.errors import CanopyError
from tests.toy_detector import RATE, put_ffmpeg, sound

WAIT_S = 20.0
WAVE = sound(9.5)
MEGABYTES = "head -c 5000000 /dev/zero | tr '\\0' "


def decoded(folder, monkeypatch, config=None, **given):
    """All samples of a file that the stand-in decodes."""
    path = folder / "a.m4a"
    path.write_bytes(b"x")
    put_ffmpeg(folder / "bin", WAVE, **given)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/bin:/usr/bin")
    found = open_sound(path, config or AudioConfig(sample_rate=RATE), 1.0)
    return np.concatenate(list(found.blocks))


def test_samples_are_those_of_the_decoder(tmp_path, monkeypatch):
    np.testing.assert_array_equal(decoded(tmp_path, monkeypatch, after=":"), WAVE)
    assert duration_of(tmp_path / "a.m4a") == 9.5


def test_another_rate_is_resampled_or_refused(tmp_path, monkeypatch):
    config = AudioConfig(sample_rate=RATE // 2)
    assert len(decoded(tmp_path, monkeypatch, config)) == len(WAVE) // 2
    config = AudioConfig(sample_rate=RATE // 2, other_rates="refuse")
    (tmp_path / "again").mkdir()
    with pytest.raises(CanopyError, match="its sample rate is 1000 Hz"):
        decoded(tmp_path / "again", monkeypatch, config)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"before": f"{MEGABYTES} x >&2"}, "after 0.000 s (xxx"),
        ({"after": f"{MEGABYTES} x >&2; exit 1"}, "damaged or truncated"),
        ({"before": f"{MEGABYTES} '\\377' >&2"}, "damaged or truncated"),
        ({"after": "echo invalid data >&2"}, "(invalid data)"),
        ({"after": "exit 3"}, "after 9.500 s (the decoder ended with code 3)"),
        ({"after": "kill -9 $$"}, "the decoder ended with code -9"),
        ({"before": "kill -9 $$"}, "the decoder ended with code -9"),
        ({"n_bytes": 0}, "it ends with 0 of the 4 bytes of a sample"),
        ({"n_bytes": 4 * 700 + 3}, "after 0.700 s (it ends with 3 of the 4 bytes of a sample)"),
        ({"before": "head -c 4000 /dev/zero | tr '\\0' '\\377'"}, "sample 0 (0.000000 s) is NaN"),
    ],
)
def test_a_decoder_that_fails_is_one_sentence(tmp_path, monkeypatch, given, reason):
    begun = time.monotonic()
    with pytest.raises(CanopyError) as caught:
        decoded(tmp_path, monkeypatch, **given)
    message = str(caught.value)
    assert "a.m4a: " in message
    assert reason in message
    assert len(message) < 600
    assert "\n" not in message
    assert time.monotonic() - begun < WAIT_S


@pytest.mark.slow
@pytest.mark.parametrize("line", ["exec sleep 60", "exec >&- 2>&-; exec sleep 60"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_decoder_that_hangs_is_given_up(tmp_path, monkeypatch, place, line):
    monkeypatch.setattr(sounds, "SILENT_S", 2.0)
    with pytest.raises(CanopyError, match=r"a\.m4a: damaged .*the decoder (gave|did)"):
        decoded(tmp_path, monkeypatch, **{place: line})


def probed(rate=RATE, channels=1, duration="9.5"):
    stream = f'{{"sample_rate": "{rate}", "channels": {channels}}}'
    return f'{{"streams": [{stream}], "format": {{"duration": "{duration}"}}}}'


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("", "ffprobe finds no sound"),
        ("\0\1\2", "ffprobe finds no sound"),
        ("[1]", "ffprobe finds no sound"),
        ('{"streams": [3], "format": 4}', "ffprobe finds no sound"),
        ("[" * 100_000, "ffprobe finds no sound"),
        (probed(rate="9" * 5000), "ffprobe finds no sound"),
        (probed(duration="long"), "ffprobe finds no sound"),
        (probed(rate=10**9), "ffprobe tells 1000000000 Hz"),
        (probed(channels=0), "and 0 channels"),
        (probed(channels=10**6), "and 1000000 channels"),
        (probed(channels=7), "damaged or truncated after .*it ends with"),
    ],
)
def test_nonsense_of_ffprobe_is_one_sentence(tmp_path, monkeypatch, told, reason):
    with pytest.raises(CanopyError, match=rf"a\.m4a: .*{reason}"):
        decoded(tmp_path, monkeypatch, told=told)


@pytest.mark.parametrize("channel", [1, 6])
def test_a_channel_that_is_not_there_is_one_sentence(tmp_path, monkeypatch, channel):
    config = AudioConfig(sample_rate=RATE, channel=channel)
    with pytest.raises(
        CanopyError, match=rf"a\.m4a: audio.channel is {channel} but the file has 1"
    ):
        decoded(tmp_path, monkeypatch, config)


def readers():
    return [one for one in threading.enumerate() if one.name.startswith("read-ahead")]


def test_blocks_come_as_they_are_and_in_their_order():
    blocks = [np.full(n, n, dtype=np.float32) for n in (3, 0, 1, 7)]
    for given, read in zip(blocks, read_ahead(iter(blocks)), strict=True):
        assert read is given
    assert list(read_ahead(iter([]))) == []
    assert not readers()


def test_the_next_block_is_read_while_one_is_used():
    begun = threading.Event()

    def blocks():
        yield np.zeros(1)
        begun.set()
        yield np.ones(1)

    reading = read_ahead(blocks())
    next(reading)
    assert begun.wait(WAIT_S)
    assert next(reading) == 1


def test_no_more_than_the_next_block_is_read():
    n_read = []

    def blocks():
        for n in range(5):
            n_read.append(n)
            yield np.zeros(1)

    reading = read_ahead(blocks())
    next(reading)
    reading.close()
    assert n_read == [0, 1]


def test_a_fault_is_told_in_its_place():
    def blocks():
        yield np.zeros(1)
        raise CanopyError("a.wav: damaged")

    reading = read_ahead(blocks())
    next(reading)
    with pytest.raises(CanopyError, match=r"a\.wav: damaged"):
        next(reading)
    assert not readers()
