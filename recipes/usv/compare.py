#!/usr/bin/env python3
"""Tables of other detectors, and of the energy detector, in the form that bin/score.py reads.

    recipes/usv/compare.py --datadir FOLDER --tables dump/usv/tables --out exp/usv/others

NAME_N.csv beside rec_N.wav (onset, offset, no header) becomes NAME.csv of all recordings, for every
NAME; energy.csv is what the energy detector finds with its defaults from 30 to 120 kHz.
"""

import sys
from pathlib import Path

from local.jobs.arguments import ScriptParser
from local.jobs.exit_codes import run_script


def main(argv: list[str] | None = None) -> int:
    """Write one table a detector."""
    parser = ScriptParser(__doc__)
    parser.add_argument("--datadir", type=Path, required=True, help="folder of the raw data")
    parser.add_argument("--tables", type=Path, required=True, help="tables made from it")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    args = parser.parse_args(argv)

    from local.data.tables import read_tables
    from local.io.files import write_csv
    from recipes.usv.detectors import energy_events, others

    recordings = read_tables(args.tables).recordings
    for name, table in others(args.datadir, recordings).items():
        write_csv(args.out / f"{name}.csv", table)
    write_csv(args.out / "energy.csv", energy_events(args.datadir, recordings))
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
