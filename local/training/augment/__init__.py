"""Augmentation of batches of windows on the device, with their targets.

- `batch`: `Batch`, windows and targets, and what augmentation of them needs
- `chain`: `augment`, what the configuration asks for, in order
- `mixing`: mixup of inputs or at the last layer
- `spectrogram`: masks, shifts in time and pitch, noise and backgrounds on log-mel
- `waveform`: pitch shift, noise and backgrounds on waveforms, and from there to features
- `input_kind`: `InputKind`, what these need to know of the features; `check_augment`

All draws come from one torch generator that the caller seeds for each epoch, so a resumed run sees
the same batches. Log-mel windows are (B, 1, F, T), waveforms (B, n).

Beside torch only torchaudio is used: libraries such as audiomentations need compiled parts that not
every machine can install.
"""
