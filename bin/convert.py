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

import pandas as pd

from local.data.annotations.formats import FORMATS, SUFFIXES, read_annotations, write_annotations
from local.data.annotations.shared import ReadOptions, table_stem
from local.io.errors import CanopyError
from local.jobs.exit_codes import run_script
from local.jobs.locks import lock_folder


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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


def read_options(args: argparse.Namespace) -> ReadOptions:
    """What the readers want to know."""
    columns = dict(entry.partition("=")[::2] for entry in args.columns)
    if not all(columns) or not all(columns.values()):
        raise CanopyError(f"--columns is {args.columns}, expected OURS=THEIRS, as onset=start")
    return ReadOptions(
        args.column, args.label, columns, args.polarity, args.encoding, args.times_in_file
    )


def find_inputs(paths: list[Path], format: str) -> list[Path]:
    """The files, and those in the folders that may be of the format."""
    found: list[Path] = []
    for path in paths:
        inside = [file for file in sorted(path.rglob("*")) if file.suffix in SUFFIXES[format]]
        found += inside if path.is_dir() else [path]
        if path.is_dir() and not inside:
            raise CanopyError(f"{path}: no files ending in {', '.join(SUFFIXES[format])}")
    return found


def main(argv: list[str] | None = None) -> int:
    """Read all, then write."""
    args = parse_args(argv)
    options = read_options(args)
    files = find_inputs(args.inputs, args.source)
    frames = [read_annotations(path, args.source, options) for path in files]
    # An empty table says that nothing was found in its recording: it goes on as an empty table.
    names = [
        name
        for path, frame in zip(files, frames, strict=True)
        for name in (frame["recording_id"].unique() if len(frame) else [table_stem(path)])
    ]
    frame = pd.concat(frames, ignore_index=True)
    if args.out.exists() and not args.out.is_dir():
        raise CanopyError(f"--out {args.out} is a file; give a folder")
    with lock_folder(args.out, "this folder", keep=False):
        written = write_annotations(
            args.out,
            frame,
            args.target,
            recordings=names,
            annotation_column=args.to_column,
            force=args.force,
        )
    print(f"{len(files)} files read, {len(frame)} rows, {len(written)} files written to {args.out}")
    left = left_behind(frame, args.target)
    if left:
        print(f"{args.target} cannot hold {', '.join(left)}: left out", file=sys.stderr)
    return 0


def left_behind(frame: pd.DataFrame, target: str) -> list[str]:
    """Columns that say something and have no place in the target format."""
    held = {
        "audacity": {
            "recording_id",
            "label",
            "onset",
            "offset",
            "low_freq",
            "high_freq",
            "polarity",
        },
        "rainforest": set(frame.columns) - {"weight"},
    }.get(target, set(frame.columns))
    held |= {"source", "Selection", "View", "Channel", "path", "sequence_start"}
    usual = {"weight": 1.0}
    return [
        str(name)
        for name in frame.columns
        if name not in held and not frame[name].fillna("").isin(["", usual.get(name, "")]).all()
    ]


if __name__ == "__main__":
    sys.exit(run_script(main))
