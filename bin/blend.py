#!/usr/bin/env python3
"""Blend finished runs: versions, seeds, or both.

    bin/blend.py exp/rfcx/v020 exp/rfcx/v021 exp/rfcx/v030 --out exp/rfcx/blend3
    bin/blend.py exp/rfcx/v02* --out exp/rfcx/fitted --weights fit --method logit

Takes the mean of the runs' scores as probability, as logit, or as rank: recordings in order of
their mean rank within a class get the values of that class's mean probability, so that classes
keep their levels. Folds need no blending: a run's test.npz is their mean already. Weights are
equal, given, or fitted on out-of-fold scores against known labels; what fitting is worth is told
by weights that were fitted without the fold they are judged on.

Writes oof.npz, test.npz (before prior correction, as a run has them), submission.csv (corrected
once, as in stage 5) and blend.json into DIR, and notes the blend in the runs' ledger where there is
one. It opens no truth: bin/score.py does.
"""

import argparse
import logging
import sys
from pathlib import Path

from local.jobs.arguments import ScriptParser
from local.jobs.exit_codes import run_script

METHODS = ("probability", "rank", "logit")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ScriptParser(__doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN_DIR", help="EXPDIR/TAG of a run")
    add("--out", type=Path, required=True, metavar="DIR", help="where to write")
    add("--method", choices=METHODS, default="probability", help="%(default)s")
    add("--weights", default="equal", help="equal, fit, or one number a run: 1,2,1 (%(default)s)")
    add("--cycle", default="submitted", help="submitted, last, or N for all (%(default)s)")
    add("--like", type=Path, metavar="RUN_DIR", help="whose prior and score settings hold")
    add("--datadir", type=Path, help="raw data (default: as the runs noted)")
    add("--dumpdir", type=Path, help="tables, features (default: as they noted)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Blend, and write only when all is done."""
    args = parse_args(argv)

    from local.detect.ensemble.blending import blend_members, blend_table, write_blend
    from local.detect.ensemble.members import check_alike, check_folders, open_member
    from local.jobs.locks import lock_folder
    from local.report.ledger import blend_row, ledger_path, record

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    check_folders(args.runs, args.out, args.like)
    with lock_folder(args.out, "this blend", keep=False):
        members = [open_member(one, args.cycle, args.datadir, args.dumpdir) for one in args.runs]
        named = args.like and [one.resolve() for one in args.runs].index(args.like.resolve())
        like = members[named or 0]
        check_alike(members, like if args.like else None)
        blend = blend_members(members, like, args.method, args.weights)
        write_blend(args.out, blend, like)
        print(blend_table(blend.record))
        ledger = ledger_path(like.experiment.run.exp.resolve().parent, like.recipe)
        if ledger.is_file():
            record(ledger, blend_row(blend.record, args.out.resolve(), like.recipe))
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
