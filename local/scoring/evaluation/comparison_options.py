"""From the options of `bin/score.py` to what is to be compared, and how."""

import argparse

from local.io.errors import CanopyError
from local.io.limits import MAX_RESAMPLES
from local.scoring.evaluation.comparison_table import ComparisonOptions
from local.scoring.metrics.event_statistics import EventOptions


def comparison_options(args: argparse.Namespace) -> ComparisonOptions:
    """The options of the scoring."""
    for name in ("collar", "segment"):
        if not getattr(args, name) > 0:
            raise CanopyError(f"--{name} is {getattr(args, name):g}; give seconds, more than 0")
    if args.n_bootstrap > MAX_RESAMPLES:
        raise CanopyError(f"--n-bootstrap is {args.n_bootstrap}; at most {MAX_RESAMPLES} are drawn")
    for name, values in (
        ("threshold", [args.threshold]),
        ("candidates", [args.candidates]),
        ("iou", args.iou),
    ):
        if not all(0 <= value <= 1 for value in values):
            raise CanopyError(f"--{name} is {max(values):g}; it must lie between 0 and 1")
    event = EventOptions(
        threshold=args.threshold,
        candidate_threshold=args.candidates,
        collar_s=args.collar,
        offset_share=args.offset_share,
        use_offset=not args.onset_only,
        segment_s=args.segment,
        ious=tuple(args.iou),
        alarms_per_hour=tuple(args.alarms_per_hour),
        psds=None if args.psds is None else tuple(args.psds),
        best_f1=args.best_f1,
    )
    return ComparisonOptions(
        args.level, args.n_bootstrap, args.seed, args.by_group, args.cluster, event
    )
