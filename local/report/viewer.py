"""The viewer's part of the page: its controls, its data, and where pictures and sounds lie."""

import base64
import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from local.io import files
from local.report.elements import escape
from local.report.page_records import Box, Clip, EventKind, Item, Media, Viewer
from local.report.text import printable

_HERE = Path(__file__).parent
# The numbers of Canopy.Stage.KINDS in scripts/stage.js; items are 4 (detected) and 5 (missed).
_KINDS = {
    EventKind.TRUE: 0,
    EventKind.KNOWN_POSITIVE: 1,
    EventKind.KNOWN_NEGATIVE: 2,
    EventKind.PSEUDO: 3,
}


def viewer_html(viewer: Viewer, addresses: Sequence[tuple[str, str]]) -> str:
    """Controls and data; `addresses` are those of each clip's picture and sound, "" for none."""
    labels = [(str(index), _title(viewer, label)) for index, label in enumerate(viewer.labels)]
    subsets = list(dict.fromkeys(clip.subset for clip in viewer.clips))
    slower = (
        f"Sounds play {viewer.expansion:g} times slower than recorded, so that they can be heard; "
        "all times are those of the recording."
        if viewer.expansion != 1
        else ""
    )
    return Template((_HERE / "viewer.html").read_text(encoding="utf-8")).substitute(
        note=escape(viewer.note),
        slower=escape(slower),
        classes=_options(labels),
        subsets=_options([(name, name) for name in subsets]),
        data=_script_data(_packed(viewer, addresses)),
    )


def place_media(viewer: Viewer, folder: Path | None, limit: int) -> list[tuple[str, str]]:
    """Make all pictures and sounds; give the addresses by which the page finds them.

    They go into the page itself until they are more than `limit` bytes together; then all of them
    become files in `folder`, and addresses are relative to the folder's own place. Without a
    folder they always go into the page.
    """
    held: list[Media] | None = []
    size = 0
    addresses: list[tuple[str, str]] = []
    with ThreadPoolExecutor(max(1, viewer.n_jobs)) as pool:
        for index, media in enumerate(pool.map(lambda clip: clip.media(), viewer.clips)):
            size += sum(4 * len(part) // 3 for part in (media.picture, media.sound) if part)
            if held is not None:
                held.append(media)
                if folder is not None and size > limit:
                    addresses = [_write(folder, n, each) for n, each in enumerate(held)]
                    held = None
            elif folder is not None:
                addresses.append(_write(folder, index, media))
    return addresses if held is None else [_inline(media) for media in held]


def _write(folder: Path, index: int, media: Media) -> tuple[str, str]:
    found = []
    for content, ending in ((media.picture, "png"), (media.sound, "mp3")):
        name = f"c{index:05d}.{ending}"
        if content is not None:
            with files.atomic_path(folder / name) as temporary:
                temporary.write_bytes(content)
        found.append(f"{folder.name}/{name}" if content is not None else "")
    return found[0], found[1]


def _inline(media: Media) -> tuple[str, str]:
    return _data_url(media.picture, "image/png"), _data_url(media.sound, "audio/mpeg")


def _data_url(content: bytes | None, kind: str) -> str:
    if content is None:
        return ""
    return f"data:{kind};base64," + base64.b64encode(content).decode("ascii")


def _options(pairs: Sequence[tuple[str, str]]) -> str:
    return "".join(f'<option value="{escape(v)}">{escape(text)}</option>' for v, text in pairs)


def _title(viewer: Viewer, label: str) -> str:
    name = viewer.names.get(label, "")
    return printable(label if name in ("", label) else f"{label} {name}")


def _script_data(value: Any) -> str:
    """JSON that cannot end the element it stands in, whatever the ids and labels are."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _packed(viewer: Viewer, addresses: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What scripts/viewer.js unpacks: rows of numbers, classes by their index."""
    index = {label: number for number, label in enumerate(viewer.labels)}
    return {
        "key": viewer.key,
        "expansion": viewer.expansion,
        "labels": list(viewer.labels),
        "titles": [_title(viewer, label) for label in viewer.labels],
        "thresholds": [_round(viewer.thresholds.get(label, 0.5)) for label in viewer.labels],
        "centres": [_round(value, 1) for value in viewer.mel_centres_hz],
        "clips": [
            _packed_clip(clip, index, *address)
            for clip, address in zip(viewer.clips, addresses, strict=True)
        ],
        "items": [
            _packed_item(item, number, index)
            for number, clip in enumerate(viewer.clips)
            for item in clip.items
        ],
    }


def _packed_clip(clip: Clip, index: dict[str, int], picture: str, sound: str) -> dict[str, Any]:
    return {
        "id": clip.recording_id,
        "subset": clip.subset,
        "s": _round(clip.start_s),
        "e": _round(clip.end_s),
        "pic": picture,
        "snd": sound,
        "t0": _round(clip.trace_start_s),
        "th": _round(clip.trace_hop_s, 6),
        "tr": [[index[label], _bytes(values)] for label, values in clip.traces.items()],
        "ev": [_packed_event(event, index) for event in clip.events],
    }


def _packed_event(event: Box, index: dict[str, int]) -> list:
    band = [_round(event.low_freq, 1), _round(event.high_freq, 1)]
    span = [_round(event.onset), _round(event.offset)]
    return [_KINDS[event.kind], index[event.label], *span, *band]


def _packed_item(item: Item, clip: int, index: dict[str, int]) -> list:
    band = [_round(item.low_freq, 1), _round(item.high_freq, 1)]
    scores = [_round(value, 3) for value in (item.by_label, item.by_cycle, item.by_fold)]
    flags = int(item.missed) + 2 * int(item.pseudo)
    span = [_round(item.onset), _round(item.offset)]
    return [clip, index[item.label], *span, *band, _round(item.score, 3), flags, *scores]


def _bytes(probability: np.ndarray) -> str:
    shares = np.nan_to_num(np.asarray(probability, dtype=np.float64))
    return base64.b64encode(np.round(shares * 255).astype(np.uint8).tobytes()).decode("ascii")


def _round(value: float | None, digits: int = 4) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), digits)
