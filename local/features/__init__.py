"""From sound files to features: one way for every stage.

- `audio`: decoding; `recording`: one recording to its npz, which stage 0 runs in many processes
- `front_ends/`: what turns samples into features, by name
- `corpus`: stage 0 over many recordings; `npz`: the file of one, read in crops
- `pack_files`: many such files in a few large ones, for disks that hate small files; `pack_dump`:
  a whole dump so; `cache`: copies on a node's own disk
- `store`: `FeatureStore`, all of these as the later stages read them
- `band_statistics`: mean and standard deviation of a corpus that is never in memory
- `time_stretch`: time stretch of waveforms, for further dumps and pitch shifts
"""
