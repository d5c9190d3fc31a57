"""The front end and its files: one way from samples to features for every stage.

- `logmel`: `LogMel`, a log-mel spectrogram of a whole recording, a batch, or a stream of blocks
- `dump`: the npz of one recording, written whole and read in crops; `feature_id` names a dump
- `stats`: `RunningStats`, mean and standard deviation of a corpus that is never in memory
- `tempo`: time stretch of waveforms, for further dumps and pitch shifts
- `process`: `process_recording`, decoding to npz, which stage 0 runs in many processes
"""

from local.features.dump import (
    FeatureInfo,
    FeatureReader,
    feature_id,
    read_crop,
    read_header,
    stretched_folder,
    wave_to_float,
    wave_to_int16,
    write_features,
)
from local.features.logmel import LogMel, check_filters, mel_edges, mel_filters, stream_features
from local.features.process import process_recording
from local.features.stats import RunningStats
from local.features.tempo import stretch, stretch_stream

__all__ = [
    "FeatureInfo",
    "FeatureReader",
    "LogMel",
    "RunningStats",
    "check_filters",
    "feature_id",
    "mel_edges",
    "mel_filters",
    "process_recording",
    "read_crop",
    "read_header",
    "stream_features",
    "stretch",
    "stretch_stream",
    "stretched_folder",
    "wave_to_float",
    "wave_to_int16",
    "write_features",
]
