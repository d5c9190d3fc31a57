"""The files that scores are kept in: `oof.npz`, `test.npz`, a fold's part, and parts of that."""

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from local.inference.scores import Scores
from local.io.archives import UNREADABLE, read_npz
from local.io.errors import CanopyError
from local.io.files import file_digest, remove_leftovers, write_npz
from local.jobs.journal import Journal
from local.jobs.shards import Shard


def save_scores(
    path: Path, scores: Scores, clip_logit: np.ndarray, keep_frames: bool, **extra: np.ndarray
) -> None:
    """Write `oof.npz`, `test.npz` or a fold's part.

    Members: recording_id (N,), label (C,), clip_logit (N, C), window_logit (N, C) and, when kept,
    frame_logit (C, sum n_i) with frame_offset (N + 1,), frame_hop_s, frame_start_s.
    """
    arrays: dict[str, np.ndarray | np.generic] = {
        "recording_id": np.array(scores.recording_ids, dtype=np.str_),
        "label": np.array(scores.labels, dtype=np.str_),
        "clip_logit": np.asarray(clip_logit, dtype=np.float32),
        "window_logit": np.asarray(scores.window, dtype=np.float32),
        **extra,
    }
    if keep_frames:
        lengths = [frames.shape[1] for frames in scores.frames]
        empty = np.zeros((len(scores.labels), 0), dtype=np.float32)
        arrays["frame_logit"] = np.concatenate([empty, *scores.frames], axis=1).astype(np.float32)
        arrays["frame_offset"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        arrays["frame_hop_s"] = np.float64(scores.hop_s)
        arrays["frame_start_s"] = np.float64(scores.start_s)
    write_npz(path, **arrays)


class PartialScores:
    """Scores of blocks of recordings, kept in a folder until all are there.

    Each block is an npz; the journal beside them says which recordings are in which, with the
    digest of the file. A block that is not whole is made again.

    Parameters
    ----------
    folder : of the journal `infer.journal` and the folder `infer.parts`.
    fingerprint : of all that decides the scores; blocks of another are thrown away.
    shard : a job beside others keeps a journal of its own, which who makes the whole takes over.
    save, load : of a block's file, for outputs of another kind than `Scores`.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        shard: Shard | None = None,
        save: Callable[[Path, Any], None] | None = None,
        load: Callable[[Path], tuple[Any, Any]] | None = None,
    ) -> None:
        self._folder, self._parts = folder, folder / "infer.parts"
        self._save, self._load = save or _save_all, load or load_scores
        name = "infer.journal" if shard is None else f"infer.journal.{shard.name}"
        self._journal = Journal(folder / name, fingerprint)
        if shard is None:
            for path in sorted(folder.glob("infer.journal.*of*")):
                self._journal.absorb(path)
            if not self._journal.items():
                self._clear()
        remove_leftovers(self._parts)

    def get(self, names: list[str]) -> Any | None:
        """The scores of a block, if it was kept whole."""
        found = [self._journal.get(name) for name in names]
        entries = [entry for entry in found if entry is not None and entry["block"] == names[0]]
        if len(entries) < len(names):
            return None
        path = self._path(names)
        if not path.is_file() or file_digest(path) != entries[0]["digest"]:
            return None
        scores, _ = self._load(path)
        return scores if scores.recording_ids == names else None

    def add(self, scores: Any) -> None:
        """Keep a block."""
        names = scores.recording_ids
        self._save(self._path(names), scores)
        digest = file_digest(self._path(names))
        for name in names:
            self._journal.add(name, status="ok", block=names[0], digest=digest)

    def close(self) -> None:
        """Leave all for a later run."""
        self._journal.close()

    def remove(self) -> None:
        """Take everything away: all is done."""
        self._journal.remove()
        self.discard(self._folder)

    @staticmethod
    def discard(folder: Path) -> None:
        """Take away what a run left that was killed when all was done."""
        for path in folder.glob("infer.journal*"):
            path.unlink()
        if (folder / "infer.parts").is_dir():
            shutil.rmtree(folder / "infer.parts")

    def _path(self, names: list[str]) -> Path:
        return self._parts / f"{names[0]}.npz"

    def _clear(self) -> None:
        if self._parts.is_dir():
            shutil.rmtree(self._parts)


def _save_all(path: Path, scores: Scores) -> None:
    save_scores(path, scores, scores.window, keep_frames=True)


def load_scores(path: Path | str) -> tuple[Scores, dict[str, np.ndarray]]:
    """Read what `save_scores` wrote: the scores, and all members (clip_logit among them)."""
    path = Path(path)
    try:
        members = read_npz(path)
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such scores; run stage 3 first") from None
    except (OSError, *UNREADABLE) as error:
        raise CanopyError(f"{path}: not readable as npz ({error}); run stage 3 again") from None
    missing = {"recording_id", "label", "clip_logit", "window_logit"} - set(members)
    if missing:
        raise CanopyError(f"{path}: has no member {min(missing)}; run stage 3 again")
    fault = _scores_fault(members)
    if fault:
        raise CanopyError(f"{path}: {fault}; run stage 3 again")
    ids, labels = members["recording_id"].tolist(), members["label"].tolist()
    if "frame_logit" in members:
        frames = [
            members["frame_logit"][:, start:end] for start, end in pairwise(members["frame_offset"])
        ]
        hop_s, start_s = float(members["frame_hop_s"]), float(members["frame_start_s"])
    else:
        frames, hop_s, start_s = [], 0.0, 0.0
    return Scores(ids, labels, frames, members["window_logit"], hop_s, start_s), members


def _scores_fault(members: dict[str, np.ndarray]) -> str:
    """What contradicts itself in the members of a score file; "" when nothing does."""
    ids, labels = members["recording_id"], members["label"]
    if any(names.ndim != 1 or names.dtype.kind != "U" for names in (ids, labels)):
        return "its recordings and labels are no lists of text"
    for name in ("clip_logit", "window_logit"):
        logit = members[name]
        if logit.dtype.kind != "f" or logit.shape != (len(ids), len(labels)):
            return f"member {name} has shape {logit.shape}, expected {(len(ids), len(labels))}"
        if np.isnan(logit).any():
            return f"member {name} holds NaN"
    if "frame_logit" not in members:
        return ""
    needed = {"frame_offset", "frame_hop_s", "frame_start_s"} - set(members)
    if needed:
        return f"has no member {min(needed)}"
    frames, offsets = members["frame_logit"], members["frame_offset"]
    if offsets.shape != (len(ids) + 1,) or offsets.dtype.kind not in "iu":
        return f"member frame_offset has shape {offsets.shape}, expected {(len(ids) + 1,)}"
    if frames.dtype.kind != "f" or frames.shape != (len(labels), int(offsets[-1])):
        return f"member frame_logit has shape {frames.shape}, not that of frame_offset"
    if np.isnan(frames).any():
        return "member frame_logit holds NaN"
    if offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any():
        return "member frame_offset does not increase from 0"
    times = [members[name] for name in ("frame_hop_s", "frame_start_s")]
    if any(time.shape != () or time.dtype.kind != "f" or not np.isfinite(time) for time in times):
        return "its frames have no time"
    return ""
