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
