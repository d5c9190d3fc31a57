"""What is wrong with a corpus: every fault of its tables, of each file's sound, and between them.

- `sound_faults`: one recording, decoded and measured
- `corpus_faults`: the tables, the sound against them and against the configuration, and the account

Nothing is changed and nothing stops at the first fault. An error is what some stage refuses or what
makes scores untrue; a warning is what a person should look at.
"""
