"""bin/setup_env.sh: an environment is made once, whole or not at all, for one clone or several."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SECOND_RUN_LIMIT_S = 300  # far above any machine: stops a test that waits for a lock for ever
WHERE = "import local.name, recipes.name; print(local.name.__file__, recipes.name.__file__)"
# What `pip install -e` builds a link with, where there is no network to fetch setuptools from.
BACKEND = """
import os, zipfile
def build_editable(folder, *_):
    with zipfile.ZipFile(f"{folder}/canopy-0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("canopy.pth", os.getcwd())
        about = "canopy-0.dist-info/"
        wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\\nName: canopy\\nVersion: 0")
        kind = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any"
        wheel.writestr(about + "WHEEL", kind)
        wheel.writestr(about + "RECORD", "")
    return "canopy-0-py3-none-any.whl"
"""


def outside(**changes: str) -> dict[str, str]:
    """The variables of a shell that knows of no environment."""
    hidden = ("VENV", "PYTHON", "PYTHONPATH")
    return {k: v for k, v in os.environ.items() if k not in hidden} | changes


def set_up(clone: Path, *options: str, **environment: str) -> subprocess.CompletedProcess:
    """Run the set-up of a clone with a Python that suits, unless told otherwise."""
    return subprocess.run(
        [clone / "bin/setup_env.sh", *options],
        env=outside(PYTHON=sys.executable) | environment,
        cwd=clone.parent,
        capture_output=True,
        text=True,
        timeout=SECOND_RUN_LIMIT_S,
        check=False,
    )


def make_clone(folder: Path) -> Path:
    """Return a clone that has what set-up looks at, and needs no package."""
    for name in ("bin/where.py", "recipes/mice/where.py"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(WHERE)
    for package in ("local", "recipes"):
        (folder / package).mkdir(exist_ok=True)
        shutil.copy(ROOT / package / "__init__.py", folder / package)
        (folder / package / "name.py").write_text("")
    shutil.copy(ROOT / "bin/setup_env.sh", folder / "bin")
    (folder / "backend.py").write_text(BACKEND)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    for name in ("requirements.txt", "requirements-dev.txt", "requirements.lock"):
        (folder / name).write_text(f"# {name}: none\n")
    return folder


def where(python: Path, *arguments: str | Path, cwd: Path, **environment: str) -> Path | None:
    """Return the clone whose code a Python started like this imports."""
    ran = subprocess.run(
        [python, *arguments],
        cwd=cwd,
        env=outside(**environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    library, _, recipe = ran.stdout.strip().partition(".py ")
    clone = Path(library).parent.parent
    assert clone / "recipes/name.py" == Path(recipe)
    return clone


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Two clones and the environment that both use, which lies in neither."""
    folder = tmp_path_factory.mktemp("with space")
    clones = [make_clone(folder / name) for name in ("first", "second")]
    ran = set_up(clones[0], VENV=str(folder / "env"))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"{folder / 'env'}\n"
    return folder, clones


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A clone with an environment inside, and what two set-ups that made it at once answered."""
    clone = make_clone(tmp_path_factory.mktemp("own") / "clone")
    runs = [
        subprocess.Popen(
            [clone / "bin/setup_env.sh"],
            env=outside(PYTHON=sys.executable),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = [run.communicate(timeout=SECOND_RUN_LIMIT_S) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], answers
    return clone, answers


def test_two_set_ups_at_once(own):
    clone, answers = own
    assert {out for out, _ in answers} == {f"{clone / '.venv'}\n"}
    assert sum("making" in err for _, err in answers) == 1


def test_second_run_installs_nothing(shared):
    folder, clones = shared
    before = (folder / "env/canopy.stamp").stat().st_mtime_ns
    for clone in clones:
        os.utime(clone / "requirements.txt")  # a later date alone is no reason
        ran = set_up(clone, VENV="env")  # seen from the folder of the call
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{folder / 'env'}\n", "")
    assert (folder / "env/canopy.stamp").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["requirements.txt", "requirements.lock"])
def test_changed_requirements_are_noticed(shared, name):
    folder, (clone, _) = shared
    before = (clone / name).read_text()
    try:
        (clone / name).write_text(before + "# more\n")
        assert set_up(clone, "--check", VENV=str(folder / "env")).returncode == 1
    finally:
        (clone / name).write_text(before)
    assert set_up(clone, "--check", VENV=str(folder / "env")).returncode == 0


def test_each_clone_gets_its_own_code(shared, tmp_path):
    folder, (first, second) = shared
    python = folder / "env/bin/python"
    for clone in (first, second):
        for cwd in (tmp_path, first, second):
            for script in (clone / "bin/where.py", clone / "recipes/mice/where.py"):
                assert where(python, script, cwd=cwd) == clone
                # As run.sh and make call it.
                assert where(python, script, cwd=cwd, PYTHONPATH=str(clone)) == clone
        assert where(python, "-c", WHERE, cwd=clone) == clone
        assert where(python, "-m", "recipes.mice.where", cwd=clone) == clone
    (tmp_path / "link.py").symlink_to(second / "bin/where.py")
    assert where(python, "link.py", cwd=tmp_path) == second
    # A script of somebody's own gets the clone that the environment is linked to.
    (tmp_path / "own.py").write_text(WHERE)
    assert where(python, tmp_path / "own.py", cwd=tmp_path) == first


def test_what_an_environment_inside_a_clone_holds_is_no_script_of_that_clone(own, tmp_path):
    first, second = own[0], make_clone(tmp_path / "second")
    (packages,) = (first / ".venv/lib").glob("python3*/site-packages")
    (packages / "tool.py").write_text(WHERE)
    python = first / ".venv/bin/python"
    assert where(python, "-m", "tool", cwd=second) == second
    assert where(python, "-m", "tool", cwd=tmp_path) == first


def test_an_environment_whose_clone_went_is_linked_anew(own, tmp_path):
    clone = own[0].rename(tmp_path / "moved")
    assert set_up(clone, "--check").returncode == 1
    assert set_up(clone).returncode == 0
    assert where(clone / ".venv/bin/python", "-c", WHERE, cwd=tmp_path) == clone


def test_development_installs_more_and_a_run_is_content_with_it(shared):
    folder, (clone, _) = shared
    env = str(folder / "env")
    ran = set_up(clone, "--dev", VENV=env)
    assert "installing requirements.txt requirements-dev.txt" in ran.stderr
    for options in ([], ["--dev"], ["--check"]):
        again = set_up(clone, *options, VENV=env)
        assert (again.returncode, again.stderr) == (0, "")


def test_an_interrupted_install_is_made_anew(tmp_path):
    clone = make_clone(tmp_path / "clone")
    (clone / "requirements.txt").write_text("./no-such-package\n")
    failed = set_up(clone)
    assert failed.returncode == 1
    assert "pip could not install" in failed.stderr.splitlines()[-1]
    (packages,) = (clone / ".venv/lib").glob("python3*/site-packages")
    (packages / "half.py").write_text("")
    (clone / "requirements.txt").write_text("# nothing\n")
    assert set_up(clone, "--check").returncode == 1
    assert set_up(clone).returncode == 0
    assert not (packages / "half.py").exists()
    assert set_up(clone, "--check").returncode == 0


def test_an_environment_made_elsewhere_is_filled_but_not_emptied(tmp_path):
    clone = make_clone(tmp_path / "clone")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    (packages,) = (tmp_path / "env/lib").glob("python3*/site-packages")
    (packages / "mine.py").write_text("")
    (tmp_path / "env/canopy.stamp").write_text("unfinished\n")
    ran = set_up(clone, VENV=str(tmp_path / "env"))
    assert ran.returncode == 0, ran.stderr
    assert (packages / "mine.py").exists()
    assert where(tmp_path / "env/bin/python", "-c", WHERE, cwd=tmp_path) == clone


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


def test_the_project_itself_is_installed_as_a_link_to_its_folder(tmp_path):
    """The real pyproject.toml, with the setuptools of the lock."""
    clone = tmp_path / "clone"
    for package in ("local", "recipes", "tests"):
        (clone / package).mkdir(parents=True)
        shutil.copy(ROOT / package / "__init__.py", clone / package)
    shutil.copy(ROOT / "pyproject.toml", clone)
    build = "from setuptools.build_meta import build_editable; build_editable('..')"
    subprocess.run([sys.executable, "-c", build], cwd=clone, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("canopy-*.whl")
    with zipfile.ZipFile(wheel) as opened:
        (link,) = [name for name in opened.namelist() if not name.startswith("canopy-")]
        assert Path(opened.read(link).decode().strip()) == clone


# -------------------------------------------------------------------------------------- the lists


def lines(name: str) -> list[Requirement]:
    text = (ROOT / name).read_text()
    return [Requirement(line) for line in text.splitlines() if line and line[0] not in "#-"]


PINS = {canonicalize_name(each.name): str(each.specifier) for each in lines("requirements.lock")}
NAMED = {
    name: {canonicalize_name(each.name) for each in lines(name)}
    for name in ("requirements.txt", "requirements-dev.txt")
}


def needed(names: set[str]) -> set[str]:
    """Return these packages and what they need, as installed here."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needs = map(Requirement, metadata.requires(name) or [])
        except metadata.PackageNotFoundError:  # its marker leaves it out on this Python
            continue
        left += [
            canonicalize_name(need.name)
            for need in needs
            if need.marker is None or need.marker.evaluate({"extra": ""})
        ]
    return found


def test_the_lock_pins_exactly_what_is_named_and_needed():
    assert all(re.fullmatch(r"==[0-9][0-9a-z.]*", version) for version in PINS.values())
    trio = {name: PINS[name] for name in ("torch", "torchaudio", "torchvision")}
    assert trio == {"torch": "==2.11.0", "torchaudio": "==2.11.0", "torchvision": "==0.26.0"}
    # torch's GPU libraries are left to torch.
    all_named = set.union(*NAMED.values())
    wanted = {name for name in needed(all_named) if not re.match("nvidia|cuda|triton", name)}
    only_elsewhere = {"exceptiongroup", "tomli"}  # on Python 3.10
    assert wanted | only_elsewhere == PINS.keys() | only_elsewhere


def test_runs_import_nothing_of_what_only_tests_need():
    only_tests = needed(NAMED["requirements-dev.txt"]) - needed(NAMED["requirements.txt"])
    modules = {
        module
        for module, packages in metadata.packages_distributions().items()
        if {canonicalize_name(package) for package in packages} <= only_tests
    }
    assert {"librosa", "sed_eval", "pytest"} <= modules
    imports = re.compile(r"^\s*(?:import|from) (\w+)", re.M)
    sources = [path for part in ("local", "bin", "recipes") for path in (ROOT / part).rglob("*.py")]
    found = {
        (str(path.relative_to(ROOT)), module)
        for path in sources
        for module in imports.findall(path.read_text())
        if module in modules
    }
    assert found == set()
