"""Kills, full disks, second runs and clocks set back: what every stage must come through."""
