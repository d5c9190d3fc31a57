#!/usr/bin/env python3
"""Annotations of one format -> those of another.

    bin/convert.py --from raven --to audacity tables/ --out labels/

Formats: raven (selection tables), audacity (label tracks), rainforest (csv of the competition),
plain (csv: our events table, or columns label, onset, offset and recording or file). IN are files,
or folders, which are searched through. Raven and Audacity get a file for each recording, plain one
events.csv, rainforest tp.csv and fp.csv. A file that is there is not overwritten without --force.
"""

import argparse
import sys
from pathlib import Path

from local.data.annotations.format_names import FORMATS
from local.jobs.arguments import ScriptParser
from local.jobs.exit_codes import run_script


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ScriptParser(__doc__)
    parser.add_argument("inputs", nargs="+", type=Path, metavar="IN", help="files or folders")
    parser.add_argument("--from", dest="source", default="auto", choices=("auto", *FORMATS))
    parser.add_argument("--to", dest="target", required=True, choices=FORMATS)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--column", help="column of the labels (default: one of the usual names)")
    parser.add_argument("--label", help="one label for all rows, where no column holds any")
    parser.add_argument(
        "--columns",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="plain: name of a column, as onset=start; may be given again",
    )
    parser.add_argument("--polarity", type=int, choices=(1, -1), help="1: rows sound, -1: do not")
    parser.add_argument("--encoding", help="of the text (default: UTF-8, or UTF-16 with its mark)")
    parser.add_argument("--times-in-file", action="store_true", help="see the sentence that asks")
    parser.add_argument(
        "--to-column", default="Annotation", help="raven: column to write labels to"
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that are there")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Read all, then write."""
    args = parse_args(argv)

    from local.data.annotations.conversion import convert
    from local.data.annotations.shared import ReadOptions
    from local.io.errors import CanopyError

    columns = dict(entry.partition("=")[::2] for entry in args.columns)
    if not all(columns) or not all(columns.values()):
        raise CanopyError(f"--columns is {args.columns}, expected OURS=THEIRS, as onset=start")
    options = ReadOptions(
        args.column, args.label, columns, args.polarity, args.encoding, args.times_in_file
    )
    done = convert(
        *(args.inputs, args.source, options, args.out, args.target, args.to_column, args.force)
    )
    print(
        f"{done.n_files} files read, {done.n_rows} rows, {len(done.written)} files written to "
        f"{args.out}"
    )
    if done.left_behind:
        print(f"{args.target} cannot hold {', '.join(done.left_behind)}: left out", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
