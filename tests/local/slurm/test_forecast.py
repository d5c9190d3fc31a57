"""The schedule played through, against what can be worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from local.io.errors import CanopyError
from local.slurm.forecast import Machines, Workload, bottleneck, fed_rate, forecast, play

LOAD = Workload(
    hours=1000.0, n_shards=100, recording_hours=1.0, gb_per_hour=0.3, kept_gb_per_hour=0.0
)
CALM = Machines(
    n_workers=10,
    rate=10.0,
    spread=0.0,
    mtbf_hours=math.inf,
    repair_hours=0.0,
    requeue_hours=0.0,
    start_hours=0.1,
    max_retries=20,
    bandwidth_gb_s=math.inf,
    cost=2.0,
    tb_month=20.0,
)


def test_without_failures_it_is_a_division():
    found = forecast(LOAD, CALM, 0, 3)
    # 10 shares a worker, each a tenth of an hour to start and one hour of work.
    assert found["wall hours"] == pytest.approx(11.0)
    assert found["worker-hours"] == pytest.approx(110.0)
    assert found["cost"] == pytest.approx(220.0)
    # 0.3 TB, at 20 for a TB and month.
    assert found["disk cost a month"] == pytest.approx(6.0)
    assert found["ideal wall hours"] == pytest.approx(10.0)
    assert found["shares interrupted"] == found["shares given up"] == 0


def test_failures_come_as_often_as_they_are_said_to():
    fleet = replace(CALM, mtbf_hours=5.0, start_hours=0.0)
    courses = [play(LOAD, fleet, np.random.default_rng(n)) for n in range(60)]
    # Failures are a Poisson process in hours of work: the mean is hours over the time between.
    mean = np.mean([course.n_failures for course in courses])
    worked = np.mean([course.busy_hours for course in courses])
    assert mean == pytest.approx(worked / 5.0, rel=0.1)
    # Half a recording is lost each time, more or less; what is worked is what was to do and that.
    lost = np.mean([course.lost_hours for course in courses])
    assert worked == pytest.approx(100.0 + lost, rel=1e-6)
    assert lost / mean == pytest.approx(0.05, rel=0.15)
    assert all(course.n_given_up == 0 for course in courses)


def test_a_node_fails_with_all_its_workers():
    # In step with each other, for they are equally fast: all ten are interrupted, or none.
    fleet = replace(CALM, mtbf_hours=5.0, start_hours=0.0, repair_hours=2.0, per_node=10)
    courses = [play(LOAD, fleet, np.random.default_rng(n)) for n in range(60)]
    times = [course.n_failures / 10 for course in courses]
    assert all(number.is_integer() for number in times)
    worked = np.mean([course.busy_hours for course in courses])
    assert np.mean(times) == pytest.approx(worked / 10 / 5.0, rel=0.2)
    # The rest of the time it is repaired.
    idle = [course.wall_hours - course.busy_hours / 10 for course in courses]
    assert idle == pytest.approx([2.0 * number for number in times])


def test_a_share_that_never_ends_is_given_up():
    fleet = replace(CALM, mtbf_hours=0.01, max_retries=3)
    course = play(replace(LOAD, recording_hours=50.0), fleet, np.random.default_rng(0))
    assert course.n_given_up == 100
    assert course.n_failures == 400


def test_the_disk_holds_workers_back():
    fleet = replace(CALM, bandwidth_gb_s=0.3 / 3600 * 50)
    assert fed_rate(LOAD, fleet) == pytest.approx(5.0)
    found = forecast(LOAD, fleet, 0, 1)
    assert found["wall hours"] == pytest.approx(21.0)
    assert "shared disk" in bottleneck(LOAD, fleet, found)


def test_it_is_the_same_for_a_seed():
    fleet = replace(CALM, mtbf_hours=5.0, spread=0.2)
    assert forecast(LOAD, fleet, 1, 3) == forecast(LOAD, fleet, 1, 3)
    assert forecast(LOAD, fleet, 1, 3) != forecast(LOAD, fleet, 2, 3)


def test_too_few_shares_are_told():
    load = replace(LOAD, n_shards=5)
    assert "too few shares" in bottleneck(load, CALM, forecast(load, CALM, 0, 1))


def test_numbers_that_mean_nothing_are_refused():
    with pytest.raises(CanopyError, match="--rate is 0"):
        forecast(LOAD, replace(CALM, rate=0.0), 0, 1)
    with pytest.raises(CanopyError, match="--per-node is 0"):
        forecast(LOAD, replace(CALM, per_node=0), 0, 1)
    with pytest.raises(CanopyError, match="--workers is 0"):
        forecast(LOAD, replace(CALM, n_workers=0), 0, 1)
