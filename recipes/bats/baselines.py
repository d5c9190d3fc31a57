#!/usr/bin/env python3
"""Runs on the simulated set and the energy detector at every level of calls.

    recipes/bats/baselines.py --datadir data/bats --tables dump/bats/tables --out exp/bats/levels \
        --run exp/bats/default --run exp/bats/denet

Event F1 of simulated files by the level of their calls: each run's out-of-fold events (its
oof_events.csv of stage 5) and the energy detector's, its threshold fitted by the same rule on the
other folds; intervals over files, those of differences to the first run paired. All runs have the
folds of the first. With --features (a dump of log-mel), context and emitter of each voice by
cepstra and mixtures of Gaussians, by the same folds. Writes levels.csv and voices.csv.
"""

import sys
from pathlib import Path

from local.jobs.arguments import ScriptParser
from local.jobs.exit_codes import run_script


def main(argv: list[str] | None = None) -> int:
    """Write and print the table."""
    parser = ScriptParser(__doc__)
    for name in ("datadir", "tables", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, action="append", help="EXPDIR/TAG")
    parser.add_argument("--n-bootstrap", type=int, default=1000, help="resamples (%(default)s)")
    args = parser.parse_args(argv)

    from local.config import parse_section
    from local.data.tables import read_table, read_tables
    from local.io.errors import CanopyError
    from local.io.files import read_json, write_csv
    from local.scoring.event_rules.tuning import (
        OOF_EVENTS,
        RuleGrid,
        tune,
    )
    from recipes.bats.levels import ENERGY, IOUS, by_level, energy_of, folds_of
    from recipes.bats.settings import SimulateConfig
    from recipes.bats.simulate import MARKER, plan

    if not (args.datadir / MARKER).is_file():
        raise CanopyError(f"{args.datadir}: was not simulated, so the level of calls is not known")
    settings = parse_section(SimulateConfig, read_json(args.datadir / MARKER), "simulate")
    level = {f"f{one.file_id}": one.snr_db for one in plan(settings)}
    tables = read_tables(args.tables)
    folds = folds_of(args.run, tables.recordings)
    columns = ("recording_id", "label", "onset", "offset")
    systems = {run.name: read_table(run / OOF_EVENTS, columns) for run in args.run}
    mine = tables.recordings[tables.recordings["recording_id"].isin(level)]
    for name, params in ENERGY.items():
        scores = energy_of(args.datadir, mine, tables.labels[0], params)
        systems[name] = tune(scores, tables.events, folds, RuleGrid(), IOUS).events
    levels = by_level(systems, tables.events, tables.labels, level, args.n_bootstrap)
    write_csv(args.out / "levels.csv", levels)
    print(levels.to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
