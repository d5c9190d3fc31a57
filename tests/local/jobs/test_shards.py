"""Shares of work: all of it, even, and the same wherever they are asked for."""

import numpy as np
import pytest

from local.io.errors import CanopyError
from local.jobs.shards import Shard, deal, parse_shard


@pytest.mark.parametrize("n", [1, 3, 7, 50])
def test_shares_are_all_of_the_work_once_and_even(n):
    weights = np.random.default_rng(0).lognormal(3.0, 1.0, 40)
    shares = [Shard(k, n).of(weights) for k in range(n)]
    assert sorted(item for share in shares for item in share) == list(range(40))
    assert all(share == sorted(share) for share in shares)
    loads = [weights[share].sum() for share in shares]
    # Graham's bound, against what no dealing can go below.
    assert max(loads) <= 4 / 3 * max(weights.max(), weights.sum() / n) + 1e-9


def test_items_of_no_weight_are_dealt_in_turn():
    assert sorted(deal([0.0] * 4, 2)) == [0, 0, 1, 1]


def test_the_option():
    assert parse_shard("2/4") == Shard(2, 4)
    assert parse_shard(None) is None
    assert Shard(2, 4).name == "2of4"


@pytest.mark.parametrize("text", ["4/4", "1", "a/b", "-1/2", "1/0", ""])
def test_a_wrong_option_is_one_sentence(text):
    with pytest.raises(CanopyError, match=r"--shard is .*expected K/N"):
        parse_shard(text)
