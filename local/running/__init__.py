"""How work runs: signals, locks, journals, stamps, processes, shares and ranks."""
