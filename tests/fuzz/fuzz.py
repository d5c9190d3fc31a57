"""Mutations of good files and texts against every reader of what comes from outside.

    python -m tests.fuzz.fuzz --seconds 120 --seed 1 --failures exp/fuzz

What comes of each must be a value or a `CanopyError`, in bounded time. Prints its seed; what makes
a reader fail is kept in the folder of failures with the reader's name, and `--replay FILE` tries
one of them again.
"""

import argparse
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from local.config import load_config
from local.data.annotations.formats import read_annotations
from local.data.folds import read_folds
from local.data.tables import read_tables
from local.inference.score_files import load_scores
from local.io.errors import CanopyError
from local.io.files import read_json
from local.io.limits import file_name, id_fault, label_fault
from local.models.checkpoint import load_checkpoint
from local.models.pretrained import read_weights
from local.relabel.prevalence import read_prevalence
from local.scoring.metrics.clip_tables import read_clip_table
from local.stages.stage_options import chosen_folds
from tests.badfiles import arrays, sounds, texts
from tests.badfiles.kinds import put

# A reader that takes longer hangs; the slowest good file takes a hundredth.
TIME_LIMIT_S = 20
# No reader of small files needs more than what is mapped at the start and this.
MEMORY_LIMIT = 3 * 2**30

CONFIG = """
base: null
seed: 3
audio: {sample_rate: 16000, channel: mix}
features: {n_fft: 512, hop_length: 160, n_mels: 32, f_max_hz: 7000.0, stretches: [0.9, 1.1]}
model: {name: crnn, params: {channels: [4], pool: [[2, 2]]}}
loss: &l {masked: true}
inference: {tta: {shifts_s: [0.0, 0.5]}, pool: {method: topk}}
"""
SETTINGS = (
    "seed=4", "audio.sample_rate=22050", "model.params={channels: [4, 8]}", "loss.terms=[]",
    "inference.tta.shifts_s=[0.0, 1]", "prior.given=null", "window.length_s=1e1",
)  # fmt: skip
CLIPS = "recording_id,a,b\nr1,0.5,1\nr2,1e-3,0\n"
PREVALENCE = "label,prevalence\na,0.5\nb,0.01\n"
FOLDS = "recording_id,fold\nr1,0\nr2,1\n"
# What parsers stumble over.
TOKENS = (
    b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b'"', b"'", b",", b";", b"\t", b"\r", b"\n\n",
    b"-1", b"0", b"1e999", b"nan", b"inf", b"-inf", b"9" * 400, b"1.5.2", b"0x1f", b"..", b"../",
    b"=1+1", b"&a ", b"*a", b"!!python/name:os.system ", b"!x ", b"<<: ", b"? ", b": ", b"[", b"]",
    b"{", b"}", b"%", b"|", b">", b"#", b"---\n", b"~", b"2001-99-99", b"12:30:61",
    b"\xf0\x9f\x90\xa6",
    b"\xe2\x80\xae", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", b"PK\x03\x04",
    b"PK\x05\x06",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A reader, and the good contents that are changed for it."""

    name: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path, bytes], Any]
    text: bool = True


def contents(*makers: Callable[[Path], Path]) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        return [make(folder).read_bytes() for make in makers]

    return seeds


def given(*many: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [text.encode() for text in many]


def file_target(name: str, suffix: str, seeds: Callable, read: Callable, text: bool) -> Target:
    def read_file(folder: Path, content: bytes) -> Any:
        return read(put(f"x{suffix}", content)(folder))

    return Target(name, seeds, read_file, text)


def table_target(table: str, good: str) -> Target:
    def read(folder: Path, content: bytes) -> Any:
        return read_tables(texts.tables(**{table: content})(folder))

    return Target(f"table {table}", given(good, texts.german(good)), read)


def read_settings(folder: Path, content: bytes) -> Any:
    override = content.decode("utf-8", "surrogateescape")
    return load_config(put("x.yaml", CONFIG)(folder), [override])


def read_all_names(folder: Path, content: bytes) -> None:
    text = content.decode("utf-8", "replace")
    if not id_fault(text) or not label_fault(text):
        assert (folder / text).parent == folder
    assert (folder / file_name(text)).parent == folder


def folds_of(path: Path) -> Any:
    recordings = texts_recordings(path)
    return read_folds(path, recordings, 2)


def texts_recordings(path: Path) -> Any:
    folder = path.parent / "tables"
    if not folder.exists():
        folder.mkdir()
        texts.tables()(folder)
    return read_tables(folder).recordings


TARGETS = [
    table_target("recordings", texts.RECORDINGS),
    table_target("events", texts.EVENTS),
    table_target("classes", texts.CLASSES),
    file_target("clip table", ".csv", given(CLIPS), read_clip_table, True),
    file_target("folds", ".csv", given(FOLDS), folds_of, True),
    file_target(
        "prevalence",
        ".csv",
        given(PREVALENCE),
        lambda path: read_prevalence(path, ["a", "b"]),
        True,
    ),
    file_target("raven", ".txt", given(texts.RAVEN), texts.raven, True),
    file_target("audacity", ".txt", given(texts.AUDACITY), texts.audacity, True),
    file_target(
        "annotations",
        ".csv",
        given(texts.EVENTS, texts.RAVEN, texts.AUDACITY),
        read_annotations,
        True,
    ),
    file_target("configuration", ".yaml", given(CONFIG), load_config, True),
    file_target("json", ".json", given('{"a": [1, 2.5, null, "x"]}'), read_json, True),
    Target("--set", given(*SETTINGS), read_settings),
    Target(
        "--folds", given("0 1", "0,1"), lambda _, c: chosen_folds(c.decode("utf-8", "replace"), 5)
    ),
    Target("names", given("r1", "Turdus sp.", "con", ".."), read_all_names),
    file_target("features", ".npz", contents(arrays.features), arrays.read_features, False),
    file_target("scores", ".npz", contents(arrays.npz()), load_scores, False),
    file_target("checkpoint", ".pt", contents(arrays.checkpoint), load_checkpoint, False),
    file_target(
        "weights",
        ".pt",
        contents(arrays.checkpoint, arrays.saved(lambda folder: arrays.state()["model"], True)),
        read_weights,
        False,
    ),
    file_target("safetensors", ".safetensors", contents(arrays.safetensors), read_weights, False),
    *[
        file_target(
            f"sound {suffix}",
            suffix,
            contents(sounds.sound(f"a{suffix}", n=900)),
            sounds.read,
            False,
        )
        for suffix in (".wav", ".flac", ".ogg", ".mp3", ".aiff")
    ],
]


# --------------------------------------------------------------------------------------- mutation


def mutate(rng: random.Random, content: bytes, text: bool) -> bytes:
    """A few changes of bytes, numbers, tokens and stretches; headers are hit more than bodies."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(changed) + 1) if changed else 0
        if not text and rng.random() < 0.5:
            at = min(at, rng.randrange(200))
        kind = rng.randrange(8)
        if kind == 0 and changed:
            changed[min(at, len(changed) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at:at] = rng.choice(TOKENS)
        elif kind == 2:
            token = rng.choice(TOKENS)
            changed[at : at + len(token)] = token
        elif kind == 3:
            del changed[at : at + rng.choice((1, 1, 4, 40, 4000))]
        elif kind == 4:
            other = rng.randrange(len(changed) + 1)
            changed[at:at] = changed[other : other + rng.choice((1, 8, 80))]
        elif kind == 5:
            size = rng.choice((2, 4, 8))
            number = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**16, 2**63 - 1, rng.getrandbits(64)))
            changed[at : at + size] = (number % 256**size).to_bytes(
                size, rng.choice(("little", "big"))
            )
        elif kind == 6:
            changed[at:at] = bytes([rng.randrange(256)]) * rng.choice((1, 2, 300))
        else:
            del changed[at:]
    return bytes(changed)


def try_one(target: Target, content: bytes, folder: Path) -> str:
    """ "" when the reader gave a value or its sentence; else what it did."""
    signal.alarm(TIME_LIMIT_S)
    try:
        target.read(folder, content)
    except CanopyError as error:
        text = str(error)
        return "" if len(text.splitlines()) == 1 else f"not one sentence: {text!r}"
    except Exception:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return ""


def hang(*_: Any) -> None:
    """What the alarm does."""
    raise TimeoutError(f"takes more than {TIME_LIMIT_S} s")


def fuzz(seconds: float, seed: int, part: str, failures: Path | None) -> tuple[Counter, list[str]]:
    """Try mutations of all targets in turn; how often each, and what failed (once each)."""
    rng = random.Random(seed)
    home = Path(tempfile.mkdtemp(prefix="fuzz"))
    tried, failed, seen = Counter(), [], set()
    targets = [target for target in TARGETS if part in target.name]
    pools = {}
    for target in targets:
        (home / target.name).mkdir()
        pools[target.name] = target.seeds(home / target.name)
        for content in pools[target.name]:
            assert try_one(target, content, home / target.name) == "", target.name
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for target in targets:
            content = mutate(rng, rng.choice(pools[target.name]), target.text)
            fault = try_one(target, content, home / target.name)
            tried[target.name] += 1
            place = (target.name, *fault.splitlines()[-3:])
            if fault and place not in seen:
                seen.add(place)
                failed.append(f"{target.name}: {fault}")
                if failures is not None:
                    failures.mkdir(parents=True, exist_ok=True)
                    put(f"{target.name}-{seed}-{sum(tried.values())}", content)(failures)
    shutil.rmtree(home)
    return tried, failed


def main() -> int:
    """Fuzz for a while, or replay one failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=None, help="default: the clock")
    parser.add_argument("--part", default="", help="only readers whose name holds this")
    parser.add_argument("--failures", type=Path, default=Path("exp/fuzz"), help="kept inputs")
    parser.add_argument("--replay", type=Path, help="try one kept input again")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, hang)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_LIMIT, mapped + MEMORY_LIMIT))
    if args.replay is not None:
        name = args.replay.name.rsplit("-", 2)[0]
        target = next(target for target in TARGETS if target.name == name)
        with tempfile.TemporaryDirectory() as folder:
            fault = try_one(target, args.replay.read_bytes(), Path(folder))
        print(fault or "survived")
        return int(bool(fault))
    seed = time.time_ns() % 2**32 if args.seed is None else args.seed
    print(f"seed {seed}")
    tried, failed = fuzz(args.seconds, seed, args.part, args.failures)
    for fault in failed:
        print(fault)
    for name, count in tried.items():
        print(f"{name:<20} {count:>8} tried")
    print(f"{sum(tried.values())} inputs tried, {len(failed)} kinds of failures")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
