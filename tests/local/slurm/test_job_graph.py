"""What the tasks of a run call."""

from pathlib import Path

import pytest

from local.slurm.conf import read_conf
from local.slurm.job_graph import RunRequest, plan_detect, plan_run

ROOT = Path(__file__).resolve().parents[3]


def jobs(conf, **more):
    """The jobs of a run of one cycle."""
    places = {name: Path(name) for name in ("conf", "datadir", "dumpdir", "expdir")}
    request = RunRequest(
        recipe="demo",
        tag="t",
        **places,
        **{"device": "cpu", "overrides": [], "first": 0, "last": 5, "folds": [0, 1]},
        **{"all_folds": True, "cycles": [1], **more},
    )
    return plan_run(request, read_conf([conf]))


def test_jobs_are_the_parts_of_the_graph_in_its_order(tmp_path):
    conf = tmp_path / "site.conf"
    conf.write_text("[preprocess]\nshards = 2\n[infer]\nshards = 3\n")
    made = jobs(conf, seeds=[4, 5])
    cycles = [
        [f"{name}-cycle{cycle}" for name in ("train", "infer", "gather", "merge")]
        for cycle in (0, 1)
    ]
    assert [job.name for job in made] == [
        *("prepare", "preprocess", "manifest", "split", *cycles[0], "relabel-cycle1", *cycles[1]),
        "submit",
    ]
    assert [job.after for job in made] == [[], *([job.name] for job in made[:-1])]
    assert [job.stage for job in made if len(job.tasks) == 2 * 2 * 3] == ["infer", "infer"]
    named = {job.name: job for job in made}
    assert [task.name for task in named["gather-cycle1"].tasks] == [
        *("seed4-fold0", "seed5-fold0", "seed4-fold1", "seed5-fold1"),
    ]
    assert named["gather-cycle1"].tasks[1].leaves == [
        f"expdir/t-seed5/cycle1/fold0/{name}" for name in ("infer.done.json", "scores.npz")
    ]
    assert named["merge-cycle0"].threads_of == "infer"
    for job in made:
        for task in job.tasks:
            for call in task.commands:
                assert ("--worker" in call) == (job.stage in ("train", "infer")), call
                assert ("--shard" in call) == ("shard" in task.name)
                assert call.count("--set") == 1


@pytest.mark.parametrize("cache", ["$TMPDIR", "none", None])
def test_the_cache_is_of_those_that_read_the_dump(cache):
    for job in jobs(ROOT / "conf" / "slurm.conf", cache=cache):
        for call in (call for task in job.tasks for call in task.commands):
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
