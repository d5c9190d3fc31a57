"""Losses over known cells. Every loss takes (output, target, mask, weight).

`mask` is the weight of a cell (0: unknown), `weight` a further factor that broadcasts (1.0: none).
What is unknown has no part in value or gradient; a batch that knows nothing gives 0 with a gradient
of 0. `Objective` puts the parts together as the configuration asks.
"""
