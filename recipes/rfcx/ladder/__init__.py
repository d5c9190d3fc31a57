"""The ladder: the climb from confirmed rows alone to the finished default, step by step, measured.

`python -m recipes.rfcx.ladder` (or `make ladder`) runs it on simulated competitions. `rungs` is the
table of what is compared, `climb` runs it, `scores` measures it, `page` writes it down.
"""
