"""What came of the trials, told line by line and in a table."""

import json
from collections import Counter
from dataclasses import asdict, dataclass

from tests.faults import whole_run
from tests.faults.demo import STAGES


@dataclass(frozen=True)
class Outcome:
    """What came of a trial: `fault` is "" when the bytes are those of the unbroken run."""

    stage: str
    kind: str
    n: int
    where: str
    fault: str


def table(outcomes: list[Outcome]) -> str:
    """Stage, kind, faults tried, survived, lost; and the same of all."""
    tried, lost = Counter(), Counter()
    order = (*STAGES, whole_run.STAGE, "readers")
    for one in sorted(outcomes, key=lambda one: order.index(one.stage)):
        kind = "kill" if "kill" in one.kind else "signal" if "SIG" in one.kind else one.kind
        if one.stage == whole_run.STAGE and kind == "kill":
            kind = one.kind.partition(",")[0]
        tried[one.stage, kind] += one.n
        lost[one.stage, kind] += (one.n or 1) if one.fault else 0
    rows = [(*key, n, n - lost[key], lost[key]) for key, n in tried.items()]
    total = sum(tried.values()), sum(tried.values()) - sum(lost.values()), sum(lost.values())
    lines = [("stage", "fault", "tried", "survived", "lost"), *rows, ("all", "", *total)]
    return "\n".join("{:<12}{:<20}{:>7}{:>10}{:>6}".format(*line) for line in lines)


def tell(one: Outcome, as_json: bool) -> None:
    """Print one outcome."""
    if as_json:
        print(json.dumps(asdict(one)), flush=True)
    else:
        print(f"{one.stage}, {one.kind}: {one.where}; {one.fault or 'whole'}", flush=True)
