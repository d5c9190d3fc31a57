#!/usr/bin/env python3
"""Score a submission against complete truth.

    bin/score.py --submission exp/demo/v1/submission.csv --truth data/demo/truth/test.csv

Both are csv files of `recording_id` and one column a class, joined on the id: scores of any scale
in the one, 0 and 1 in the other. Prints the score with its bootstrap interval over recordings,
what chance and the best constant row would get, and the score of each class.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from local.errors import CanopyError
from local.files import write_json
from local.metrics import (
    METRICS,
    bootstrap_interval,
    chance_score,
    constant_row_score,
    join_clips,
    n_skipped,
    read_clip_table,
    read_truth_table,
    score_metric,
    score_per_class,
)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--submission", type=Path, required=True, help="csv of scores")
    parser.add_argument("--truth", type=Path, required=True, help="csv of complete 0/1 truth")
    parser.add_argument("--metric", default="lwlrap", choices=sorted(METRICS), help="%(default)s")
    parser.add_argument(
        "--n-bootstrap", type=_natural, default=1000, help="resamples; 0: no interval (%(default)s)"
    )
    parser.add_argument("--seed", type=_natural, default=0, help="of the resamples (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the same numbers here")
    return parser.parse_args(argv)


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def evaluate(
    submission: pd.DataFrame, truth: pd.DataFrame, metric: str, n_bootstrap: int, seed: int
) -> dict[str, Any]:
    """All numbers of the report; NaN where there is no data."""
    actual = truth.to_numpy()
    score = join_clips(submission, truth).to_numpy()
    value = score_metric(metric, actual, score)
    rng = np.random.default_rng(seed)
    low, high = bootstrap_interval(actual, score, rng, n_bootstrap, metric)
    per_class = score_per_class(metric, actual, score)
    return {
        "metric": metric,
        "value": value,
        "low": low,
        "high": high,
        "n_bootstrap": n_bootstrap,
        "seed": seed,
        "chance": chance_score(actual, metric),
        "constant_row": constant_row_score(actual, metric),
        "n_recordings": len(actual),
        "n_without_positive": n_skipped(actual),
        "classes": [
            {"label": label, "n_positive": int(count), "value": float(one)}
            for label, count, one in zip(truth.columns, actual.sum(axis=0), per_class, strict=True)
        ],
    }


def format_table(result: dict[str, Any]) -> str:
    """The report as text."""
    width = max(len("constant row"), *(len(row["label"]) for row in result["classes"]))
    interval = ""
    if not np.isnan(result["low"]):
        interval = f"   95 % interval {result['low']:.4f} to {result['high']:.4f}"
    lines = [
        f"{result['metric']:<{width}}  {_number(result['value'])}{interval}",
        f"{'chance':<{width}}  {_number(result['chance'])}",
        f"{'constant row':<{width}}  {_number(result['constant_row'])}",
        f"{result['n_recordings']} recordings, {result['n_without_positive']} without a positive",
        "",
        f"{'class':<{width}}  positives   value",
    ]
    lines += [
        f"{row['label']:<{width}}  {row['n_positive']:>9}  {_number(row['value'])}"
        for row in result["classes"]
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    return "no data" if np.isnan(value) else f"{value:.4f}"


def main(argv: list[str] | None = None) -> int:
    """Score; the exit code is 0 when done, 1 for a fault of the files, 2 for one of the options."""
    args = parse_args(argv)
    try:
        submission, truth = read_clip_table(args.submission), read_truth_table(args.truth)
        result = evaluate(submission, truth, args.metric, args.n_bootstrap, args.seed)
        if args.json:
            write_json(args.json, result)
    except CanopyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(format_table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
