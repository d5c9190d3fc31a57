"""From windows to scores: views, the one sliding path, scores and their files."""
