"""Arrays of microphones: geometry, correlations, classical localisers, calibration,
attribution.
"""
