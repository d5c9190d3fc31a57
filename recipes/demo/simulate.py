#!/usr/bin/env python3
"""Make a competition like the rainforest one, whose truth is known.

    recipes/demo/simulate.py --out data/demo --size small --seed 0
    recipes/demo/simulate.py --out data/clips --clips CLIPS --background rain sea_waves

Writes train/, test/, train_tp.csv, train_fp.csv, sample_submission.csv and sites.csv to --out, and
what nobody may open before scoring to truth/. The same command goes on after an interruption.
"""

import os
import sys
import time
import typing
from pathlib import Path
from typing import Any

from local.jobs.arguments import ScriptParser
from local.jobs.exit_codes import run_script
from recipes.demo.settings import DemoSettings, settings_from


def main(argv: list[str] | None = None) -> int:
    """Simulate into --out, and say how long it took."""
    args = build_parser().parse_args(argv)

    from local.io.errors import CanopyError
    from recipes.demo.competition import simulate

    if args.nj < 1:
        raise CanopyError(f"--nj is {args.nj}, expected at least 1")
    given = {
        name: value
        for name, value in vars(args).items()
        if name in DemoSettings.model_fields and value is not None
    }
    settings = settings_from(given, key="options")
    begin = time.perf_counter()
    if simulate(settings, args.out, args.nj):
        n = settings.n_train + settings.n_test
        print(f"{args.out}: {n} recordings in {time.perf_counter() - begin:.1f} s")
    else:
        print(f"{args.out}: simulated before with the same settings, nothing to do")
    return 0


def build_parser() -> ScriptParser:
    """One option for each field of the settings, beside --out and --nj."""
    parser = ScriptParser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--nj", type=int, default=os.cpu_count() or 1, help="parallel processes")
    for name, field in DemoSettings.model_fields.items():
        many = _is_list(field.annotation)
        default = "" if many else f" (small: {field.default})"
        parser.add_argument(
            "--" + name.replace("_", "-"),
            nargs="+" if many else None,
            metavar=name.split("_")[-1].upper(),
            help=f"{field.description}{default}",
        )
    return parser


def _is_list(annotation: Any) -> bool:
    parts = [annotation, *typing.get_args(annotation)]
    return any(typing.get_origin(part) is list for part in parts)


if __name__ == "__main__":
    sys.exit(run_script(main))
