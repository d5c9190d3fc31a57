"""Voices by synthesis: procedural species at procedural sites."""

import numpy as np

from local.io.seeds import generator
from recipes.demo.backgrounds import Site, draw_site, render_background
from recipes.demo.calls import SONGS, Call, Individual, Song, draw_individual, lookalike, render
from recipes.demo.settings import DemoSettings

_N_EXAMPLES = 6


class SyntheticVoices:
    """The species of `settings.species`, in that order; see `mixing.Voices`."""

    def __init__(self, settings: DemoSettings) -> None:
        self._settings = settings
        self._songs = [
            song for species in settings.species for song in SONGS if song.species == species
        ]
        self.pairs = [(settings.species.index(song.species), song.songtype) for song in self._songs]
        self.names = [
            " / ".join(song.name for song in SONGS if song.species == species)
            for species in settings.species
        ]
        self._sites: dict[int, Site] = {}

    def caller(self, pair: int, subset: str, site: int, rng: np.random.Generator) -> Individual:
        """An individual: pitch, tempo, reverberation."""
        return draw_individual(rng)

    def call(self, pair: int, caller: Individual, rng: np.random.Generator) -> Call:
        """One rendition by that individual."""
        return self._render(self._songs[pair], caller, rng)

    def decoy(self, rng: np.random.Generator) -> Call | None:
        """A song shifted out of its band and tempo; None when that leaves the spectrum."""
        song = lookalike(self._songs[rng.integers(len(self._songs))], rng)
        if song.high > 0.45 * self._settings.sample_rate:
            return None
        return self._render(song, draw_individual(rng), rng)

    def background(self, site: int, subset: str, rng: np.random.Generator) -> np.ndarray:
        """The site under a weather of its own."""
        rate = self._settings.sample_rate
        n = round(self._settings.duration_s * rate)
        return render_background(self._site(site), n, rate, rng)

    def examples(self, pair: int) -> list[Call]:
        """Dry renditions by the median individual, and some around it."""
        rng = generator(self._settings.seed, "template", pair)
        return [
            self._render(self._songs[pair], Individual(pitch=draw_individual(rng).pitch), rng)
            for _ in range(_N_EXAMPLES)
        ]

    def _render(self, song: Song, individual: Individual, rng: np.random.Generator) -> Call:
        settings = self._settings
        return render(song, individual, settings.sample_rate, settings.max_call_s, rng)

    def _site(self, site: int) -> Site:
        if site not in self._sites:
            rng = generator(self._settings.seed, "site", site)
            self._sites[site] = draw_site(f"site{site:03d}", self._settings.sample_rate, rng)
        return self._sites[site]
