"""Front ends by name: what turns samples into features, one file a kind (`features.kind`).

- `front_end`: `FrontEnd`, what every kind is asked for
- `front_end_registry`: the front end of a configuration; a new kind is imported there
- `logmel`: natural-log mel power spectrograms; `logmel_torch`, `logmel_numpy` and `logmel_onnx`
  compute them
- `wave`: the samples themselves
"""
