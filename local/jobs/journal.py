"""What a stage has done so far, recording by recording: lines that are only ever added.

A run that is killed leaves whole lines and at most one torn one, which is dropped; every line has a
checksum, and one that does not match is as if it were not there.
"""

import json
import os
import time
import zlib
from collections.abc import ItemsView
from pathlib import Path
from types import TracebackType
from typing import Any

from local.io.files import disk_fault, make_folder, write_bytes

# At most this much work is lost to a power cut; to a killed process nothing is.
_SYNC_S = 1.0


class Journal:
    """Entries by key, kept in a file as they are made.

    The first line holds the fingerprint of everything that decides the results; a file of another
    fingerprint is begun anew. Of entries of one key the last counts.

    Parameters
    ----------
    path : the file; it is made where it is missing.
    fingerprint : of the settings and inputs.
    """

    def __init__(self, path: Path | str, fingerprint: str) -> None:
        self.path = Path(path)
        self.fingerprint = fingerprint
        self._entries: dict[str, dict[str, Any]] = {}
        make_folder(self.path.parent)
        whole = self._read()
        if whole == 0:
            self._begin([])
        try:
            if whole:
                os.truncate(self.path, whole)
            self._stream = open(self.path, "ab", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise disk_fault(self.path, error) from None
        self._synced = time.monotonic()

    def get(self, key: str) -> dict[str, Any] | None:
        """The last entry of a key."""
        return self._entries.get(key)

    def items(self) -> ItemsView[str, dict[str, Any]]:
        """Keys and entries, in the order of their first lines."""
        return self._entries.items()

    def add(self, key: str, **entry: Any) -> None:
        """Write an entry of plain values: at once for this machine, within a second on the disk."""
        self._entries[key] = entry
        line = _line({"key": key, **entry})
        try:
            written = self._stream.write(line)
            if written != len(line):
                # The rest would not fit: asking again says why.
                self._stream.write(line[written:])
            if time.monotonic() - self._synced >= _SYNC_S:
                self._sync()
        except OSError as error:
            raise disk_fault(self.path, error, len(line)) from None

    def absorb(self, path: Path) -> None:
        """Take over the entries of another journal of the same fingerprint."""
        with Journal(path, self.fingerprint) as other:
            for key, entry in other.items():
                self.add(key, **entry)

    def compact(self, keys: list[str]) -> None:
        """Keep the last entries of these keys only, in this order."""
        self._entries = {key: self._entries[key] for key in keys}
        self._stream.close()
        self._begin([{"key": key, **entry} for key, entry in self._entries.items()])
        self._stream = open(self.path, "ab", buffering=0)  # noqa: SIM115

    def close(self) -> None:
        """Bring everything to the disk and close the file."""
        if self._stream.closed:
            return
        try:
            self._sync()
        except OSError as error:
            raise disk_fault(self.path, error) from None
        finally:
            self._stream.close()

    def remove(self) -> None:
        """Close the file and take it away: all is done."""
        self._stream.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _begin(self, entries: list[dict[str, Any]]) -> None:
        lines = [_line({"fingerprint": self.fingerprint}), *map(_line, entries)]
        write_bytes(self.path, b"".join(lines))

    def _sync(self) -> None:
        os.fsync(self._stream.fileno())
        self._synced = time.monotonic()

    def _read(self) -> int:
        """Take in what is there; bytes of whole lines, 0 when the file is to be begun anew."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise disk_fault(self.path, error) from None
        whole = content.rfind(b"\n") + 1
        first, *rest = content[:whole].splitlines() or [b""]
        head = _parse(first)
        if head is None or head.get("fingerprint") != self.fingerprint:
            return 0
        for line in rest:
            entry = _parse(line)
            if entry is not None and isinstance(entry.get("key"), str):
                self._entries[entry.pop("key")] = entry
        return whole


def _line(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry, separators=(",", ":"))
    if "\n" in text:
        raise ValueError("an entry is one line")
    return f"{zlib.crc32(text.encode()):08x} {text}\n".encode()


def _parse(line: bytes) -> dict[str, Any] | None:
    """The entry of a line; None when it is not whole."""
    checksum, _, text = line.partition(b" ")
    if checksum != f"{zlib.crc32(text):08x}".encode():
        return None
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
