"""What the tasks of a run call."""

from pathlib import Path

import pytest

from local.cluster.conf import read_conf
from local.cluster.jobs import RunRequest, plan_run

ROOT = Path(__file__).resolve().parents[3]


def calls(cache):
    """Scripts of all tasks with the options they are called with."""
    places = {name: Path(name) for name in ("conf", "datadir", "dumpdir", "expdir")}
    request = RunRequest(
        recipe="demo",
        tag="t",
        **places,
        **{"device": "cpu", "overrides": [], "first": 0, "last": 5, "folds": [0, 1]},
        **{"all_folds": True, "n_cycles": 1, "cache": cache},
    )
    jobs = plan_run(request, read_conf([ROOT / "conf" / "slurm.conf"]))
    return [(job, call) for job in jobs for task in job.tasks for call in task.commands]


@pytest.mark.parametrize("cache", ["$TMPDIR", "none", None])
def test_the_cache_is_of_those_that_read_the_dump(cache):
    for job, call in calls(cache):
        given = call[call.index("--cache") + 1] if "--cache" in call else None
        assert given == (cache if job.stage in ("train", "infer") else None), call
