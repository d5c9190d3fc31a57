#!/usr/bin/env python3
"""Changed versions of every recording, scored by the model that never saw it, beside the detector.

    recipes/usv/robustness.py --datadir FOLDER --tables dump/usv/tables --run exp/usv/default \
        --out exp/usv/robustness

Versions are those of `changes.TRIED` (fainter calls, noises, lines, clicks, other recorders) and
calls of other shapes over each recording's noise (`simulate`). Every version is detected in with
its own fold's model and the rule fitted on the other folds (rule.json), untouched; the energy
detector with its defaults stands beside. Several --run are compared, each with the first: tables
have event F1 at any overlap and at IoU > 0.5, pooled over recordings, and how far it is from the
first run's, with 95 % intervals over the recordings behind the versions. Writes robustness.csv, and
events.csv with recordings.csv and truth.csv for bin/score.py.
"""

import sys
from pathlib import Path

from local.jobs.arguments import ScriptParser
from local.jobs.exit_codes import run_script


def main(argv: list[str] | None = None) -> int:
    """Make the versions, detect in them, print the table."""
    parser = ScriptParser(__doc__)
    add = parser.add_argument
    add("--datadir", type=Path, required=True, help="folder of the raw data")
    add("--tables", type=Path, required=True, help="tables made from it")
    add("--run", type=Path, required=True, action="append", help="a run; again for others")
    add("--out", type=Path, required=True, help="folder to write")
    add("--versions", nargs="+", metavar="VERSION", help="some of them (default: all)")
    add("--draws", type=int, default=1, help="of what is random in each version (%(default)s)")
    add("--seed", type=int, default=0, help="of these draws (%(default)s)")
    add("--n-bootstrap", type=int, default=1000, help="resamples of intervals (%(default)s)")
    args = parser.parse_args(argv)

    import pandas as pd

    from local.data.tables import read_tables
    from local.io.files import write_csv
    from recipes.usv.detectors import energy_events
    from recipes.usv.versions import VERSIONS, detect_run, make_versions, measure, run_name

    args.versions = args.versions or list(VERSIONS)
    if unknown := set(args.versions) - set(VERSIONS):
        parser.error(f"--versions: no {min(unknown)!r} among {', '.join(VERSIONS)}")
    tables = read_tables(args.tables)
    sounds, truth = make_versions(args, tables)
    found = {run_name(run, args.run): detect_run(run, tables, sounds, args.out) for run in args.run}
    energy = energy_events(args.out, sounds)
    parts = [one.assign(system=name) for name, one in {**found, "energy": energy}.items()]
    write_csv(args.out / "events.csv", pd.concat(parts, ignore_index=True))
    table = measure({**found, "energy": energy}, truth, sounds, tables.labels, args.n_bootstrap)
    write_csv(args.out / "robustness.csv", table)
    print(table.to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
