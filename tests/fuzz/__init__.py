"""Random damage to good inputs; see `fuzz`."""
