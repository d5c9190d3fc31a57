"""Named seeds: the same names, the same numbers; any other name, others."""

import subprocess
import sys

import numpy as np
import torch

from local.io.seeds import generator, named_seed, seed_torch


def test_a_name_gives_the_same_stream_whatever_ran_before():
    first = generator(3, "fold0", "plan", 2).random(5)
    generator(3, "fold0", "plan", 1).random(100)
    np.testing.assert_array_equal(generator(3, "fold0", "plan", 2).random(5), first)


def test_every_part_of_the_name_counts():
    names = [(s, f, e) for s in range(3) for f in ("fold0", "fold1") for e in range(20)]
    assert len({named_seed(*name) for name in names}) == len(names)


def test_the_range_fits_numpy_and_torch():
    seeds = [named_seed(0, i) for i in range(1000)]
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    # Spread over the whole range, not huddled in a corner of it.
    assert 0.45 < np.mean(seeds) / 2**63 < 0.55


def test_another_process_agrees():
    """Seeds must not hang on Python's hash randomisation."""
    code = "from local.io.seeds import named_seed; print(named_seed(7, 'fold1', 'epoch', 4))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert int(output) == named_seed(7, "fold1", "epoch", 4)


def test_torch_is_seeded_by_name():
    seed_torch(1, "weights")
    first = torch.rand(4)
    seed_torch(1, "epoch", 0)
    other = torch.rand(4)
    seed_torch(1, "weights")
    assert torch.equal(torch.rand(4), first)
    assert not torch.equal(first, other)
