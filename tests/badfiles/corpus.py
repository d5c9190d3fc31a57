"""Every kind of bad file, each read in a process of its own under limits of time and memory.

    python -m tests.badfiles.corpus [--part NAME]

Prints a table: what kind, what came of it, and how much memory it took; the exit code says whether
all was as expected. `run_kinds` is the same for other code.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from local.io.errors import CanopyError
from tests.badfiles import arrays, models, sounds, texts
from tests.badfiles.kinds import MIB, Kind, canary

KINDS: list[Kind] = [*sounds.KINDS, *texts.KINDS, *arrays.KINDS, *models.KINDS]
# Seconds after which a reader counts as hanging.
TIME_LIMIT_S = 20
# Head-room on what a kind is allowed, so that a reader that takes more is seen and not killed.
HARD_LIMIT = 2**30


@dataclass(frozen=True)
class Outcome:
    """What came of one kind: `fault` is "" when it is as expected."""

    kind: str
    expected: str
    outcome: str
    fault: str
    grown: int


def run_kinds(part: str = "") -> Iterator[Outcome]:
    """Try every kind whose name holds `part`."""
    torch.set_num_threads(1)
    home = Path(tempfile.mkdtemp(prefix="badfiles"))
    try:
        _warm_up(home)
        for number, kind in enumerate(kind for kind in KINDS if part in kind.name):
            folder = home / str(number)
            folder.mkdir()
            yield _judge(kind, folder, *_in_child(kind, folder))
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(home)


def outcomes() -> list[tuple[str, str]]:
    """(kind, outcome) of all, where the outcome of a lost one begins with `LOST`."""
    return [(one.kind, f"LOST: {one.fault}" if one.fault else one.outcome) for one in run_kinds()]


def _warm_up(home: Path) -> None:
    """What libraries load at first use is no fault of a file."""
    usual = ("as written", "safetensors", "UTF-8", "16 bit", "small", "flac of 24 bit", "raven")
    for kind in KINDS:
        if kind.check is not None and kind.name.endswith(usual):
            folder = Path(tempfile.mkdtemp(dir=home))
            kind.read(kind.make(folder))


def _in_child(kind: Kind, folder: Path) -> tuple[dict, int]:
    """What the child says, and its exit status."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        answer = _try_kind(kind, folder)
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read()
    _, status = os.waitpid(process, 0)
    return (json.loads(said) if said else {}), status


def _try_kind(kind: Kind, folder: Path) -> dict:
    try:
        path = kind.make(folder)
    except BaseException:
        return {"result": "crashed", "sentence": traceback.format_exc()[-1500:], "grown": 0}
    before = _peak()
    with open("/proc/self/statm") as stream:
        mapped = int(stream.read().split()[0]) * resource.getpagesize()
    limit = mapped + kind.memory + HARD_LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(TIME_LIMIT_S)
    try:
        got = kind.read(path)
        result = "handled"
        sentence = "" if kind.check is None or kind.check(got) else "the value is not right"
    except CanopyError as error:
        result, sentence = "refused", str(error)
    except BaseException:
        result, sentence = "crashed", traceback.format_exc()[-1500:]
    return {"result": result, "sentence": sentence, "grown": _peak() - before}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _judge(kind: Kind, folder: Path, said: dict, status: int) -> Outcome:
    result, sentence = said.get("result", "died"), said.get("sentence", "")
    grown = said.get("grown", 0)
    fault = ""
    if status:
        number = os.waitstatus_to_exitcode(status)
        fault = "hangs" if number == -signal.SIGALRM else f"dies with {number}"
    elif result == "crashed":
        fault = f"crashes: {sentence}"
    elif result == "refused" and not kind.refused:
        fault = f"is refused, expected to be handled: {sentence}"
    elif result == "refused":
        fault = _no_sentence(sentence, kind)
    elif kind.refused:
        fault = "is taken, expected to be refused"
    elif sentence:
        fault = sentence
    if canary(folder).exists():
        fault = "ran code"
    if grown > kind.memory and not fault:
        fault = f"took {grown / MIB:.0f} MiB, allowed are {kind.memory / MIB:.0f}"
    sentence = sentence.replace(str(folder), "...")
    shown = result if result == "handled" else f"{result}: {sentence}"
    return Outcome(kind.name, kind.expected, shown, fault.replace(str(folder), "..."), grown)


def _no_sentence(text: str, kind: Kind) -> str:
    if "\n" in text or "Traceback" in text or len(text) > 700:
        return f"is refused, but not in one sentence: {text!r}"
    return "" if kind.refused in text else f"is refused for another reason: {text}"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", default="", help="only kinds whose name holds this")
    parser.add_argument("--json", action="store_true", help="one JSON object a kind")
    args = parser.parse_args()
    lost = count = 0
    for one in run_kinds(args.part):
        count += 1
        lost += bool(one.fault)
        if args.json:
            print(json.dumps(vars(one)), flush=True)
            continue
        mark = "LOST" if one.fault else "ok"
        shown = "".join(c if c.isprintable() else "?" for c in one.fault or one.outcome)
        print(f"{mark:<5}{one.grown / MIB:5.0f} MiB  {one.kind:<44.44} {shown:.150}", flush=True)
    if not args.json:
        print(f"{count} kinds of bad files tried, {count - lost} survived, {lost} lost")
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
