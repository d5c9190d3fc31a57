"""Blocks of samples that are read ahead of their use."""

import threading

import numpy as np
import pytest

from local.detect.sound import read_ahead
from local.io.errors import CanopyError

WAIT_S = 20.0


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
