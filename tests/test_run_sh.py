"""run.sh: what it calls, in which order, and how it ends. Scripts are replaced by a recorder."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
RECORDER = """#!{python}
import json, os, sys
if sys.argv[1] == "-I" or "run_stages" in sys.argv[1]:  # set-up asks for the version
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with open({record!r}, "a") as record:
    record.write(json.dumps([sys.argv[1:], os.environ["PYTHONPATH"]]) + "\\n")
if os.environ.get("BREAK") and os.environ["BREAK"] in sys.argv[1]:
    sys.exit(int(os.environ.get("CODE", "3")))
if os.environ.get("HANG") and os.environ["HANG"] in sys.argv[1]:
    import signal, time
    def note(number, frame):
        with open({record!r} + ".signals", "a") as signals:
            signals.write(signal.Signals(number).name + "\\n")
        time.sleep(0.5)  # as if it saved
        with open({record!r} + ".saved", "w"):
            sys.exit(int(os.environ.get("CODE", "75")))
    for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
        signal.signal(getattr(signal, name), note)
    with open({record!r} + ".hangs", "w"):
        time.sleep(60)
"""
SCRIPTS = ["check_config", "prepare", "preprocess", "split", "sed_train", "sed_infer"]


@pytest.fixture
def clone(tmp_path, ready_environment):
    """A clone with a recipe `mice`, and a ready environment whose Python writes down its calls."""
    folder = tmp_path / "a clone"
    for name in ("bin", "recipes/demo", "recipes/mice", "conf/demo", "conf/mice"):
        (folder / name).mkdir(parents=True)
    (folder / "local").symlink_to(ROOT / "local")
    for name in ("run.sh", "bin/setup_env.sh", "bin/run_stages.py"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("conf/demo/default.yaml", "conf/mice/default.yaml", "conf/mice/loud.yaml"):
        (folder / name).write_text("relabel: {n_cycles: 2}\n")
    for name in ("recipes/demo/prepare.py", "recipes/mice/prepare.py"):
        (folder / name).write_text("")
    for name in ("requirements.txt", "requirements-dev.txt", "requirements.lock"):
        (folder / name).write_text("# none\n")
    recorder = RECORDER.format(python=sys.executable, record=str(tmp_path / "calls"))
    ready_environment(folder / ".venv", folder, recorder)
    return folder


def run(clone: Path, *options: str, cwd: Path | None = None, script: Path | None = None, **extra):
    """Run run.sh; return rc, out, err and the calls that Python got, the newest run's only."""
    record = clone.parent / "calls"
    record.unlink(missing_ok=True)
    hidden = ("VENV", "PYTHON", "PYTHONPATH", "SLURM_CPUS_PER_TASK", "SLURM_SUBMIT_DIR", "BREAK")
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | extra
    ran = subprocess.run(
        [script or clone / "run.sh", *options],
        cwd=cwd or clone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = record.read_text().splitlines() if record.exists() else []
    records = [json.loads(line) for line in lines]
    return SimpleNamespace(
        rc=ran.returncode,
        out=ran.stdout,
        err=ran.stderr,
        calls=[arguments for arguments, _ in records],
        paths={path for _, path in records},
    )


def scripts(calls: list[list[str]]) -> list[str]:
    return [Path(call[0]).stem for call in calls]


def option(call: list[str], name: str) -> str:
    return call[call.index(name) + 1]


def test_no_argument_runs_all_stages_of_the_demo(clone):
    """Pins defect 47 of earlier systems: nothing ran without a cluster."""
    ran = run(clone, SLURM_CPUS_PER_TASK="3")
    assert ran.rc == 0, ran.err
    cycle = ["relabel", "sed_train", "sed_infer"]
    assert scripts(ran.calls) == [*SCRIPTS, *cycle, *cycle, "submit"]
    assert [option(c, "--cycle") for c in ran.calls if "--cycle" in c] == list("00111222")
    assert option(ran.calls[0], "--stages") == "0 1 2 3 4 5"
    common = {
        "--recipe": "demo",
        "--conf": "conf/demo/default.yaml",
        "--tag": "default",
        "--datadir": "data/demo",
        "--dumpdir": "dump/demo",
        "--expdir": "exp/demo",
        "--device": "auto",
        "--nj": "3",
    }
    for call in ran.calls:
        if Path(call[0]).stem != "prepare":
            assert {name: option(call, name) for name in common} == common
    assert ran.calls[1] == [
        *("recipes/demo/prepare.py", "--datadir", "data/demo", "--out", "dump/demo/tables"),
        *("--conf", "conf/demo/default.yaml", "--nj", "3"),
    ]
    assert ran.paths == {str(clone)}
    assert "report: exp/demo/default/report.html" in ran.err


def test_options_reach_the_scripts_as_they_were_given(clone):
    ran = run(
        clone,
        *("--recipe", "mice", "--conf=conf/mice/loud.yaml", "--datadir", "/my data/it's"),
        *("--set", "prepare.note=two  words $HOME", "--set=prepare.b=c=d"),
        *("--folds", "0 1 2 3 4"),
        *("--n-cycles", "1", "--n-gpus=2", "--device", "cuda", "--force", "--nj", "7"),
        *("--ranks", "2", "--n-nodes", "3"),
        *("--cache", "$TMPDIR"),
        TMPDIR="/fast",
    )
    assert ran.rc == 0, ran.err
    assert scripts(ran.calls).count("relabel") == 1
    for call in ran.calls:
        settings = [call[i + 1] for i, word in enumerate(call) if word == "--set"]
        assert settings == ["prepare.note=two  words $HOME", "prepare.b=c=d", "relabel.n_cycles=1"]
        assert option(call, "--datadir") == "/my data/it's"
        assert option(call, "--conf") == "conf/mice/loud.yaml"
        assert option(call, "--nj") == "7"
        assert call.count("--force") == 1
        name = Path(call[0]).stem
        if name != "prepare":
            assert (option(call, "--tag"), option(call, "--device")) == ("loud", "cuda")
        if name in ("sed_train", "sed_infer"):
            assert (option(call, "--folds"), option(call, "--cache")) == ("0 1 2 3 4", "$TMPDIR")
        else:
            assert not {"--folds", "--cache"} & set(call)
        for word in ("--n-gpus", "--ranks", "--n-nodes"):
            assert (word in call) == (name == "sed_train")


@pytest.mark.parametrize(("first", "last"), [("2", "3"), ("train", "infer"), ("2", "infer")])
def test_a_range_of_stages_by_number_or_name(clone, first, last):
    ran = run(clone, "--stage", first, "--stop-stage", last)
    assert ran.rc == 0, ran.err
    assert scripts(ran.calls) == ["check_config", "sed_train", "sed_infer"]
    assert option(ran.calls[0], "--stages") == "2 3"
    assert "report:" not in ran.err


def test_no_cycles_no_relabelling(clone):
    ran = run(clone, "--stage", "relabel", "--n-cycles", "0")
    assert scripts(ran.calls) == ["check_config", "submit"]


def test_dry_run_prints_the_commands_of_the_run(clone):
    options = ["--set", "prepare.b=two words's", "--n-cycles", "1", "--folds", "0 1 2 3 4"]
    dry = run(clone, *options, "--dry-run")
    assert (dry.rc, dry.calls) == (0, [])
    printed = [shlex.split(line) for line in dry.out.splitlines()]
    assert {command[0] for command in printed} == {str(clone / ".venv/bin/python")}
    assert [command[1:] for command in printed] == run(clone, *options).calls
    assert len(printed) == 10


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--set", "a"], "expected section.key=value"),
        (["--set", "task=foo"], "task is 'foo'"),
        (["--set", "features.kind=foo"], "features.kind is 'foo'"),
        (["--folds", "9"], "names fold 9"),
        (["--folds", "0"], "add --stop-stage infer, or --n-cycles 0"),
    ],
)
def test_what_cannot_run_is_no_dry_run_either(clone, options, told):
    for dry in ([], ["--dry-run"]):
        ran = run(clone, *options, *dry)
        assert (ran.rc, ran.out, ran.calls) == (1, "", [])
        assert told in ran.err
        assert "Traceback" not in ran.err


def test_dry_run_asks_a_ready_environment_for_the_cycles_and_needs_none(clone):
    assert (
        scripts([c.split()[2:] for c in run(clone, "--dry-run").out.splitlines()]).count("relabel")
        == 2
    )
    shutil.rmtree(clone / ".venv")
    ran = run(clone, "--dry-run")
    assert ran.rc == 0, ran.err
    assert ran.out.count("bin/relabel.py") == 1
    assert not (clone / ".venv").exists()


def test_a_failing_stage_says_which_and_how_to_go_on(clone):
    ran = run(clone, "--tag", "x", "--set", "prepare.b=c d", BREAK="sed_infer")
    assert ran.rc == 3
    assert scripts(ran.calls)[-1] == "sed_infer"
    last = ran.err.splitlines()[-1]
    assert "stage 3 (infer) failed with exit code 3" in last
    assert last.endswith("run.sh --tag x --set 'prepare.b=c d' --stage 3")


def test_a_stage_that_was_stopped_says_continue(clone):
    ran = run(clone, "--tag", "x", BREAK="sed_train", CODE="75")
    assert (ran.rc, scripts(ran.calls)[-1]) == (75, "sed_train")
    last = ran.err.splitlines()[-1]
    assert "stage 2 (train) was stopped by a signal to one of its processes; what is done" in last
    assert last.endswith("run.sh --tag x --stage 2")


@pytest.fixture
def hanging(clone):
    """Function: code, where -> run.sh (in a session of its own) in a stage that hangs."""
    started = []

    def start(code="75", **more):
        hidden = ("VENV", "PYTHON", "PYTHONPATH", "SLURM_CPUS_PER_TASK", "BREAK")
        environment = {k: v for k, v in os.environ.items() if k not in hidden}
        environment |= {"HANG": "split", "CODE": code, **more}
        process = subprocess.Popen(
            [clone / "run.sh", "--stage", "split"],
            cwd=clone,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # What a shell starts in the background ignores Ctrl-C, and these tests may be there.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        started.append(process)
        end = time.monotonic() + 60
        while not (clone.parent / "calls.hangs").exists() and time.monotonic() < end:
            time.sleep(0.02)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("name", "sent", "code"),
    [("SIGTERM", "SIGTERM", "75"), ("SIGUSR1", "SIGUSR1", "0"), ("SIGINT", "SIGTERM", "143")],
)
def test_a_signal_is_passed_on_to_the_stage_which_is_waited_for(clone, hanging, name, sent, code):
    process = hanging(code)
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert (clone.parent / "calls.saved").exists()
    assert (clone.parent / "calls.signals").read_text().split() == [sent]
    last = err.splitlines()[-1]
    assert f"stage 1 (split) was stopped by {name}; what is done is saved" in last
    assert last.endswith("run.sh --stage split --stage 1")
    calls = (clone.parent / "calls").read_text()
    assert "bin/split.py" in calls
    assert "bin/sed_train.py" not in calls


@pytest.mark.parametrize(("restarts", "name"), [("0", "USR1"), ("3", "USR1"), ("0", "TERM")])
def test_a_job_is_requeued_before_its_time_limit_a_bounded_number_of_times(
    clone, hanging, restarts, name, tmp_path
):
    # After it has asked, a job waits for Slurm to end it.
    (tmp_path / "scontrol").write_text(
        f'#!/bin/sh\necho scontrol "$@" >> "{tmp_path}/asked"\n(sleep 1; kill $PPID) &\n'
    )
    (tmp_path / "scontrol").chmod(0o755)
    job = {"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": restarts, "CANOPY_MAX_REQUEUES": "3"}
    process = hanging(PATH=f"{tmp_path}:{os.environ['PATH']}", **job)
    process.send_signal(getattr(signal, f"SIG{name}"))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    asked = tmp_path / "asked"
    if name == "USR1" and restarts == "0":
        assert asked.read_text().splitlines()[0] == "scontrol requeue 17"
    else:
        assert not asked.exists()
    assert ("CANOPY_MAX_REQUEUES is 3" in err) == (restarts == "3")


def test_a_stage_that_fails_while_it_is_stopped_has_failed(hanging):
    process = hanging("1")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stage 1 (split) failed with exit code 1" in err


def test_a_bad_configuration_stops_before_any_stage(clone):
    ran = run(clone, BREAK="check_config")
    assert (ran.rc, scripts(ran.calls)) == (3, ["check_config"])
    assert "check of the configuration failed" in ran.err


@pytest.mark.parametrize("ready", [True, False])
def test_wrong_usage_is_one_sentence_and_runs_and_installs_nothing(clone, ready):
    if not ready:
        shutil.rmtree(clone / ".venv")
    ran = run(clone, "--conf --tag", "x")
    assert (ran.rc, ran.out, ran.calls) == (2, "", [])
    assert ran.err.count("\n") == 1
    assert "run.sh: unknown option '--conf --tag'; known: --recipe" in ran.err
    assert (clone / ".venv").exists() == ready


def test_the_launcher_of_jobs_gets_what_was_asked_for(clone):
    options = ["--launcher", "slurm", "--stage", "train", "--seeds", "0 1", "--folds=1"]
    ran = run(clone, *options, "--n-cycles", "2", "--set", "a.b=c", "--dry-run")
    assert ran.rc == 0, ran.err
    (call,) = ran.calls
    assert call[:2] == ["bin/cluster.py", "submit"]
    given = {"--stage": "2", "--stop-stage": "5", "--seeds": "0 1", "--folds": "1"}
    assert {name: option(call, name) for name in given} == given
    assert call[-5:] == ["--set", "a.b=c", "--set", "relabel.n_cycles=2", "--dry-run"]


def test_help_needs_no_environment(clone):
    shutil.rmtree(clone / ".venv")
    ran = run(clone, "--recipe", "rats", "--help")
    assert (ran.rc, ran.calls) == (0, [])
    assert "  --stop-stage N|NAME " in ran.out
    assert not (clone / ".venv").exists()


def test_from_another_folder_and_through_a_link(clone, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.yaml").write_text("")
    (elsewhere / "go").symlink_to(clone / "run.sh")
    options = ["--stage", "1", "--stop-stage", "1", "--conf", "mine.yaml", "--datadir=sounds"]
    ran = run(clone, *options, cwd=elsewhere, script=elsewhere / "go")
    assert ran.rc == 0, ran.err
    (_, split) = ran.calls
    assert option(split, "--conf") == str(elsewhere / "mine.yaml")
    assert option(split, "--datadir") == str(elsewhere / "sounds")
    assert option(split, "--expdir") == "exp/demo"
    assert option(split, "--tag") == "mine"


def test_a_copy_given_to_slurm_finds_the_folder_of_submission(clone, tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir()
    shutil.copy(clone / "run.sh", spool / "slurm_script")
    copy = spool / "slurm_script"
    ran = run(clone, "--stage", "5", script=copy, SLURM_SUBMIT_DIR=str(clone))
    assert ran.rc == 0, ran.err
    assert scripts(ran.calls) == ["check_config", "submit"]
    lost = run(clone, script=copy, SLURM_SUBMIT_DIR=str(tmp_path))
    assert lost.rc == 2
    assert "no project in" in lost.err


def test_set_up_that_fails_stops_the_run(clone):
    shutil.rmtree(clone / ".venv")
    ran = run(clone, PYTHON="/absent/python")
    assert (ran.rc, ran.calls) == (1, [])
    assert ran.err.count("\n") == 1


def test_another_environment(clone, tmp_path):
    (clone / ".venv").rename(tmp_path / "shared env")
    ran = run(clone, "--stage=1", "--stop-stage=split", VENV=str(tmp_path / "shared env"))
    assert scripts(ran.calls) == ["check_config", "split"]
    assert not (clone / ".venv").exists()


def test_make_help_lists_the_targets():
    told = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True, check=True)
    assert re.findall(r"^  make ([\w-]+)", told.stdout, re.M) == [
        *("help", "setup", "setup-eval", "demo", "test", "test-quick", "lint", "gpu"),
        *(
            "bench",
            "bench-rivals",
            "bench-sizing",
            "bench-song",
            "faults",
            "test-slurm",
            "fuzz",
            "ladder",
            "transfer",
            "clean",
        ),
    ]
