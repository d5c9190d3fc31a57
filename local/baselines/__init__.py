"""What networks must beat: methods that learn nothing, or little.

- `energy`: `EnergyDetector`, energy above an adaptive noise floor, with hysteresis and a gate on
  spectral flatness; `energy_scores` gives scores as a model would
- `cepstra`: `mfcc` of log band spectra, `segment_frames` of annotated spans in a dump
- `gmm`: `GmmClassifier`, a mixture of Gaussians a class, for emitter and context
"""
