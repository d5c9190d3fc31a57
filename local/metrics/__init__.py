"""Scores of clip-level predictions: LWLRAP and the rest, with written rules for the odd cases.

Main entry points: `lwlrap`, `score_metric` (by name), `bootstrap_interval` (over recordings),
`paired_difference_interval` (two systems), `span_auc` (known labels only), `read_clip_table`,
`read_truth_table` and `join_clips` (csv files), and the baselines `chance_score` and
`constant_row_score`.

Rules that hold for every metric here:

- Truth is 0 or 1 (bool, integer or float). Soft or coded labels are refused: convert them first.
- NaN scores are refused. Infinite scores are legal: +inf stands above, -inf below every number, and
  equal infinities tie. Only the order of scores matters.
- What cannot be computed (no positive at all; a class without data) is NaN, never 0 or 1.
- All arithmetic is float64. Rank logits or float64 probabilities: float32 sigmoids saturate and
  tie.
"""

from local.metrics.bootstrap import (
    bootstrap_interval,
    bootstrap_intervals,
    generic_interval,
    paired_difference_interval,
    ratio_interval,
)
from local.metrics.clips import join_clips, read_clip_table, read_truth_table
from local.metrics.named import (
    METRICS,
    chance_score,
    constant_row_score,
    score_metric,
    score_per_class,
)
from local.metrics.ranking import (
    auroc,
    average_precision,
    checked,
    checked_truth,
    lwlrap,
    lwlrap_parts,
    macro_auroc,
    mean_average_precision,
    n_skipped,
    per_class_lwlrap,
)
from local.metrics.spans import SpanAuc, span_auc, span_auc_interval

__all__ = [
    "METRICS",
    "SpanAuc",
    "auroc",
    "average_precision",
    "bootstrap_interval",
    "bootstrap_intervals",
    "chance_score",
    "checked",
    "checked_truth",
    "constant_row_score",
    "generic_interval",
    "join_clips",
    "lwlrap",
    "lwlrap_parts",
    "macro_auroc",
    "mean_average_precision",
    "n_skipped",
    "paired_difference_interval",
    "per_class_lwlrap",
    "ratio_interval",
    "read_clip_table",
    "read_truth_table",
    "score_metric",
    "score_per_class",
    "span_auc",
    "span_auc_interval",
]
