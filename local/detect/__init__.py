"""From finished models and any recordings to events.

- `sound`: which files there are, and any of them as blocks of samples
- `detectors`: runs, checkpoints and published folders as something that scores windows;
  `onnx_engine`, `torch_engine`: what computes; the first needs no PyTorch
- `streaming`: one recording in bounded memory, from samples to spans
- `detect_options`, `class_rules`, `planning`: from options to the job they ask for
- `job`: many recordings, journal, processes, progress; `job_results`: what it comes to
- `outputs`: selection tables, labels, CSV, scores over time; `partition`: Parquet by site and date
- `publish/`: a run as a folder that needs no PyTorch; `ensemble/`: one submission from several runs
"""
