"""What may be read and how it is written: errors, limits, whole-or-absent files, csv cells,
archives, named seeds.
"""
