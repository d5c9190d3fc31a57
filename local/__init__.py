"""Canopy: who calls, when and where, in recordings with few, partial and biased labels."""

__version__ = "0.1.0"
