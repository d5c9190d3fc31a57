"""The front end and its files: one way from samples to features for every stage.

- `logmel`: `LogMel`, a log-mel spectrogram of a whole recording, a batch, or a stream of blocks
- `dump`: the npz of one recording, written whole and read in crops; `feature_id` names a dump
- `pack`: many such files in a few large ones, for disks that hate small files
- `stats`: `RunningStats`, mean and standard deviation of a corpus that is never in memory
- `tempo`: time stretch of waveforms, for further dumps and pitch shifts
- `process`: `process_recording`, decoding to npz, which stage 0 runs in many processes
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from local.features.logmel import LogMel, stream_features
    from local.features.mel import check_filters, mel_edges, mel_filters
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

# Where each name lies. Looked up when it is asked for, so that who reads files of features, or
# detects without PyTorch, need not wait for it to be imported.
_ROOMS = {
    "FeatureInfo": "dump",
    "FeatureReader": "dump",
    "LogMel": "logmel",
    "RunningStats": "stats",
    "check_filters": "mel",
    "feature_id": "dump",
    "mel_edges": "mel",
    "mel_filters": "mel",
    "process_recording": "process",
    "read_crop": "dump",
    "read_header": "dump",
    "stream_features": "logmel",
    "stretch": "tempo",
    "stretch_stream": "tempo",
    "stretched_folder": "dump",
    "wave_to_float": "dump",
    "wave_to_int16": "dump",
    "write_features": "dump",
}


def __getattr__(name: str) -> Any:
    """The public names above."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
