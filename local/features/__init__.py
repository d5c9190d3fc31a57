"""The front end and its files: one way from samples to features for every stage.

- `logmel`: `LogMel`, a log-mel spectrogram of a whole recording, a batch, or a stream of blocks
- `dump`: the npz of one recording, written whole and read in crops; `feature_id` names a dump
- `pack`: many such files in a few large ones, for disks that hate small files
- `stats`: `RunningStats`, mean and standard deviation of a corpus that is never in memory
- `tempo`: time stretch of waveforms, for further dumps and pitch shifts
- `process`: `process_recording`, decoding to npz, which stage 0 runs in many processes
"""
