"""A run as jobs of Slurm: what is asked for (`conf`), what there is (`site`), the jobs (`jobs`),
their scripts and how they are handed in (`submission`), one task on its node (`task`), how it
stands (`state`), and the schedule of a large corpus worked out beforehand (`forecast`).
"""
