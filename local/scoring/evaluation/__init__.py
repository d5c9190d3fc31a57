"""Scores of finished systems: files in, one comparison table out.

`score_sources` reads truth and systems in any of our tables; `scoring_set` brings them to the same
recordings and classes; `clip_level`, `event_level` and `span_level` make the statistics and
baselines of each level; `comparison_table` draws the resamples and fills the table, `table_text`
prints it.
"""
