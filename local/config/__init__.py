"""Typed configuration of a run: one YAML file a version, one section a concern.

`load_config` reads a file, merges it over what its `base:` names, applies `--set section.key=v`,
and validates the whole: unknown keys are refused with the nearest known one, every number has its
range, and all faults are told at once. The result is immutable; every fold gets the same one.
"""

from local.config.augment import AugmentConfig
from local.config.built_model import BuiltModel
from local.config.data import AudioConfig, DataConfig, SplitConfig
from local.config.features import FeatureConfig
from local.config.infer import InferenceConfig, PoolConfig, TtaConfig
from local.config.loading import (
    dump_config,
    load_config,
    make_config,
    parse_section,
    read_values,
)
from local.config.loss import LossConfig
from local.config.relabel import PriorConfig, RelabelConfig
from local.config.score import EventsConfig, ReportConfig, ScoreConfig
from local.config.section_base import Count, Positive, Section, Share
from local.config.suggestion import Suggestion
from local.config.train import ModelConfig, TrainConfig
from local.config.whole_config import Config
from local.config.window import WindowConfig

__all__ = [
    "AudioConfig",
    "AugmentConfig",
    "BuiltModel",
    "Config",
    "Count",
    "DataConfig",
    "EventsConfig",
    "FeatureConfig",
    "InferenceConfig",
    "LossConfig",
    "ModelConfig",
    "PoolConfig",
    "Positive",
    "PriorConfig",
    "RelabelConfig",
    "ReportConfig",
    "ScoreConfig",
    "Section",
    "Share",
    "SplitConfig",
    "Suggestion",
    "TrainConfig",
    "TtaConfig",
    "WindowConfig",
    "dump_config",
    "load_config",
    "make_config",
    "parse_section",
    "read_values",
]
