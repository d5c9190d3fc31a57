"""Small results that are kept beside the tests: they may change, but not by themselves.

`check` holds results against `golden.json`. Where a stage makes other results, its version is
raised, so that what was made before is made again, and the file is written anew:

    WRITE_GOLDEN=1 python -m pytest tests/local/stages/test_golden.py

Numbers are held with a tolerance: processors, numbers of threads and their libraries differ in the
last digits.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

FILE = Path(__file__).with_name("golden.json")
_DIGITS = 6


def check(name: str, version: int, found: Any, rel: float = 1e-4, abs_: float = 1e-5) -> None:
    """Hold the results of a version of a stage against those that are kept."""
    found = _plain(found)
    kept = json.loads(FILE.read_text()) if FILE.is_file() else {}
    before = kept.get(name, {"version": None, "results": None})
    difference = _difference(before["results"], found, rel, abs_)
    if os.environ.get("WRITE_GOLDEN"):
        assert difference is None or before["version"] != version, (
            f"{name} makes other results ({difference}): raise its version first"
        )
        if difference is not None or before["version"] != version:
            kept[name] = {"version": version, "results": found}
            text = json.dumps(dict(sorted(kept.items())), indent=None)
            FILE.write_text(text.replace('}}, "', '}},\n"') + "\n")
        return
    assert before["version"] == version, (
        f"{name} has version {version}, golden.json is of {before['version']}: write it anew"
    )
    assert difference is None, (
        f"{name} makes other results ({difference}). If that is meant, raise its version and write "
        "golden.json anew: what was made before is then made again"
    )


def summary(array: Any) -> dict[str, Any]:
    """What tells one array from another: shape, mean, spread, and some of its values."""
    array = np.asarray(array, dtype=np.float64)
    flat = array[np.isfinite(array)]
    some = flat[np.linspace(0, len(flat) - 1, 12).astype(int)] if len(flat) else flat
    spread = [flat.mean(), flat.std(), flat.min(), flat.max()] if len(flat) else []
    return {"shape": array.shape, "finite": len(flat), "spread": spread, "some": some}


def tables(folder: Path) -> dict[str, Any]:
    """The csv files of a folder: columns, number of rows, and the first of these."""
    found = {}
    for path in sorted(folder.glob("*.csv")):
        frame = pd.read_csv(path)
        cells = frame.head(12).astype(object).where(frame.head(12).notna(), None)
        rows = {"columns": frame.columns.tolist(), "n": len(frame), "rows": cells.values.tolist()}
        found[path.stem] = rows
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else str(value)
    return value.item() if isinstance(value, np.generic) else value


def _difference(before: Any, now: Any, rel: float, abs_: float, place: str = "") -> str | None:
    """The first difference, in words."""
    if isinstance(now, dict) and isinstance(before, dict) and now.keys() == before.keys():
        pairs = [(before[key], now[key], f"{place}.{key}") for key in now]
    elif isinstance(now, list) and isinstance(before, list) and len(now) == len(before):
        pairs = [(*pair, f"{place}[{n}]") for n, pair in enumerate(zip(before, now, strict=True))]
    else:
        numbers = isinstance(now, float) and isinstance(before, int | float)
        same = math.isclose(before, now, rel_tol=rel, abs_tol=abs_) if numbers else before == now
        return None if same else f"{place.lstrip('.')}: {before!r:.80} -> {now!r:.80}"
    found = (_difference(a, b, rel, abs_, at) for a, b, at in pairs)
    return next((words for words in found if words is not None), None)
