#!/usr/bin/env python3
"""Read the tables and all the sound of a recipe, and list everything that is wrong with them.

    bin/validate.py --recipe mine --datadir FOLDER --nj 4 --out faults.csv

Works before stage 0: tables that are not there are made by the recipe's preparation in DUMPDIR;
where that refuses, its reason is a fault like the others and every sound file below DATADIR is
decoded none the less. Prints one line a kind of fault and, with --out, writes every single one.
The exit code is 0 when nothing is wrong or only warnings are given, 1 when there are errors; with
--strict warnings count as errors. Nothing else is changed.
"""

import argparse
import importlib
import sys
from pathlib import Path

import pandas as pd

from local.data.tables import (
    CLASS_COLUMNS,
    EVENT_COLUMNS,
    RECORDING_COLUMNS,
    check_source,
    read_table,
)
from local.features.audio import SOUND_SUFFIXES
from local.features.corpus import source_path
from local.io.cells import read_cells
from local.io.errors import CanopyError
from local.io.files import write_csv
from local.io.limits import safe_name, spreadsheet_safe
from local.jobs.exit_codes import run_script
from local.jobs.workers import Killed, run_all
from local.stages.options import stage_parser
from local.stages.places import Run
from local.stages.quality.corpus_faults import (
    findings_table,
    fold_findings,
    sound_findings,
    summary,
    table_findings,
)
from local.stages.quality.sound_faults import Finding, Survey, survey
from local.stages.starting import plan

COLUMNS = {"recordings": RECORDING_COLUMNS, "events": EVENT_COLUMNS, "classes": CLASS_COLUMNS}


def main(argv: list[str] | None = None) -> int:
    """List the faults; 1 when there are errors."""
    parser = stage_parser(__doc__)
    parser.add_argument("--out", type=Path, help="csv of every fault")
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    args = parser.parse_args(argv)
    run = plan(args, "check")
    findings = prepare(run, args)
    tables = {} if findings else read_all(run, findings)
    if set(tables) == set(COLUMNS):
        findings += held_together(run, tables)
        n_read = len(tables["recordings"])
    else:
        paths = sorted(path for path in run.datadir.rglob("*") if is_sound(path))
        findings += [one for found in surveys(run, paths) for one in found.findings]
        n_read = len(paths)
    if args.out is not None:
        write_csv(args.out, spreadsheet_safe(findings_table(findings)))
    n_errors = sum(finding.severity == "error" for finding in findings)
    if findings:
        print(summary(findings))
    print(f"{n_read} recordings: {n_errors} errors, {len(findings) - n_errors} warnings")
    return int(bool(findings if args.strict else n_errors))


def prepare(run: Run, args: argparse.Namespace) -> list[Finding]:
    """Make the tables where they are not there; what the preparation says when it refuses."""
    if (run.tables / "recordings.csv").exists() and not run.force:
        check_source(run.tables, run.datadir)
        return []
    if not run.datadir.is_dir():
        raise CanopyError(f"{run.datadir}: no such folder; check --datadir")
    try:
        recipe = importlib.import_module(f"recipes.{safe_name(args.recipe, '--recipe')}.prepare")
    except ModuleNotFoundError:
        raise CanopyError(f"--recipe {args.recipe}: there is no such folder of recipes/") from None
    conf = args.conf or Path("conf") / args.recipe / "default.yaml"
    options = ["--datadir", str(run.datadir), "--out", str(run.tables), "--conf", str(conf)]
    options += ["--nj", str(run.nj), *(["--force"] * run.force)]
    for override in args.overrides:
        options += ["--set", override]
    try:
        recipe.main(options)
    except CanopyError as error:
        return [Finding("preparation", "error", args.recipe, str(error))]
    return []


def read_all(run: Run, findings: list[Finding]) -> dict[str, pd.DataFrame]:
    """The tables that can be read; the faults of the others go to `findings`."""
    tables = {}
    for name, columns in COLUMNS.items():
        try:
            tables[name] = read_table(run.tables / f"{name}.csv", columns)
        except CanopyError as error:
            findings.append(Finding("no table", "error", f"{name}.csv", str(error)))
    return tables


def held_together(run: Run, tables: dict[str, pd.DataFrame]) -> list[Finding]:
    """Faults of the tables, of the sound, and of both together."""
    recordings, events = tables["recordings"], tables["events"]
    n_folds = run.config.split.n_folds
    findings = table_findings(recordings, events, tables["classes"], n_folds)
    if (run.exp / "folds.csv").is_file():
        folds, _ = read_cells(run.exp / "folds.csv")
        if {"recording_id", "fold"} <= set(folds.columns):
            findings += fold_findings(recordings, folds)
    paths = [source_path(run.datadir, path) for path in recordings["path"]]
    findings += sound_findings(recordings, events, surveys(run, paths), run.config)
    named = {path.resolve() for path in paths}
    for folder in sorted({path.parent for path in named if path.parent.is_dir()}):
        for path in sorted(folder.iterdir()):
            if is_sound(path) and path.resolve() not in named:
                reason = "lies among the recordings, but no row names it"
                findings.append(Finding("no row", "warning", str(path), reason))
    return findings


def surveys(run: Run, paths: list[Path]) -> list[Survey]:
    """Each file decoded and measured, in the order of `paths`."""
    if run.nj == 1 or len(paths) < 2:
        return list(map(survey, paths))
    found = []
    for path, result in run_all(survey, paths, min(run.nj, len(paths))):
        if isinstance(result, Killed):
            result = Survey(str(path))
            result.add("unreadable", "error", "the process that decoded it was killed; remove it")
        found.append(result)
    return found


def is_sound(path: Path) -> bool:
    """Whether a file's name says that it is sound."""
    return path.suffix.lower() in SOUND_SUFFIXES and not path.name.startswith(".")


if __name__ == "__main__":
    sys.exit(run_script(main))
