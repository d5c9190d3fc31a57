"""A batch of windows, its targets, and what augmentation needs beside them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Batch:
    """Windows and targets as in `labels.targets.Targets`, with a leading batch axis.

    What follows the targets is there only where the configuration asks for its use.

    call_bands : (B, F) bool, bands in which known calls of the window are.
    background, background_snr_db : sound to lay under, shaped as `x`, and how many decibels below
        (B,); infinite for none.
    waved : (B,) bool, rows whose waveform is augmented.
    wave, background_wave : (B, m) int16, the waveforms behind `x` and `background` of those rows.
    wave_frames, wave_share : (B, 2, T) frames of the waveform's features that make each frame of
        the window, -1 for silence, and the share (B, T) of the second.
    partner, partnered : windows with soft labels to be mixed in, shaped as `x`, and rows (B,) bool
        that have one; their targets are named alike.
    mix : what the model does to the (B, D, T') features before its head.
    """

    x: torch.Tensor
    clip_target: torch.Tensor
    clip_mask: torch.Tensor
    frame_target: torch.Tensor
    frame_mask: torch.Tensor
    call_bands: torch.Tensor | None = None
    background: torch.Tensor | None = None
    background_snr_db: torch.Tensor | None = None
    waved: torch.Tensor | None = None
    wave: torch.Tensor | None = None
    background_wave: torch.Tensor | None = None
    wave_frames: torch.Tensor | None = None
    wave_share: torch.Tensor | None = None
    partner: torch.Tensor | None = None
    partnered: torch.Tensor | None = None
    partner_clip_target: torch.Tensor | None = None
    partner_clip_mask: torch.Tensor | None = None
    partner_frame_target: torch.Tensor | None = None
    partner_frame_mask: torch.Tensor | None = None
    mix: Callable[[torch.Tensor], torch.Tensor] | None = None
