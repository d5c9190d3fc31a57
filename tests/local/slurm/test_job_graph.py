"""What the tasks of a run call."""

from pathlib import Path

import pytest

from local.slurm.conf import read_conf
from local.slurm.job_graph import RunRequest, plan_detect, plan_run

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


def test_more_tasks_than_an_array_holds_are_several_jobs(tmp_path):
    path = tmp_path / "site.conf"
    path.write_text("[detect]\nshards = 2500\n")
    *parts, last = plan_detect(["run", "sounds"], tmp_path, read_conf([path]))
    assert [job.name for job in parts] == [f"detect-part{number}" for number in (1, 2, 3)]
    assert [len(job.tasks) for job in parts] == [1000, 1000, 500]
    assert [task.name for job in parts for task in job.tasks][1999] == "shard1999of2500"
    assert [job.n_parts for job in parts] == [3, 3, 3]
    assert last.after == [job.name for job in parts]
