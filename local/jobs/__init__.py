"""How work runs: signals, locks, journals, processes, shares of work."""
