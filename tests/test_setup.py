"""bin/setup_env.sh: an environment is made once, whole or not at all, and finds its clone."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SECOND_RUN_LIMIT_S = 300  # far above any machine: stops a test that waits for a lock for ever
WHERE = "import local.io.errors; print(local.io.errors.__file__)"


def set_up(clone: Path, *options: str, **environment: str) -> subprocess.CompletedProcess:
    """Run the set-up of a clone with a Python that suits, unless told otherwise."""
    outside = {k: v for k, v in os.environ.items() if k not in ("VENV", "PYTHON", "PYTHONPATH")}
    return subprocess.run(
        [clone / "bin/setup_env.sh", *options],
        env=outside | {"PYTHON": sys.executable} | environment,
        cwd=clone.parent,
        capture_output=True,
        text=True,
        timeout=SECOND_RUN_LIMIT_S,
        check=False,
    )


def make_clone(folder: Path) -> Path:
    """Return a clone that has what set-up looks at, and needs no package."""
    (folder / "bin").mkdir(parents=True)
    (folder / "local").mkdir()
    shutil.copy(ROOT / "bin/setup_env.sh", folder / "bin")
    (folder / "local/io/errors.py").write_text("")
    (folder / "bin/where.py").write_text(WHERE)
    (folder / "requirements.txt").write_text("# nothing\n")
    return folder


def where(python: Path, *arguments: str, cwd: Path) -> str:
    """Return the file of the project that a Python started like this imports, or "none"."""
    outside = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    ran = subprocess.run(
        [python, *arguments], cwd=cwd, env=outside, capture_output=True, text=True, check=False
    )
    return ran.stdout.strip() if ran.returncode == 0 else "none"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Two clones and the environment that both use, which lies in neither."""
    folder = tmp_path_factory.mktemp("with space")
    clones = [make_clone(folder / name) for name in ("first", "second")]
    ran = set_up(clones[0], VENV=str(folder / "env"))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"{folder / 'env'}\n"
    return folder, clones


def test_second_run_installs_nothing(shared):
    folder, clones = shared
    before = (folder / "env/canopy.stamp").stat().st_mtime_ns
    for clone in clones:
        os.utime(clone / "requirements.txt")  # a later date alone is no reason
        ran = set_up(clone, VENV="env")  # seen from the folder of the call
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{folder / 'env'}\n", "")
    assert (folder / "env/canopy.stamp").stat().st_mtime_ns == before


def test_changed_requirements_are_noticed(shared):
    folder, (clone, _) = shared
    requirements = clone / "requirements.txt"
    before = requirements.read_text()
    try:
        requirements.write_text(before + "# more\n")
        assert set_up(clone, "--check", VENV=str(folder / "env")).returncode == 1
    finally:
        requirements.write_text(before)
    assert set_up(clone, "--check", VENV=str(folder / "env")).returncode == 0


def test_each_clone_gets_its_own_code(shared, tmp_path):
    folder, clones = shared
    python = folder / "env/bin/python"
    first, second = (str(clone / "local/io/errors.py") for clone in clones)
    assert where(python, str(clones[0] / "bin/where.py"), cwd=tmp_path) == first
    assert where(python, str(clones[1] / "bin/where.py"), cwd=clones[0]) == second
    assert where(python, "-c", WHERE, cwd=clones[1] / "bin") == second
    assert where(python, "-c", WHERE, cwd=tmp_path) == "none"
    (tmp_path / "link.py").symlink_to(clones[0] / "bin/where.py")
    assert where(python, "link.py", cwd=tmp_path) == first
    (tmp_path / "own.py").write_text(WHERE)
    assert where(python, str(tmp_path / "own.py"), cwd=clones[1]) == second


def test_an_interrupted_install_is_made_anew(tmp_path):
    clone = make_clone(tmp_path / "clone")
    (clone / "requirements.txt").write_text("./no-such-package\n")
    failed = set_up(clone)
    assert failed.returncode == 1
    assert "pip could not install" in failed.stderr.splitlines()[-1]
    assert not (clone / ".venv/canopy.stamp").exists()
    (packages,) = (clone / ".venv/lib").glob("python3*/site-packages")
    (packages / "half.py").write_text("")
    (clone / "requirements.txt").write_text("# nothing\n")
    assert set_up(clone, "--check").returncode == 1
    assert set_up(clone).returncode == 0
    assert not (packages / "half.py").exists()
    assert set_up(clone, "--check").returncode == 0
    # An environment inside a clone leads there from everywhere.
    assert where(clone / ".venv/bin/python", "-c", WHERE, cwd=tmp_path) == str(
        clone / "local/io/errors.py"
    )


def test_two_set_ups_at_once(tmp_path):
    clone = make_clone(tmp_path / "clone")
    environment = {k: v for k, v in os.environ.items() if k != "VENV"} | {"PYTHON": sys.executable}
    runs = [
        subprocess.Popen(
            [clone / "bin/setup_env.sh"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = [run.communicate(timeout=SECOND_RUN_LIMIT_S) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert {out for out, _ in answers} == {f"{clone / '.venv'}\n"}
    assert sum("making" in err for _, err in answers) == 1


def test_an_environment_made_elsewhere_is_filled_but_not_emptied(tmp_path):
    clone = make_clone(tmp_path / "clone")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    (packages,) = (tmp_path / "env/lib").glob("python3*/site-packages")
    (packages / "mine.py").write_text("")
    (tmp_path / "env/canopy.unfinished").write_text("")
    ran = set_up(clone, VENV=str(tmp_path / "env"))
    assert ran.returncode == 0, ran.stderr
    assert (packages / "mine.py").exists()
    assert (packages / "canopy_clone.pth").exists()


def test_a_folder_with_other_things_is_refused(tmp_path):
    clone = make_clone(tmp_path / "clone")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    ran = set_up(clone, VENV=str(tmp_path / "home"))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.count("\n") == 1
    assert "no Python environment" in ran.stderr
    assert os.listdir(tmp_path / "home") == ["letter.txt"]


def fake_python(path: Path, body: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    return path


def test_no_suitable_python_is_one_sentence(tmp_path):
    clone = make_clone(tmp_path / "clone")
    old = fake_python(tmp_path / "old", '[[ "$*" == *"%d.%d"* ]] && echo 3.9')
    for python, words in [(old, "old is 3.9"), (tmp_path / "absent", "absent")]:
        ran = set_up(clone, PYTHON=str(python))
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr.count("\n") == 1
        assert "Python 3.10, 3.11 or 3.12" in ran.stderr
        assert words in ran.stderr
    assert not (clone / ".venv").exists()


def test_a_name_on_the_path_that_does_not_run_is_passed_over(tmp_path):
    clone = make_clone(tmp_path / "clone")
    fake_python(tmp_path / "path/python3", "echo 'python3: command not found' >&2; exit 127")
    fake_python(tmp_path / "path/python3.12", f'exec "{sys.executable}" "$@"')
    ran = set_up(
        clone, "--check-python", PYTHON="", PATH=f"{tmp_path / 'path'}:{os.environ['PATH']}"
    )
    assert ran.returncode == 0
    assert Path(ran.stdout.strip()).samefile(sys._base_executable)


def test_unknown_option_is_refused(tmp_path):
    ran = set_up(make_clone(tmp_path / "clone"), "--chekc")
    assert ran.returncode == 1
    assert "--check" in ran.stderr


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(each.name): str(each.specifier) for each in wanted}


def test_every_package_is_pinned_exactly():
    """Pins defect 45 of earlier systems: packages were whatever was newest."""
    assert all(re.fullmatch(r"==[0-9][0-9a-z.]*", version) for version in pins().values())
    trio = {name: pins()[name] for name in ("torch", "torchaudio", "torchvision")}
    assert trio == {"torch": "==2.11.0", "torchaudio": "==2.11.0", "torchvision": "==0.26.0"}


def test_what_the_packages_need_is_pinned_too():
    """Pins defect 45 of earlier systems: packages were whatever was newest."""
    pinned, missing = pins(), set()
    for name in pinned:
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # its marker leaves it out on this Python
            continue
        for need in map(Requirement, needs):
            wanted = need.marker is None or need.marker.evaluate({"extra": ""})
            if wanted and canonicalize_name(need.name) not in pinned:
                missing.add(canonicalize_name(need.name))
    # torch's GPU libraries are left to torch.
    assert {name for name in missing if not re.match("nvidia|cuda|triton", name)} == set()


def test_no_settings_name_a_folder_of_one_machine():
    """No version, stage or module holds an absolute path but those of the system.

    Pins defect 44 of earlier systems: credentials and paths of one machine in the files.
    """
    kinds = ("conf/**/*", "bin/*", "local/**/*.py", "recipes/**/*.py", "run.sh", "Makefile")
    paths = [path for kind in kinds for path in ROOT.glob(kind) if path.is_file()]
    own = re.compile(r"(?<![\w.~])/(home|Users|mnt|media|work|data|scratch|root)/\w")
    found = []
    for path in paths:
        if path.suffix != ".pyc":
            text = path.read_text(encoding="utf-8")
            found += [f"{path}: {match[0]}" for match in own.finditer(text)]
    assert len(paths) > 200
    assert found == []
