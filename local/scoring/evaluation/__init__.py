"""Scores of finished systems: files in, one comparison table out.

`sources` reads truth and systems in any of our tables; `ground` brings them to the same recordings
and classes; `measures` makes the statistics and baselines of each level; `board` draws the
resamples, fills the table and prints it.
"""
