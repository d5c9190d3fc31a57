"""Fetching the competition: one archive by the official client, unpacked as far as it is needed.

The archive holds the recordings twice, as FLAC and as TFRecords; only `train/*.flac`,
`test/*.flac` and three csv files are unpacked. What is there whole is not fetched or unpacked
again, so a download that was broken off goes on with the same command.
"""

import logging
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from local.io.errors import CanopyError
from local.io.files import atomic_path, write_json
from recipes.rfcx.client import PAGE, SLUG, call_client

log = logging.getLogger("canopy")

TABLES = ("train_tp.csv", "train_fp.csv", "sample_submission.csv")
_WANTED = re.compile(rf"(train|test)/[A-Za-z0-9_][\w.-]*\.flac|{'|'.join(map(re.escape, TABLES))}")
# Left free beside what is unpacked, for tables and logs.
_SPARE_BYTES = 1 << 28


def fetch(datadir: Path) -> None:
    """Bring the competition's recordings and tables into `datadir`, unless they are there.

    A folder that has all of the layout and no archive is taken as it is.
    """
    archive, mark = datadir / f"{SLUG}.zip", datadir / "download.done.json"
    if mark.is_file() or (_has_layout(datadir) and not archive.exists()):
        log.info("%s: the competition's files are there, nothing fetched", datadir)
        return
    if not zipfile.is_zipfile(archive):
        datadir.mkdir(parents=True, exist_ok=True)
        log.info("fetching %s into %s; what is there of it already is gone on with", SLUG, datadir)
        call_client("download", SLUG, "-p", str(datadir))
        if not zipfile.is_zipfile(archive):
            raise CanopyError(
                f"the kaggle client left no whole archive {archive}; run the same command again, "
                f"or download it from {PAGE}/data by hand into that place"
            )
    n_files = unpack(archive, datadir)
    if not _has_layout(datadir):
        absent = [name for name in ("train", "test", *TABLES) if not (datadir / name).exists()]
        raise CanopyError(
            f"{archive} has no {absent[0]}, so it is not the competition's archive; remove it and "
            "run the same command again"
        )
    write_json(mark, {"archive": archive.name, "files": n_files})
    log.info("%s: %d files unpacked; %s may be removed now", datadir, n_files, archive)


def _has_layout(datadir: Path) -> bool:
    folders = [datadir / "train", datadir / "test"]
    return all((datadir / name).is_file() for name in TABLES) and all(
        folder.is_dir() and any(folder.iterdir()) for folder in folders
    )


def unpack(archive: Path, datadir: Path) -> int:
    """Unpack recordings and tables; files that are there with the right size are left alone.

    Returns
    -------
    int
        Number of files that belong to the competition in `datadir` now.

    Raises
    ------
    CanopyError
        A damaged archive, a name that leads out of the folder, too little room on the disk.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            members = _members(archive, packed.infolist())
            waiting = [member for member in members if not _is_whole(member, datadir)]
            _check_room(datadir, sum(member.file_size for member in waiting))
            for member in tqdm(waiting, desc="unpack", disable=None):
                with (
                    packed.open(member) as source,
                    atomic_path(datadir / member.filename) as temporary,
                    open(temporary, "wb") as target,
                ):
                    shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise CanopyError(
            f"{archive} is damaged ({error}); remove it and run the same command again"
        ) from None
    return len(members)


def _members(archive: Path, found: Iterable[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The files that are wanted; an archive that tries to climb is refused as a whole."""
    wanted = []
    for member in found:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or is_link:
            raise CanopyError(
                f"{archive}: member {member.filename!r} would lie outside of the folder or is a "
                "link, so it is not the competition's archive; nothing was unpacked"
            )
        if _WANTED.fullmatch(member.filename):
            wanted.append(member)
    return wanted


def _is_whole(member: zipfile.ZipInfo, datadir: Path) -> bool:
    # Files are written whole or not at all, so the size tells.
    path = datadir / member.filename
    return path.is_file() and path.stat().st_size == member.file_size


def _check_room(datadir: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(datadir).free
    if n_bytes and free < n_bytes + _SPARE_BYTES:
        raise CanopyError(
            f"{datadir}: unpacking needs {n_bytes / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "make room, or give --datadir on another disk"
        )
