"""A whole competition on disk: recordings in parallel, the competition's tables, the truth.

Each recording leaves its sound and, after it, a small record of its truth, so an interrupted
simulation goes on where it stopped. `simulation.json` is written last of all.
"""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from tqdm import tqdm

from local.io.errors import CanopyError
from local.io.files import (
    atomic_path,
    fingerprint,
    make_folder,
    read_json,
    remove_leftovers,
    write_csv,
    write_json,
)
from local.io.seeds import generator
from local.jobs.interruption import stop_if_asked
from local.jobs.locks import LOCK_NAME, lock_folder
from local.jobs.workers import KILLED, Killed, run_all
from recipes.demo.clips import ClipVoices, clips_digest
from recipes.demo.lookalikes import FrontEnd, Template, front_end, make_template
from recipes.demo.mixing import Voices, mix_recording
from recipes.demo.planning import RecordingPlan, make_plans
from recipes.demo.settings import DemoSettings
from recipes.demo.synthetic import SyntheticVoices

# Raised whenever the same settings give other sounds or tables than before.
GENERATOR = 2

RECORD = "simulation.json"
_STARTED = "simulation.started.json"
_PARTS = Path("truth") / "recordings"

BOX_COLUMNS = ("recording_id", "species_id", "songtype_id", "t_min", "f_min", "t_max", "f_max")


def identity(settings: DemoSettings) -> str:
    """Fingerprint of all that decides a simulation's bytes; where the clips lie does not."""
    values = settings.model_dump(mode="json", include=set(DemoSettings.model_fields))
    for key in ("clips", "sources", "size"):
        values.pop(key)
    # Competitions that were made before there were test conditions stay what they are.
    for key in ("test_snr_db", "test_rain", "test_slope_db"):
        if values[key] == DemoSettings.model_fields[key].default:
            values.pop(key)
    clips = clips_digest(settings) if settings.clips else None
    return fingerprint({"generator": GENERATOR, "settings": values, "clips": clips})


def simulate(settings: DemoSettings, out: Path, nj: int = 1) -> bool:
    """Make the competition in `out` unless it is there already; True when something was made.

    Raises
    ------
    CanopyError
        `out` holds something else, or the settings cannot be met.
    """
    mark = identity(settings)
    if _state(out, mark) == "done":
        return False
    # Runs of other tags may share the data: the second finds it made.
    with lock_folder(out, "this simulation", wait_s=math.inf):
        if _state(out, mark) == "done":
            return False
        _make(settings, out, mark, nj)
    return True


def _make(settings: DemoSettings, out: Path, mark: str, nj: int) -> None:
    voices: Voices = ClipVoices(settings) if settings.clips else SyntheticVoices(settings)
    plans, prevalence = make_plans(settings, voices.pairs)
    write_json(out / _STARTED, {"fingerprint": mark})
    front = front_end(settings.sample_rate)
    templates = [make_template(voices.examples(p), front) for p in range(len(voices.pairs))]
    render = partial(
        _render_recording,
        voices=voices,
        templates=templates,
        front=front,
        settings=settings,
        out=out,
        mark=mark,
    )
    for subset in ("train", "test"):
        remove_leftovers(make_folder(out / subset))  # they must not pass as recordings
    remove_leftovers(out / _PARTS)
    parts = list(_render_all(render, plans, nj))
    _write_tables(settings, out, plans, parts, voices, templates, prevalence)
    record = {
        "fingerprint": mark,
        "generator": GENERATOR,
        "recordings": len(plans),
        "settings": settings.model_dump(mode="json", include=set(DemoSettings.model_fields)),
        "classes": {f"s{label}": name for label, name in enumerate(voices.names)},
    }
    write_json(out / RECORD, record)
    (out / _STARTED).unlink(missing_ok=True)


def _state(out: Path, mark: str) -> str:
    """`done`, `begun` (or damaged) or `empty`; anything else in `out` is an error."""
    nothing = not out.exists() or (out.is_dir() and all(p.name == LOCK_NAME for p in out.iterdir()))
    if nothing:
        return "empty"
    for name in (RECORD, _STARTED):
        if (out / name).is_file():
            record = read_json(out / name)
            if record.get("fingerprint") == mark:
                whole = name == RECORD and len(list(out.glob("t*/*.flac"))) == record["recordings"]
                return "done" if whole else "begun"
            raise CanopyError(
                f"{out / name} is of a simulation with other settings; give another --datadir "
                "(--out of simulate.py), or delete the folder"
            )
    raise CanopyError(
        f"{out} holds something that is no simulation; give another --datadir (--out of "
        "simulate.py) for one"
    )


def _render_all(render: Any, plans: list[RecordingPlan], nj: int) -> Iterator[dict[str, Any]]:
    bar = partial(tqdm, total=len(plans), desc="simulate", unit="rec", disable=None)
    # Workers use numpy and scipy only, so forking is safe and starts at once where it exists.
    method = "fork" if sys.platform == "linux" else "spawn"
    results = zip(plans, map(render, plans), strict=True)
    if nj > 1:
        results = run_all(render, plans, nj, method)
    with closing(results) if nj > 1 else nullcontext():
        for plan, part in bar(results):
            if isinstance(part, Killed):
                raise CanopyError(
                    f"recording {plan.recording_id}: {KILLED}; make memory free, and the same "
                    "command goes on from here"
                )
            yield part
            stop_if_asked(f"recording {plan.recording_id}")


def _render_recording(
    plan: RecordingPlan,
    voices: Voices,
    templates: list[Template],
    front: FrontEnd,
    settings: DemoSettings,
    out: Path,
    mark: str,
) -> dict[str, Any]:
    """Sound and record of one recording, from disk where an earlier run finished it."""
    sound = out / plan.subset / f"{plan.recording_id}.flac"
    record = out / _PARTS / f"{plan.recording_id}.json"
    finished = _finished(sound, record, mark)
    if finished is not None:
        return finished
    mix = mix_recording(plan, voices, templates, front, settings)
    with atomic_path(sound) as temporary:
        soundfile.write(temporary, mix.samples, settings.sample_rate, "PCM_16", format="FLAC")
    part = {
        "fingerprint": mark,
        "bytes": sound.stat().st_size,
        "events": [asdict(event) for event in mix.events],
        "candidates": mix.candidates,
    }
    write_json(record, part)
    return part


def _finished(sound: Path, record: Path, mark: str) -> dict[str, Any] | None:
    try:
        part = json.loads(record.read_text(encoding="utf-8"))
        whole = part["fingerprint"] == mark and sound.stat().st_size == part["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return part if whole else None


# ----------------------------------------------------------------------------------------- tables


def _write_tables(
    settings: DemoSettings,
    out: Path,
    plans: list[RecordingPlan],
    parts: list[dict[str, Any]],
    voices: Voices,
    templates: list[Template],
    prevalence: np.ndarray,
) -> None:
    labels = [f"s{label}" for label in range(len(voices.names))]
    events = _event_table(plans, parts, voices.pairs)
    by_subset = {name: events[events["subset"] == name] for name in ("train", "test")}
    for name, table in by_subset.items():
        write_csv(out / "truth" / f"{name}_events.csv", table[[*BOX_COLUMNS, "snr_db"]])
        ids = sorted(plan.recording_id for plan in plans if plan.subset == name)
        write_csv(out / "truth" / f"{name}_clips.csv", _clip_table(table, ids, labels))
    shares = pd.DataFrame({"label": labels, "prevalence": prevalence})
    write_csv(out / "truth" / "prevalence.csv", shares)
    tp = events[events["labelled"]]
    write_csv(out / "train_tp.csv", tp[list(BOX_COLUMNS)])
    fp = _false_positives(settings, plans, parts, voices.pairs, templates, tp)
    write_csv(out / "train_fp.csv", fp)
    test_ids = sorted(plan.recording_id for plan in plans if plan.subset == "test")
    sample = pd.DataFrame({"recording_id": test_ids, **dict.fromkeys(labels, 0.5)})
    write_csv(out / "sample_submission.csv", sample)
    rows = sorted((plan.recording_id, f"site{plan.site:03d}") for plan in plans)
    write_csv(out / "sites.csv", pd.DataFrame(rows, columns=["recording_id", "site"]))


def _event_table(
    plans: list[RecordingPlan], parts: list[dict[str, Any]], pairs: list[tuple[int, int]]
) -> pd.DataFrame:
    rows = [
        {
            "recording_id": plan.recording_id,
            "subset": plan.subset,
            "species_id": pairs[event["pair"]][0],
            "songtype_id": pairs[event["pair"]][1],
            "t_min": round(event["onset"], 4),
            "f_min": round(event["low"], 2),
            "t_max": round(event["offset"], 4),
            "f_max": round(event["high"], 2),
            "snr_db": round(event["snr_db"], 2),
            "labelled": event["labelled"],
        }
        for plan, part in zip(plans, parts, strict=True)
        for event in part["events"]
    ]
    return pd.DataFrame(rows).sort_values(["recording_id", "t_min", "species_id"])


def _clip_table(events: pd.DataFrame, ids: list[str], labels: list[str]) -> pd.DataFrame:
    """Which class sounds in which recording: recording_id and one 0/1 column a class."""
    truth = pd.DataFrame(0, index=pd.Index(ids, name="recording_id"), columns=labels)
    for recording_id, label in zip(events["recording_id"], events["species_id"], strict=True):
        truth.loc[recording_id, f"s{label}"] = 1
    return truth.reset_index()


def _false_positives(
    settings: DemoSettings,
    plans: list[RecordingPlan],
    parts: list[dict[str, Any]],
    pairs: list[tuple[int, int]],
    templates: list[Template],
    tp: pd.DataFrame,
) -> pd.DataFrame:
    """The strongest look-alikes, as many of each pair; a recording without any label has one first.

    The competition's train set consists of the recordings that have a row in either table.
    """
    labelled = set(tp["recording_id"])
    bare = {plan.recording_id for plan in plans if plan.subset == "train"} - labelled
    found = [
        (score, plan.recording_id, pair, onset)
        for plan, part in zip(plans, parts, strict=True)
        for pair, onset, score in part["candidates"]
    ]
    rows = [
        (
            recording_id,
            *pairs[pair],
            round(onset, 4),
            round(templates[pair].low, 2),
            round(onset + templates[pair].duration, 4),
            round(templates[pair].high, 2),
        )
        for _, recording_id, pair, onset in _strongest(settings, found, len(pairs), len(tp), bare)
    ]
    table = pd.DataFrame(rows, columns=list(BOX_COLUMNS))
    return table.sort_values(["recording_id", "t_min", "species_id"])


def _strongest(
    settings: DemoSettings,
    found: list[tuple[float, str, int, float]],
    n_pairs: int,
    n_tp: int,
    bare: set[str],
) -> list[tuple[float, str, int, float]]:
    """Candidates (score, recording, pair, onset) of the highest score within the quotas."""
    # Ties, if any, in the order of a seeded draw, never of names.
    order = generator(settings.seed, "ties").permutation(len(found))
    found = sorted((found[i] for i in order), key=lambda candidate: -candidate[0])
    total = round(settings.fp_ratio * n_tp)
    quota = [total // n_pairs + (pair < total % n_pairs) for pair in range(n_pairs)]
    count: dict[str, int] = {}
    chosen = []
    for only_bare in (True, False):
        left = []
        for candidate in found:
            _, recording_id, pair, _ = candidate
            eligible = not only_bare or (recording_id in bare and recording_id not in count)
            room = quota[pair] > 0 and count.get(recording_id, 0) < settings.max_fp_per_recording
            if not (eligible and room):
                left.append(candidate)
                continue
            quota[pair] -= 1
            count[recording_id] = count.get(recording_id, 0) + 1
            chosen.append(candidate)
        found = left
    return chosen
