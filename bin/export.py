#!/usr/bin/env python3
"""Publish a finished run: one folder that detects elsewhere.

    bin/export.py exp/demo/default --out published/demo

Writes each fold's weights (safetensors) and its network with the front end as ONNX, whose scores
are compared with PyTorch's before it is kept; classes, configuration, out-of-fold evidence for
thresholds and the prior correction (model.json); a model card (README.md); a licence for you to
choose (LICENSE.txt); and checksums of all (SHA256SUMS). bin/detect.py takes the folder.

All folds are published, since their mean is what the run's test scores are; `--folds "0"` makes a
model a fifth as large and five times as fast, with that fold's network alone.
"""

import argparse
import logging
import sys
from pathlib import Path

from local.jobs.arguments import ScriptParser
from local.jobs.exit_codes import run_script

log = logging.getLogger("canopy")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ScriptParser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="EXPDIR/TAG of a run")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--cycle", default="submitted", help="submitted, last, or N (%(default)s)")
    parser.add_argument("--folds", default="", help='folds to publish, as "0 1" (default: all)')
    parser.add_argument("--no-onnx", action="store_true", help="leave the ONNX files out")
    parser.add_argument("--datadir", type=Path, help="raw data (default: as the run noted)")
    parser.add_argument("--dumpdir", type=Path, help="tables, features (default: as it noted)")
    parser.add_argument("--force", action="store_true", help="write over what is in DIR")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Publish."""
    args = parse_args(argv)

    from local.detect.ensemble.members import open_member
    from local.detect.publish.export import publish
    from local.detect.publish.folder import check_out
    from local.io.errors import CanopyError
    from local.jobs.locks import lock_folder
    from local.stages.stage_options import chosen_folds

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    member = open_member(args.run, args.cycle, args.datadir, args.dumpdir)
    if args.out.exists() and not args.out.is_dir():
        raise CanopyError(f"--out {args.out} is a file; give a folder")
    folds = chosen_folds(args.folds, member.experiment.run.config.split.n_folds)
    with lock_folder(args.out, "this model", keep=False):
        check_out(args.out, args.force)
        for path in [*args.out.glob("fold*.safetensors"), *args.out.glob("fold*.onnx")]:
            path.unlink()
        names = publish(member, args.out, folds, not args.no_onnx)
        size = sum((args.out / name).stat().st_size for name in names)
    log.info("%s: %d files, %.1f MB", args.out, len(names) + 1, size / 1e6)
    log.info("choose a licence in %s before you give it away", args.out / "LICENSE.txt")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
