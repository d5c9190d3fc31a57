"""From a trained model and any recordings to events.

- `sound`: which files there are, and any of them as blocks of samples
- `model`: a run, a checkpoint or a published folder as something that scores windows
- `onnx_engine`, `torch_engine`: what computes; the first needs no PyTorch
- `streaming`: one recording in bounded memory, from samples to spans
- `outputs`: selection tables, labels, CSV, Parquet, the summary
- `job`: many recordings, journal, processes, progress
"""
