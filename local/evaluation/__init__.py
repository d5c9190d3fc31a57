"""Scores of finished systems: files in, one comparison table out.

`sources` reads truth and systems in any of our tables; `ground` brings them to the same recordings
and classes; `measures` makes the statistics and baselines of each level; `board` draws the
resamples, fills the table and prints it.
"""

from local.evaluation.board import Board, BoardOptions, make_board
from local.evaluation.ground import Ground, lay_ground
from local.evaluation.measures import EventOptions
from local.evaluation.sources import System, Truth, named_paths, read_system, read_truth_file
from local.evaluation.text import format_board

__all__ = [
    "Board",
    "BoardOptions",
    "EventOptions",
    "Ground",
    "System",
    "Truth",
    "format_board",
    "lay_ground",
    "make_board",
    "named_paths",
    "read_system",
    "read_truth_file",
]
