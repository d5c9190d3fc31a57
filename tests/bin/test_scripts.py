"""What holds for all scripts: they are short, can be executed, and explain themselves anywhere."""

import argparse
import ast
import os
import subprocess
import sys

import pytest

from tests.scripts import ROOT, caller, fault_of, in_a_shell, load_script

SCRIPTS = sorted([*ROOT.glob("bin/*.py"), *ROOT.glob("recipes/*/[ps]*e*.py")])
SCRIPTS = [path for path in SCRIPTS if path.read_text().startswith("#!")]


# What takes long to import, and no option needs.
HEAVY = {"matplotlib", "pandas", "scipy", "sklearn", "timm", "torch"}
HELP = """
import runpy, sys
name, sys.argv = sys.argv[1], [sys.argv[1], "--help"]
try:
    (runpy.run_path if name.endswith(".py") else runpy.run_module)(name, run_name="__main__")
except SystemExit as end:
    print(sorted({module.split(".")[0] for module in sys.modules}), end.code, sep="\\n")
"""
CALLED = [*(str(path.relative_to(ROOT)) for path in SCRIPTS), "recipes.rfcx.ladder"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLED)
def test_help_from_any_folder_loads_little(name, tmp_path):
    script = str(ROOT / name) if name.endswith(".py") else name
    done = subprocess.run(
        [sys.executable, "-c", HELP, script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    *text, modules, code = done.stdout.splitlines()
    assert code == "0", done.stderr
    assert not HEAVY & set(ast.literal_eval(modules))
    # An example, and what the script is for.
    assert name in "\n".join(text)
    path = ROOT / (name if name.endswith(".py") else f"{name.replace('.', '/')}/__main__.py")
    assert ast.get_docstring(ast.parse(path.read_text())).splitlines()[0] in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_options_are_not_taken_by_their_beginnings(path, monkeypatch, capsys):
    """`--st` is not `--stage`, in the commands of a script as well."""
    parsers = []

    def note(parser, *given):
        parsers.append(parser)
        raise SystemExit(2)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", note)
    module = load_script(str(path.relative_to(ROOT)))
    try:
        code = module.main(["--st", "2"])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    for parser in parsers:
        commands = [a for a in parser._actions if isinstance(a.choices, dict)]
        parsers += [inner for action in commands for inner in action.choices.values()]
    assert all(not parser.allow_abbrev for parser in parsers)
    assert parsers or "--st" in capsys.readouterr().err


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_can_be_executed_and_those_of_bin_are_short(path):
    assert os.access(path, os.X_OK)
    if path.parent.name == "bin":
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 150


@pytest.fixture
def ledger(tmp_path, monkeypatch, capsys):
    """Function: options -> exit code, stdout and stderr of bin/ledger.py in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return caller("ledger", capsys)


COLUMNS = (
    "date,recipe,tag,fingerprint,commit,seed,metric,cv,cv_low,cv_high,span_auc,test_truth,"
    "test_truth_raw,submission,public,private\n"
)
ROW = "2026-01-02T03:04:05Z,rfcx,v1,abcdef,c0,0,lwlrap,0.7,0.6,0.8,0.9,,,00,,\n"


def test_the_ledger_shows_fills_in_and_draws(ledger, tmp_path):
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp/ledger.csv").write_text(COLUMNS + ROW)
    code, out, _ = ledger("set", "v1", "--public", "0.95")
    assert (code, out) == (0, "exp/ledger.csv: rfcx v1 (abcdef): public 0.95\n")
    code, out, _ = ledger("--recipe", "rfcx", "--plot", "x.svg")
    assert code == 0
    assert "0.9500" in out
    assert "CV with public leaderboard" in out
    assert (tmp_path / "x.svg").read_text().startswith("<?xml")
    code, out, _ = ledger("--recipe", "none")
    assert (code, out) == (0, "exp/ledger.csv: no run yet\n")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["set", "v1", "--public", "95"], 1),
        (["set", "v2", "--public", "0.9"], 1),
        (["--ledger", "none.csv"], 1),
        (["set", "v1"], 2),
        (["set", "v1", "--public", "high"], 2),
        (["sett"], 2),
    ],
)
def test_faults_of_the_ledger_are_told_and_change_nothing(ledger, tmp_path, options, code):
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp/ledger.csv").write_text(COLUMNS + ROW)
    ran = ledger(*options)
    assert (ran.code, ran.out) == (code, "")
    if code == 1:
        fault_of(ran)
    assert (tmp_path / "exp/ledger.csv").read_text() == COLUMNS + ROW


@pytest.mark.slow
def test_exit_codes_reach_the_shell(tmp_path):
    done = in_a_shell("ledger", cwd=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: exp/ledger.csv: no ledger yet")
