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
from typing import Any

from local.detect.ensemble.averaging import METHODS
from local.detect.ensemble.blending import blend_members
from local.detect.ensemble.members import check_alike, check_sections, open_member
from local.inference.score_files import (
    save_scores,
)
from local.io.errors import CanopyError
from local.io.files import write_csv, write_json
from local.jobs.exit_codes import run_script
from local.jobs.locks import lock_folder
from local.report.ledger import blend_row, ledger_path, record
from local.stages.submission import (
    join_submission,
)

log = logging.getLogger("canopy")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="EXPDIR/TAG of a run")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--method", choices=METHODS, default=METHODS[0], help="%(default)s")
    parser.add_argument(
        "--weights", default="equal", help="equal, fit, or one number a run: 1,2,1 (%(default)s)"
    )
    parser.add_argument("--cycle", default="last", help="last, or N for all runs (%(default)s)")
    parser.add_argument(
        "--like", type=Path, metavar="RUN_DIR", help="whose prior and score settings hold"
    )
    parser.add_argument("--datadir", type=Path, help="raw data (default: as the runs noted)")
    parser.add_argument("--dumpdir", type=Path, help="tables, features (default: as they noted)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Blend, and write only when all is done."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    check_folders(args.runs, args.out, args.like)
    with lock_folder(args.out, "this blend", keep=False):
        return blend_into(args)


def blend_into(args: argparse.Namespace) -> int:
    """The blend, once the folder is this process's."""
    opened = {
        folder.resolve(): open_member(folder, args.cycle, args.datadir, args.dumpdir)
        for folder in args.runs
    }
    members = list(opened.values())
    like = opened[args.like.resolve()] if args.like else members[0]
    check_alike(members, like)
    if not args.like:
        check_sections(members)
    blend = blend_members(members, like, args.method, args.weights)
    test, logit = blend.test
    submission, filled = join_submission(
        like.experiment.run.tables, test.labels, test.recording_ids, logit + blend.correction.shift
    )
    if filled:
        log.warning("%d test recordings were unreadable and got class means", len(filled))
    for name, (scores, clip) in (("oof", blend.oof), ("test", blend.test)):
        save_scores(args.out / f"{name}.npz", scores, clip, keep_frames=bool(scores.frames))
    write_csv(args.out / "submission.csv", submission, float_format="%.17g")
    write_json(args.out / "blend.json", blend.record)
    print(table(blend.record))
    ledger = ledger_path(like.experiment.run.exp.resolve().parent, like.recipe)
    if ledger.is_file():
        record(ledger, blend_row(blend.record, args.out.resolve(), like.recipe))
        log.info("ledger: %s", ledger)
    log.info("submission: %s", args.out / "submission.csv")
    return 0


def check_folders(runs: list[Path], out: Path, like: Path | None) -> None:
    """Refuse one run alone, a run given twice, and to write over something else than a blend."""
    folders = [folder.resolve() for folder in runs]
    if len(folders) < 2:
        raise CanopyError(f"a blend needs two runs or more, and only {runs[0]} is given")
    for row, folder in enumerate(folders):
        if folder in folders[:row]:
            raise CanopyError(f"{runs[row]} is given twice; give it a larger weight instead")
    if like is not None and like.resolve() not in folders:
        raise CanopyError(f"--like {like} is none of the runs that are blended")
    if out.resolve() in folders or (out / "config.yaml").exists():
        raise CanopyError(f"--out {out} is the folder of a run; give a folder of its own")
    if out.exists() and not out.is_dir():
        raise CanopyError(f"--out {out} is a file; give a folder")


def table(result: dict[str, Any]) -> str:
    """Members and blend for the terminal: weight, cycle, out-of-fold score with interval."""
    rows = [
        (one["tag"], f"{one['weight']:.3f}", str(one["cycle"]), one["oof"])
        for one in result["members"]
    ]
    rows.append((f"blend ({result['method']})", "", "", result["oof"]))
    for key, title in (
        ("oof_cross_fitted", "blend, weights cross-fitted"),
        ("oof_equal_weights", "blend, equal weights"),
    ):
        if key in result:
            rows.append((title, "", "", result[key]))
    width = max(len(row[0]) for row in rows)
    lines = [f"{'run':<{width}}  weight  cycle  {result['metric']:>7}  95 % interval  span AUC"]
    for name, weight, cycle, score in rows:
        spans = f"{score['span_auc']:.4f}" if score.get("span_auc") is not None else ""
        ends = f"{score['low']:.3f}-{score['high']:.3f}"
        lines.append(
            f"{name:<{width}}  {weight:>6}  {cycle:>5}  {score['value']:>7.4f}  {ends:<13}"
            f"  {spans:>8}".rstrip()
        )
    gain = result["gain_over_best"]
    kind = ", weights cross-fitted" if "oof_cross_fitted" in result else ""
    lines.append(
        f"blend{kind} against {gain['run']}: {gain['value']:+.4f} "
        f"({gain['low']:+.4f} to {gain['high']:+.4f})"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_script(main))
