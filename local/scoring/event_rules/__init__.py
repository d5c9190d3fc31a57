"""Events of scores: thresholds, the rule that makes them, and how it is judged."""
