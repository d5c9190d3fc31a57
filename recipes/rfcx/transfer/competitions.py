"""The competitions: made-up calls and real clips, each hard in a way of its own.

Classes, calls a recording, prevalence, labels, and what differs between train and test recordings:
a rule that is chosen on some of them is judged by the others.
"""

from dataclasses import dataclass, field
from pathlib import Path

# Species whose calls lie below 8 kHz.
_LOW = (3, 17, 13, 16, 6, 18, 4, 1, 2, 8, 9, 11, 12, 14, 15, 19, 20, 21)


@dataclass(frozen=True)
class Competition:
    """One competition, and the data that it needs of the user, below --sounds.

    settings: of `prepare`. clips: a folder of folders of clips; data: a finished competition.
    """

    name: str
    settings: dict[str, str] = field(default_factory=dict)
    clips: str | None = None
    data: str | None = None

    @property
    def made_up(self) -> bool:
        """Whether nothing is needed."""
        return self.clips is None and self.data is None

    def needs(self, sounds: Path) -> Path | None:
        """The folder that must be there, if any."""
        name = self.clips or self.data
        return None if name is None else sounds / name


def _made_up(name: str, n_classes: int, **settings: str) -> Competition:
    species = f"[{','.join(map(str, _LOW[:n_classes]))}]"
    return Competition(name, {"species": species, **settings})


def _clips(name: str, background: str, **settings: str) -> Competition:
    return Competition(name, {"background": f"[{background}]", **settings}, clips="esc10")


def _shares(n: int, first: float, others: float) -> str:
    return f"[{','.join(map(str, [first, *[others] * (n - 1)]))}]"


COMPETITIONS = (
    _made_up("four classes", 4),
    _made_up("eight classes", 8),
    _made_up("eighteen classes", 18, prevalence=_shares(18, 0.3, 0.15)),
    _made_up("flat", 12, prevalence=_shares(12, 0.3, 0.3)),
    _made_up("one class in 90 %", 8, prevalence=_shares(8, 0.9, 0.1)),
    _made_up("few labels", 8, n_tp_per_class="6"),
    _made_up("many labels", 8, n_tp_per_class="14", fp_ratio="3"),
    _made_up("five calls", 8, calls_per_minute="24"),
    _made_up("fainter test", 8, test_snr_db="-6"),
    _made_up("another recorder", 8, test_slope_db="-5"),
    _made_up("rain in test", 8, test_rain="0.7"),
    _clips("clips", "rain"),
    _clips("clips, one in 90 %", "rain,sea_waves", prevalence=_shares(8, 0.9, 0.12)),
    _clips("clips, flat", "rain,sea_waves,fire_crackling", prevalence=_shares(7, 0.3, 0.3)),
    _clips("clips, fainter test", "rain,sea_waves", test_snr_db="-6"),
    _clips("clips, another recorder", "rain,sea_waves", test_slope_db="-4", test_rain="0.3"),
    Competition("soundscapes", data="soundscapes"),
    Competition("soundscapes town", data="soundscapes_town"),
)
