"""The options of detection: those of `bin/detect.py`, which `bin/cluster.py detect` passes on."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from local.jobs.arguments import ScriptParser

ENGINES = ("auto", "onnx", "torch")
FORMATS = ("raven", "audacity", "csv", "parquet")
SCORE_FORMATS = ("npz", "parquet")
# Windows at once without a GPU: few, for the memory they take.
CPU_BATCH = 4


def parse_args(argv: Sequence[str] | None, description: str | None = None) -> argparse.Namespace:
    """The command line; what argparse refuses ends the process with exit code 2."""
    parser = ScriptParser(description)
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="run, checkpoint or published folder")
    add("paths", nargs="+", type=Path, metavar="PATH", help="sound files and folders of them")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    add("--with", dest="others", type=Path, action="append", default=[], metavar="MODEL",
        help="one more model of an ensemble; may be given again")  # fmt: skip
    add("--format", nargs="+", choices=FORMATS, help="(raven csv; partitioned: parquet)")
    add("--partition", action="store_true", help="a folder a site and date, for large archives")
    add("--site-date-pattern", metavar="REGEX", help="of paths; groups site, date and time")
    add("--scores", choices=SCORE_FORMATS, help="write scores over time as well")
    add("--threshold", metavar="RULE", help="a probability between 0 and 1, best-f1, "
        "precision=SHARE or false-alarms=NUMBER an hour (default: best-f1 where out-of-fold "
        "scores are, else 0.5)")  # fmt: skip
    add("--low-threshold", type=float, metavar="P",
        help="detections grow from the threshold down to this probability")  # fmt: skip
    add("--min-duration", type=float, metavar="S", help="seconds (default: as in relabel)")
    add("--max-duration", type=float, metavar="S", help="leave out longer ones (default: none)")
    add("--max-gap", type=float, metavar="S", help="gaps to close (default: as in relabel)")
    add("--prior", choices=("none", "run"), default="none",
        help="run: with the run's correction for its test set (%(default)s)")  # fmt: skip
    add("--engine", choices=ENGINES, default="auto", help="auto: ONNX Runtime where it can be")
    add("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="%(default)s")
    add("--batch-size", type=int, help=f"windows at once (default: {CPU_BATCH}; GPU: the run's)")
    add("--no-tta", action="store_true", help="leave out the run's test-time augmentation")
    add("--jobs", type=int, default=1, help="processes; above 1 each has one thread (%(default)s)")
    add("--cycle", default="submitted", help="of a run: submitted, last, or N (%(default)s)")
    add("--conf", type=Path, help="of a checkpoint: the config.yaml of its run")
    add("--dumpdir", type=Path, help="of a run: its tables and features (default: as it noted)")
    add("--max-invalid-share", type=float, default=0.0, help="unreadable files borne (%(default)s)")
    add("--force", action="store_true", help="write over what is in DIR")
    add("--shard", metavar="K/N", help="detect in this share only")
    return parser.parse_args(argv)
