"""Runs as jobs of a cluster: scripts, refusals and what is handed in again. Slurm is replaced by
programs that answer as written here; tests/slurm/ does the same with a real one."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.scripts import in_a_shell

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """#!{python}
import json, os, sys
name, folder = os.path.basename(sys.argv[0]), {folder!r}
with open(folder + "/calls", "a") as calls:
    calls.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
answers = json.load(open(folder + "/answers"))
if name == "sbatch":
    n = sum(json.loads(line)[0] == "sbatch" for line in open(folder + "/calls"))
    if n == answers.get("refuse"):
        sys.exit("sbatch: error: Batch job submission failed: no more of you")
    print(100 + n)
else:
    print(answers.get(name, ""))
    sys.exit(answers.get(name + " code", 0))
"""
SINFO = "main*|8:00:00|8|16000|(null)\ngpus|1-00:00:00|16+|64000+|gpu:a100:2(S:0-1)"
STAGES = ("preprocess", "train", "infer", "merge", "relabel", "submit", "detect")
SMALL = "cpus-per-task = 1\nmem = 1G\ntime = 00:30:00\ngres =\n"


def conf_of(**changed: str) -> str:
    """Settings that fit this cluster, with further lines in some sections."""
    return "".join(f"[{name}]\n{changed.get(name) or SMALL}" for name in ("site", *STAGES))


@pytest.fixture
def slurm(tmp_path):
    """A folder of pretended programs, and functions to call ours with them on PATH."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name in ("sbatch", "sinfo", "squeue", "scancel", "scontrol", "srun"):
        (folder / name).write_text(PROGRAM.format(python=sys.executable, folder=str(folder)))
        (folder / name).chmod(0o755)
    answers = {"sinfo": SINFO}

    def run(*options: str, conf: str = "", path: str | None = None, **changed):
        (folder / "answers").write_text(json.dumps(answers | changed))
        (folder / "calls").write_text("")
        (tmp_path / "site.conf").write_text(conf or conf_of())
        environment = os.environ | {"PYTHONPATH": str(ROOT), "VENV": str(tmp_path / "venv")}
        environment["PATH"] = path if path is not None else f"{folder}:{os.environ['PATH']}"
        command = [sys.executable, ROOT / "bin/cluster.py", *options]
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        calls = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]
        return SimpleNamespace(rc=ran.returncode, out=ran.stdout, err=ran.stderr, calls=calls)

    def submit(*options: str, **more):
        places = ["--conf", "conf/demo/tiny.yaml", "--device", "cpu"]
        for name in ("datadir", "dumpdir", "expdir"):
            places += [f"--{name}", str(tmp_path / name)]
        return run("submit", *places, "--slurm-conf", str(tmp_path / "site.conf"), *options, **more)

    return SimpleNamespace(run=run, submit=submit, folder=tmp_path, exp=tmp_path / "expdir/tiny")


def sbatches(ran) -> list[list[str]]:
    return [call for call in ran.calls if call[0] == "sbatch"]


def test_dry_run_prints_the_scripts_and_hands_in_nothing(slurm):
    ran = slurm.submit("--dry-run", conf=conf_of(preprocess="shards = 3\n"))
    assert ran.rc == 0, ran.err
    assert not ran.calls
    assert not slurm.exp.exists()
    assert "#SBATCH --array=0,1,2\n" in ran.out
    assert "--dependency=afterok:1 --kill-on-invalid-dep=yes" in ran.out
    assert "0 shard0of3, 1 shard1of3, 2 shard2of3" in ran.out
    assert "#SBATCH --job-name=tiny-train-cycle1" in ran.out
    for script in ran.out.split("# ---- sbatch ")[1:]:
        subprocess.run(["bash", "-n"], input=script.partition("\n")[2], text=True, check=True)


def test_nothing_of_a_path_or_a_setting_is_run(slurm):
    """Scripts quote what users name; sbatch reads quotes in its lines as a shell does."""
    odd = f'it\'s $(touch {slurm.folder}/ran) `x` "y"'
    conf = conf_of(site=f"{SMALL}comment = {odd}\nexclusive = yes\n")
    places = ("--dumpdir", f"{slurm.folder}/{odd}", "--expdir", f"{slurm.folder}/{odd} 100%")
    ran = slurm.submit(*places, "--set", f"model.init={odd}", "--dry-run", conf=conf)
    assert ran.rc == 0, ran.err
    for script in ran.out.split("# ---- sbatch ")[1:]:
        body = script.partition("\n")[2]
        lines = [line for line in body.splitlines() if line.startswith("#SBATCH ")]
        header = dict(shlex.split(line)[1].partition("=")[::2] for line in lines)
        assert header["--comment"] == odd
        assert header["--output"].startswith(f"{slurm.folder}/{odd} 100%%/tiny/cluster/001/logs/")
        assert header["--exclusive"] == ""
        told = subprocess.run(["bash"], input=body, capture_output=True, text=True, check=False)
        # As on a node that sees none of its folders.
        assert f"error: {slurm.folder}/{odd} 100%/tiny/.shared of the login node" in told.stderr
    assert not (slurm.folder / "ran").exists()


def test_a_backslash_is_refused_where_sbatch_would_eat_it(slurm):
    line = fault(slurm.submit(conf=conf_of(site=SMALL + "comment = a\\b\n")))
    assert "comment is 'a\\\\b': sbatch takes no backslash there" in line


def test_more_tasks_than_the_clusters_arrays_hold_are_refused(slurm):
    conf = conf_of(preprocess=SMALL + "shards = 30\n")
    small = {"scontrol": "MaxArraySize            = 20"}
    assert "preprocess has 30 tasks, arrays of this cluster hold 20 (MaxArraySize)" in fault(
        slurm.submit(conf=conf, **small)
    )


def test_each_stage_is_a_job_after_the_one_before(slurm):
    ran = slurm.submit("--seeds", "0 1")
    assert ran.rc == 0, ran.err
    given = sbatches(ran)
    names = [Path(call[-1]).stem for call in given]
    cycles = [f"{name}-cycle{n}" for n in (0, 1) for name in ("train", "infer", "merge")]
    cycles.insert(3, "relabel-cycle1")
    assert names == ["prepare", "preprocess", "manifest", "split", *cycles, "submit"]
    after = [next((o for o in call if o.startswith("--dependency")), None) for call in given]
    expected = [f"--dependency=afterok:{101 + n}" for n in range(len(given) - 1)]
    assert after == [None, *expected]
    record = json.loads((slurm.exp / "cluster/001/submission.json").read_text())
    train = next(job for job in record["jobs"] if job["name"] == "train-cycle0")
    tasks = ["seed0-fold0", "seed1-fold0", "seed0-fold1", "seed1-fold1"]
    assert [task["name"] for task in train["tasks"]] == tasks
    assert "seed=1" in train["tasks"][1]["commands"][0]


def fault(ran) -> str:
    assert ran.rc == 1, ran.out + ran.err
    (line,) = ran.err.splitlines()
    assert line.startswith("error: ")
    assert not sbatches(ran)
    return line


@pytest.mark.parametrize(
    ("section", "text", "words"),
    [
        ("train", "partition = fast", "partition fast does not exist; there are main, gpus"),
        ("train", "partition = gpus\ngres = gpu:3", "for 3 GPUs, its largest node or limit has 2"),
        ("train", "gres = gpu:1", "partition main for 1 GPUs"),
        ("infer", "gres =\ncpus-per-task = 9", "for 9 CPUs, its largest node or limit has 8"),
        ("infer", "gres =\nmem = 20G", "for 20480 MB of memory"),
        ("train", "gres =\nmem = 1G\ntime = 2-00:00:00", "for 2880 minutes"),
        ("train", "time = 8h", "time is '8h', expected as in"),
        ("train", "times = 8", "times is unknown; did you mean time"),
        ("infer", "shards = 0", "shards is '0', expected a whole number"),
        ("infer", "mem = much", "mem is 'much', expected as in 16G"),
        ("infer", "[trian]\ntime = 8", "section trian is unknown; did you mean train"),
        ("infer", "[infer", "site.conf"),
    ],
)
def test_what_the_cluster_does_not_have_is_refused_before_anything_is_handed_in(
    slurm, section, text, words
):
    assert words in fault(slurm.submit(conf=conf_of(**{section: text + "\n"})))
    assert not (slurm.exp / "cluster").exists()


def test_without_sbatch_or_with_a_silent_controller_it_says_so(slurm, tmp_path):
    assert "no sbatch on PATH" in fault(slurm.submit(path=str(tmp_path)))
    assert "sinfo ended with code 1" in fault(slurm.submit(**{"sinfo code": 1}))


def test_a_time_limit_shorter_than_an_epoch_is_refused(slurm):
    folder = slurm.exp / "cycle0/fold0"
    folder.mkdir(parents=True)
    (folder / "timing.csv").write_text("epoch,seconds,windows_per_s\n1,2000,1\n")
    line = fault(slurm.submit())
    assert "less than an epoch, which took 2000 s" in line


def test_folders_that_a_node_does_not_see_are_refused(slurm):
    line = fault(slurm.submit(srun="welcome to n7\nnot shared|n7|/home/a"))
    assert line.startswith("error: /home/a of this machine is not on n7")
    # Where no node can be asked, the tasks tell.
    ran = slurm.submit(srun="srun: Unable to allocate resources", **{"srun code": 1})
    assert ran.rc == 0, ran.err
    (call,) = (call for call in ran.calls if call[0] == "srun")
    word = (slurm.exp / ".shared").read_text()
    script = call[-1].replace("$(hostname)", "n7")
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout == ""
    (slurm.exp / ".shared").write_text("other")
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert ran.stdout == f"not shared|n7|{slurm.exp}\n"
    assert word in script


def test_what_is_refused_takes_back_what_was_handed_in(slurm):
    ran = slurm.submit(refuse=3)
    assert ran.rc == 1
    assert "no more of you" in ran.err
    assert ["scancel", "101", "102"] in ran.calls


def test_a_run_that_is_on_the_cluster_is_not_handed_in_again(slurm):
    assert slurm.submit().rc == 0
    assert "are on the cluster still (first: 101_0)" in fault(
        slurm.submit(squeue="101|0|RUNNING|None")
    )


def done(slurm, job: str, index: int) -> None:
    """Mark a task as one that ended well, as itself does."""
    script = (
        "import json, sys; from pathlib import Path\n"
        "from local.slurm.sent_jobs import *; from local.io.files import write_json\n"
        "home = Home(Path(sys.argv[1])); s = Submission.load(home.submissions()[-1])\n"
        "job = s.job(sys.argv[2]); task = job.tasks[int(sys.argv[3])]\n"
        "for name in task.leaves:\n"
        "    path = Path(name.replace('DUMP', s.context['dump'] or sys.argv[1] + '/dump'))\n"
        "    path.parent.mkdir(parents=True, exist_ok=True); path.touch()\n"
        "s.context['dump'] = s.context['dump'] or sys.argv[1] + '/dump'\n"
        "state = {'submission': s.folder.name, 'status': 'done'}\n"
        "state['left'] = left_of(task, s.context)\n"
        "state['print'] = task_print(task, s.context)\n"
        "write_json(home.task_file(job.name, task.name), state)\n"
    )
    home = str(slurm.exp / "cluster")
    command = [sys.executable, "-c", script, home, job, str(index)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)


def test_the_same_command_hands_in_what_is_not_done(slurm):
    options = ("--stage", "2", "--stop-stage", "2")
    assert slurm.submit(*options).rc == 0
    done(slurm, "prepare", 0)
    done(slurm, "train-cycle0", 0)
    ran = slurm.submit(*options)
    assert ran.rc == 0, ran.err
    (call,) = sbatches(ran)
    script = Path(call[-1]).read_text()
    assert "#SBATCH --array=1\n" in script
    assert "afterok" not in " ".join(call)
    done(slurm, "train-cycle0", 1)
    ran = slurm.submit(*options)
    assert not sbatches(ran)
    assert "nothing to hand in" in ran.err
    # Other settings are another run's; a file that is gone is made again.
    assert len(sbatches(slurm.submit(*options, "--set", "train.n_epochs=4"))) == 2
    shutil.rmtree(slurm.exp / "cycle0/fold1")
    (call,) = sbatches(slurm.submit(*options))
    assert Path(call[-1]).stem == "train-cycle0"


def test_status_tells_which_task_failed_and_what_follows_on_it(slurm):
    slurm.submit("--stage", "2", "--stop-stage", "3")
    done(slurm, "prepare", 0)
    done(slurm, "train-cycle0", 0)
    home = slurm.exp / "cluster"
    state = {"submission": "001", "status": "failed", "reason": "exit code 1: error: no disk"}
    (home / "tasks/train-cycle0-fold1.json").write_text(json.dumps(state))
    queue = "103|0|CANCELLED|Dependency\n102|1|FAILED|NonZeroExitCode"
    ran = slurm.run("status", str(slurm.exp), squeue=queue)
    assert ran.rc == 1
    assert "train-cycle0-fold1 (102_1) failed: exit code 1: error: no disk" in ran.out
    assert "001/logs/train-cycle0" in ran.out
    assert "follows on train-cycle0-fold1, which did not end well: infer-cycle0" in ran.out
    (home / "tasks/train-cycle0-fold1.json").write_text(json.dumps(state | {"status": "stopped"}))
    ran = slurm.run("status", str(slurm.exp), squeue="102|1|CANCELLED|None")
    assert "train-cycle0-fold1 (102_1) cancelled: by scancel" in ran.out
    waiting = slurm.run("cancel", str(slurm.exp), squeue="103|0|PENDING|Dependency")
    assert ["scancel", "103_0"] in waiting.calls
    # What the queue has forgotten was cancelled all the same.
    (home / "tasks/train-cycle0-fold1.json").unlink()
    record = json.loads((home / "001/submission.json").read_text())
    (home / "001/submission.json").write_text(json.dumps({**record, "cancelled": ["102_1"]}))
    ran = slurm.run("status", str(slurm.exp), squeue="")
    assert "train-cycle0-fold1 (102_1) cancelled: by scancel" in ran.out


def test_force_and_unknown_runs_are_refused(slurm):
    assert "--force goes with no --launcher slurm" in fault(slurm.submit("--force"))
    assert "nothing of it was handed in" in fault(slurm.run("status", str(slurm.folder)))


def test_detection_is_dealt_to_shares(slurm):
    site = str(slurm.folder / "site.conf")
    model, sounds = slurm.folder / "model", slurm.folder / "sounds"
    options = (str(model), str(sounds), f"--out={slurm.folder / 'found'}")
    conf = conf_of(detect=SMALL + "shards = 2\n")
    model.mkdir()
    line = fault(slurm.run("detect", "--slurm-conf", site, "--", *options, conf=conf))
    assert f"{sounds}: no such file or folder" in line
    sounds.mkdir()
    ran = slurm.run("detect", "--slurm-conf", site, "--", *options, conf=conf)
    assert ran.rc == 0, ran.err
    (shares, whole) = sbatches(ran)
    assert [Path(call[-1]).stem for call in (shares, whole)] == ["detect", "gather"]
    assert "--dependency=afterok:101" in whole
    record = json.loads((slurm.folder / "found.cluster/001/submission.json").read_text())
    commands = [task["commands"][0] for job in record["jobs"] for task in job["tasks"]]
    plain = ["bin/detect.py", *options]
    assert commands == [[*plain, "--shard", "0/2"], [*plain, "--shard", "1/2"], plain]
    assert "detect" in slurm.run("status", str(slurm.folder / "found")).out


def test_the_plan_of_an_archive():
    options = ("--hours", "1e5", "--workers", 64, "--rate", 300, "--bandwidth", 0.1)
    assert "bottleneck: the shared disk" in in_a_shell("plan", *options).out
