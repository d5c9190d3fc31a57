"""Settings of the cluster in its own words."""

from pathlib import Path

import pytest

from local.io.errors import CanopyError
from local.slurm.conf import count_gpus, count_gres, parse_memory, parse_time, read_conf
from local.slurm.job_graph import RunRequest, plan_run


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("30", 30),
        ("30:30", 30.5),
        ("08:00:00", 480),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("2-00:00:30", 2880.5),
        ("UNLIMITED", None),
    ],
)
def test_times_as_sbatch_reads_them(text, minutes):
    assert parse_time(text) == minutes


@pytest.mark.parametrize("text", ["8h", "", "-1", "0", "1:2:3:4", "1-", "00:00:00"])
def test_other_times_are_refused(text):
    with pytest.raises(CanopyError, match="time is"):
        parse_time(text)


def test_memory_and_gpus():
    assert parse_memory("16G") == 16384
    assert parse_memory("4000") == 4000
    assert parse_memory("1.5T") == 1.5 * 1024 * 1024
    gpus = ("gpu:2", "gpu:a100:4(S:0-1)", "gpu", "2", "a100:3", "(null)", "")
    assert [count_gpus(text) for text in gpus] == [2, 4, 1, 2, 3, 0, 0]


def test_other_resources_are_no_gpus():
    assert count_gres("lscratch:100,gpu:a100:2(S:0,1),gres:gpu:1") == 3
    assert count_gres("lscratch:100") == 0


@pytest.mark.parametrize(
    ("text", "gpus", "memory_mb"),
    [
        ("gpus-per-node = a100:2\nmem-per-gpu = 8G", 2, 16384),
        ("nodes = 2\ngpus = 4", 2, 0),
        ("gres = lscratch:40,gpu:1\nmem-per-cpu = 2G\ncpus-per-task = 4", 1, 8192),
    ],
)
def test_gpus_and_memory_of_a_node_however_they_are_asked_for(tmp_path, text, gpus, memory_mb):
    path = tmp_path / "site.conf"
    path.write_text(f"[train]\n{text}\n")
    train = read_conf([path]).of("train")
    assert (train.gpus, train.memory_mb) == (gpus, memory_mb)


def test_a_comment_may_follow_a_value(tmp_path):
    path = tmp_path / "site.conf"
    path.write_text("[train]\ngres = gpu:1 # of any kind\n")
    assert read_conf([path]).of("train").options == {"gres": "gpu:1"}


def test_more_ranks_than_gpus_are_refused(tmp_path):
    path = tmp_path / "site.conf"
    path.write_text("[train]\nranks = 4\ngres = gpu:2\n")
    with pytest.raises(CanopyError, match=r"\[train\] ranks is 4, but it asks for 2 GPUs"):
        read_conf([path])
    path.write_text("[train]\nranks = 4\n")
    assert read_conf([path]).of("train").own["ranks"] == 4


def test_later_files_change_keys_and_empty_values_take_them_away(tmp_path):
    first, second = tmp_path / "a.conf", tmp_path / "b.conf"
    first.write_text("[site]\npartition = main\n[train]\ngres = gpu:2\nmem = 8G\n")
    second.write_text("[train]\ngres =\nthreads = 3\n")
    train = read_conf([first, second]).of("train")
    assert train.options == {"partition": "main", "mem": "8G"}
    assert (train.gpus, train.memory_mb, train.threads, train.cpus) == (0, 8192, 3, 1)


def test_the_settings_of_the_house_can_be_read():
    conf = read_conf([Path(__file__).resolve().parents[3] / "conf/slurm.conf"])
    assert conf.of("train").gpus == 1
    assert conf.of("split").minutes == 30


def test_ranks_and_nodes_are_for_training(tmp_path):
    path = tmp_path / "site.conf"
    path.write_text("[train]\nnodes = 2\nranks = 4\ngres = gpu:4\n")
    conf = read_conf([path])
    request = RunRequest(
        *("toy", Path("toy.yaml"), "toy", Path("data"), Path("dump"), Path("exp"), "auto", []),
        *(2, 2, [0, 1], True, []),
    )
    jobs = {job.name: job for job in plan_run(request, conf)}
    (command,) = jobs["train-cycle0"].tasks[1].commands
    given = ["--folds", "1", "--ranks", "4", "--n-nodes", "2", "--cycle", "0", "--worker"]
    assert command[-len(given) :] == given
    for line in ("nodes = 2", "ranks = 4"):
        path.write_text(f"[infer]\n{line}\n")
        with pytest.raises(
            CanopyError, match=r"\[infer\] has ranks or nodes, which only \[train\]"
        ):
            read_conf([path])
