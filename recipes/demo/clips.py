"""Voices from real clips: one folder a class, some of the folders as background.

Clips are cut into the pieces that sound (padding and pauses of silence fall away), so that a box
is as long as the sound. A source, which may have given several clips, serves either the train or
the test set, never both; backgrounds obey the same rule. In the train set a source of calls lives
at one site, as an animal does: folds that keep sites whole then hold out sources as well, so that
scores out of fold are of animals never heard, as those of the test set are.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import soxr
from tqdm import tqdm

from local.config import AudioConfig
from local.features.audio import SOUND_SUFFIXES, load_audio, probe
from local.io.errors import CanopyError
from local.io.files import file_digest, fingerprint
from local.io.seeds import generator
from recipes.demo.backgrounds import draw_site, render_background
from recipes.demo.calls import Call
from recipes.demo.settings import DemoSettings

# A frame is silent when it is this far below the loudest one of its clip; a pause of half a second
# ends a piece; what is shorter than 0.1 s is a click of the editing.
_SILENCE_DB, _PAUSE_S, _SHORTEST_S, _FRAME_S = -35.0, 0.5, 0.1, 0.01
# A box spans the frequencies between these shares of a piece's energy.
_BAND_SHARES = (0.05, 0.95)
_FADE_S = 0.005
_N_EXAMPLES = 8


@dataclass(frozen=True)
class Piece:
    """A stretch of a clip that sounds. Times in seconds from the start of the file."""

    path: Path
    source: str
    start: float
    end: float
    low: float
    high: float


@dataclass(frozen=True)
class Clip:
    """A file, its class folder and the source it comes from."""

    path: Path
    folder: str
    source: str


def list_clips(settings: DemoSettings) -> list[Clip]:
    """All clips of the class folders in `settings.clips`, in a fixed order, with their sources."""
    root = settings.clips
    if root is None or not root.is_dir():
        raise CanopyError(f"prepare.clips: {root} is no folder; give a folder of class folders")
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    files = [
        (folder.name, path)
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SOUND_SUFFIXES
    ]
    names = sorted({name for name, _ in files})
    unknown = [name for name in settings.background if name not in names]
    if unknown:
        raise CanopyError(
            f"prepare.background: {root} has no class folder {unknown[0]!r}; it has "
            f"{', '.join(names) or 'none with sound files'}"
        )
    if len(set(names) - set(settings.background)) < 2:
        raise CanopyError(
            f"prepare.clips: {root} has fewer than two class folders of sound files beside the "
            "background; give a folder with more"
        )
    sources = _read_sources(root, settings.sources)
    return [
        Clip(path, name, _source(f"{name}/{path.name}", path.name, sources)) for name, path in files
    ]


def _source(relative: str, name: str, sources: dict[str, str]) -> str:
    """Source of a clip; a clip that no table names is its own."""
    return sources.get(relative, sources.get(name, relative))


def _read_sources(root: Path, path: Path | None) -> dict[str, str]:
    """Source of each file name, from the csv given or from those in the folder that name any."""
    columns = ("filename", "src_file")
    found: dict[str, str] = {}
    for table in [path] if path else sorted(root.glob("*.csv")):
        try:
            frame = pd.read_csv(table, dtype=str)
        except (OSError, ValueError) as error:
            if path is None:
                continue
            reason = " ".join(str(error).split())
            raise CanopyError(f"prepare.sources: {table} is not readable ({reason})") from None
        if set(columns) <= set(frame.columns):
            frame = frame.dropna(subset=list(columns))
            found.update(zip(frame["filename"], frame["src_file"], strict=True))
        elif path is not None:
            raise CanopyError(
                f"prepare.sources: {table} lacks column filename or src_file; it has "
                f"{', '.join(frame.columns)}"
            )
    return found


def clips_digest(settings: DemoSettings) -> str:
    """Digest of the clips' names, sources and content: part of a simulation's identity."""
    return fingerprint(
        [
            (clip.folder, clip.path.name, clip.source, file_digest(clip.path))
            for clip in list_clips(settings)
        ]
    )


def split_sources(clips: list[Clip], share: float, seed: int) -> dict[str, str]:
    """`train` or `test` for each source, about `share` of every class's sources to test.

    Raises
    ------
    CanopyError
        For a class whose sources cannot stand on both sides.
    """
    side: dict[str, str] = {}
    for name in sorted({clip.folder for clip in clips}):
        sources = sorted({clip.source for clip in clips if clip.folder == name})
        wanted = min(max(1, round(share * len(sources))), len(sources) - 1)
        have = sum(side.get(source) == "test" for source in sources)
        free = [source for source in sources if source not in side]
        for source in generator(seed, "sources", name).permutation(free):
            side[str(source)] = "test" if have < wanted else "train"
            have += side[str(source)] == "test"
        if len({side[source] for source in sources}) < 2:
            raise CanopyError(
                f"prepare.clips: class {name!r} has {len(sources)} sources and cannot stand on "
                "both sides of train and test; add clips of other sources or remove the folder"
            )
    return side


def settle_sources(
    sources: dict[str, set[str]], n_sites: int, seed: int
) -> dict[str, list[set[str]]]:
    """For each class, the sources that live at each train site, none at two if they suffice.

    `sources` has those of each class. A source settles once, whatever classes it serves; where a
    class has fewer sources than there are sites, sites share.
    """
    home: dict[str, int] = {}
    settled = {}
    for name, own in sources.items():
        sites: list[set[str]] = [set() for _ in range(n_sites)]
        # Those that came with an earlier class have their site already.
        drawn = [str(source) for source in generator(seed, "settle", name).permutation(sorted(own))]
        for source in sorted(drawn, key=lambda source: source not in home):
            emptiest = min(range(n_sites), key=lambda site: len(sites[site]))
            sites[home.setdefault(source, emptiest)].add(source)
        inhabited = [site for site in sites if site]
        empty = [place for place, site in enumerate(sites) if not site]
        for turn, place in enumerate(empty):
            sites[place] = inhabited[turn % len(inhabited)]
        settled[name] = sites
    return settled


@dataclass(frozen=True)
class Caller:
    """What an individual may be heard as, and its speed of playing."""

    pieces: list[Piece]
    speed: float


class ClipVoices:
    """Pieces of real clips as calls; see `mixing.Voices`."""

    def __init__(self, settings: DemoSettings) -> None:
        self._settings = settings
        clips = list_clips(settings)
        self.names = sorted({clip.folder for clip in clips} - set(settings.background))
        self.pairs = [(label, 1) for label in range(len(self.names))]
        side = split_sources(clips, settings.test_clip_share, settings.seed)
        self.pieces: dict[tuple[str, str], list[Piece]] = {}
        for clip in tqdm(clips, desc="clips", disable=None, leave=False):
            find = _whole if clip.folder in settings.background else _find_pieces
            key = (clip.folder, side[clip.source])
            self.pieces.setdefault(key, []).extend(find(clip))
        for name in self.names:
            for subset in ("train", "test"):
                if not self.pieces.get((name, subset)):
                    raise CanopyError(
                        f"prepare.clips: the {subset} clips of class {name!r} are all silent; "
                        "replace them"
                    )
        sources = {
            name: {piece.source for piece in self.pieces[name, "train"]} for name in self.names
        }
        self._sources_at = settle_sources(sources, settings.n_train_sites, settings.seed)

    def caller(self, pair: int, subset: str, site: int, rng: np.random.Generator) -> Caller:
        """The sources of that side, or of that train site, at a speed of playing."""
        name = self.names[pair]
        pieces = self.pieces[name, subset]
        if subset == "train":
            pieces = [piece for piece in pieces if piece.source in self._sources_at[name][site]]
        return Caller(pieces, float(np.exp(rng.uniform(-0.06, 0.06))))

    def call(self, pair: int, caller: Caller, rng: np.random.Generator) -> Call:
        """A piece of one of the caller's clips, cut when it is long."""
        pieces = caller.pieces
        return self._cut(pieces[rng.integers(len(pieces))], caller.speed, rng)

    def decoy(self, rng: np.random.Generator) -> Call | None:
        """None: real clips have no double."""
        return None

    def background(self, site: int, subset: str, rng: np.random.Generator) -> np.ndarray:
        """Clips of the background folders, cross-faded, under a little of a synthetic site's noise.

        A site keeps to one folder, and to the clips of its side even where a site is shared.
        """
        settings = self._settings
        n = round(settings.duration_s * settings.sample_rate)
        own = generator(settings.seed, "site", site)
        noise = render_background(
            draw_site(f"site{site:03d}", settings.sample_rate, own), n, settings.sample_rate, rng
        )
        if not settings.background:
            return noise
        name = settings.background[own.integers(len(settings.background))]
        pieces = self.pieces[name, subset]
        bed = np.zeros(n, dtype=np.float32)
        fade = max(1, round(0.25 * settings.sample_rate))
        at = 0
        while at < n:
            wave = _load(pieces[rng.integers(len(pieces))], settings.sample_rate, 1.0)
            wave = _faded(wave, min(fade, len(wave) // 2))
            part = wave[: n - at]
            bed[at : at + len(part)] += part
            at += max(len(wave) - fade, fade)
        level = np.sqrt(np.mean(noise**2))
        bed *= level / (np.sqrt(np.mean(bed**2)) + 1e-9)
        return bed + np.float32(0.3) * noise

    def examples(self, pair: int) -> list[Call]:
        """Some pieces of the train side."""
        rng = generator(self._settings.seed, "template", pair)
        pieces = self.pieces[self.names[pair], "train"]
        chosen = rng.permutation(len(pieces))[:_N_EXAMPLES]
        return [self._cut(pieces[i], 1.0, rng) for i in chosen]

    def _cut(self, piece: Piece, speed: float, rng: np.random.Generator) -> Call:
        settings = self._settings
        rate = settings.sample_rate
        wave = _load(piece, rate, speed)
        longest = int(min(settings.max_clip_s, settings.max_call_s) * rate)
        if len(wave) > longest:
            start = rng.integers(len(wave) - longest + 1)
            wave = wave[start : start + longest]
        wave = _faded(wave, round(_FADE_S * rate))
        wave = wave / np.float32(np.sqrt(np.mean(wave**2)) + 1e-9)
        high = min(piece.high * speed, 0.495 * rate)
        return Call(wave, len(wave) / rate, min(piece.low * speed, 0.5 * high), high)


def _find_pieces(clip: Clip) -> list[Piece]:
    """The stretches of a clip that sound, each with its band; a silent clip has none."""
    wave, rate = _decode(clip.path)
    size = max(1, int(_FRAME_S * rate))
    n = len(wave) // size
    level = np.sqrt(np.mean(wave[: n * size].reshape(n, size) ** 2, axis=1))
    active = np.flatnonzero(level > max(level.max(initial=0.0) * 10 ** (_SILENCE_DB / 20), 1e-5))
    if len(active) == 0:
        return []
    breaks = np.flatnonzero(np.diff(active) * _FRAME_S > _PAUSE_S)
    firsts = active[np.concatenate([[0], breaks + 1])]
    lasts = active[np.concatenate([breaks, [len(active) - 1]])] + 1
    pieces = []
    for first, last in zip(firsts, lasts, strict=True):
        if (last - first) * _FRAME_S >= _SHORTEST_S:
            low, high = _band(wave[first * size : last * size], rate)
            start, end = first * size / rate, last * size / rate
            pieces.append(Piece(clip.path, clip.source, start, end, low, high))
    return pieces


def _whole(clip: Clip) -> list[Piece]:
    """A clip as it is, for backgrounds, but without padding at its ends."""
    pieces = _find_pieces(clip)
    if not pieces:
        return []
    return [Piece(clip.path, clip.source, pieces[0].start, pieces[-1].end, 0.0, 0.0)]


def _band(wave: np.ndarray, rate: int) -> tuple[float, float]:
    energy = np.cumsum(np.abs(np.fft.rfft(wave)) ** 2)
    edges = np.searchsorted(energy, np.asarray(_BAND_SHARES) * energy[-1])
    low, high = edges * rate / len(wave)
    # A pure tone still gets a box: a third of an octave.
    return float(low), float(max(high, 1.26 * low, 50.0))


@lru_cache(maxsize=64)
def _decode(path: Path) -> tuple[np.ndarray, int]:
    rate = probe(path).sample_rate
    return load_audio(path, AudioConfig(sample_rate=rate)), rate


def _load(piece: Piece, rate: int, speed: float) -> np.ndarray:
    """Samples of a piece at `rate`, played at `speed`."""
    wave, native = _decode(piece.path)
    part = wave[round(piece.start * native) : round(piece.end * native)]
    return soxr.resample(part, native * speed, rate)


def _faded(wave: np.ndarray, n: int) -> np.ndarray:
    """A copy whose first and last `n` samples rise and fall."""
    wave = wave.astype(np.float32, copy=True)
    n = min(n, len(wave) // 2)
    if n:
        ramp = np.linspace(0.0, 1.0, n, dtype=np.float32)
        wave[:n] *= ramp
        wave[-n:] *= ramp[::-1]
    return wave
