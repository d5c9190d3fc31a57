"""What the formats of annotations are called, and how their files end."""

from typing import Literal

FORMATS = ("raven", "audacity", "rainforest", "plain")
Format = Literal["auto", "raven", "audacity", "rainforest", "plain"]
# Endings of files that are looked at when a folder is given.
SUFFIXES = {
    "raven": (".txt", ".tsv"),
    "audacity": (".txt",),
    "rainforest": (".csv",),
    "plain": (".csv", ".tsv", ".txt"),
    "auto": (".txt", ".tsv", ".csv"),
}
