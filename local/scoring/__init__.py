"""How scores stand against labels: metrics, matching of events, intervals, thresholds and
event rules, comparison of systems.
"""
