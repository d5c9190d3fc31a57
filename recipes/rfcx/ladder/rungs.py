"""What the ladder compares: the runs, each a few settings away from the next, and the rungs.

A run is one folder a seed. A rung is a cycle of a run, scored before or after the correction of
class priors; one run gives several rungs.
"""

from dataclasses import dataclass

# What every run has: priors are corrected in all, and read before and after; relabelling
# is by events as long as no run says otherwise, since positives alone know no soft labels.
COMMON = (
    *("prior.method=estimated", "report.n_recordings=0"),
    *("relabel.kind=events", "relabel.start=scratch"),
)

# What the runs below the default leave out; each takes one line less than the one before.
_NO_MIXUP = ("augment.mixup_p=0",)
_NO_PULL = ("loss.unknown_weight=0",)
_CLIP_WISE = ("loss.frame_weight=0", "inference.pool.source=window")
_UNKNOWN_IS_ABSENT = ("loss.masked=false", "window.p_negative=0")

# Test-time augmentation: three tempi, each with windows at two places.
_TTA = (
    "features.stretches=[0.9,1.1]",
    "inference.tta.stretches=[0.9,1.1]",
    "inference.tta.shifts_s=[0,0.64]",
)


@dataclass(frozen=True)
class LadderRun:
    """A run of every seed.

    kind: `train`, all stages; `infer`, the models of run `base` with other inference; `blend`.
    cost: roughly how many trainings of one cycle it takes, for the estimate of time.
    """

    name: str
    settings: tuple[str, ...] = ()
    kind: str = "train"
    cost: float = 1.0
    relabels: bool = False
    full_truth: bool = False
    base: str | None = None
    options: tuple[str, ...] = ()


RUNS = (
    LadderRun("positives", (*_UNKNOWN_IS_ABSENT, *_CLIP_WISE, *_NO_PULL, *_NO_MIXUP)),
    LadderRun("masked", (*_CLIP_WISE, *_NO_PULL, *_NO_MIXUP)),
    LadderRun("frames", (*_NO_PULL, *_NO_MIXUP)),
    LadderRun("pull", _NO_MIXUP),
    LadderRun("default", relabels=True),
    LadderRun("soft", ("relabel.kind=soft", "relabel.start=cycle0"), relabels=True),
    LadderRun("tta", _TTA, kind="infer", cost=0.3, base="default"),
    LadderRun("blend", kind="blend", cost=0.05),
    LadderRun("fitted", kind="blend", cost=0.05, options=("--weights", "fit")),
    LadderRun("truth", ("data.annotation=complete",), full_truth=True),
)
# What a blend takes of these, where it is there: runs that differ in training or in inference.
BLENDED = ("tta", "default", "pull")


@dataclass(frozen=True)
class Rung:
    """A line of the table.

    kind: which scores are the rung's, `raw` before the correction of priors or `prior` after it.
    below: key of the rung that it is compared with. ceiling: no part of the climb.
    """

    key: str
    number: str
    title: str
    run: str
    cycle: int = 0
    kind: str = "raw"
    below: str | None = None
    ceiling: bool = False


def list_rungs(default_cycles: int, last_cycle: int) -> list[Rung]:
    """All rungs, lowest first, then the ceilings.

    Parameters
    ----------
    default_cycles : relabelling cycles of the default configuration; the climb goes on from there.
    last_cycle : cycles that are run.
    """
    cycles = [
        Rung(
            f"cycle{cycle}",
            "6",
            f"relabelling by events, cycle {cycle}"
            + (" (beyond the default)" if cycle > default_cycles else ""),
            "default",
            cycle,
            below=f"cycle{cycle - 1}" if cycle > 1 else "mixup",
        )
        for cycle in range(1, last_cycle + 1)
    ]
    soft = [
        Rung(
            *(f"soft{cycle}", "6", f"relabelling by soft labels, cycle {cycle}", "soft", cycle),
            below=f"soft{cycle - 1}" if cycle > 1 else "mixup",
        )
        for cycle in range(1, last_cycle + 1)
    ]
    at = f"cycle{default_cycles}" if default_cycles > 0 else "mixup"
    return [
        Rung("positives", "1", "positives only, the rest as absent, clip-wise", "positives"),
        Rung("masked", "2", "masked: confirmed and rejected rows", "masked", below="positives"),
        Rung("frames", "3", "frame-level masking", "frames", below="masked"),
        Rung("pull", "4", "weak pull of unknown cells", "pull", below="frames"),
        Rung("mixup", "5", "mixup (the default's cycle 0)", "default", below="pull"),
        *cycles,
        *soft,
        Rung(
            *("default", "7", "estimated priors: the finished default", "default"),
            *(default_cycles, "prior", at),
        ),
        Rung(
            *("tta", "8", "test-time augmentation: 3 tempi, 2 places", "tta"),
            *(default_cycles, "prior", "default"),
        ),
        Rung("blend", "9", "blend, equal weights", "blend", kind="prior", below="tta"),
        Rung(
            "fitted", "9", "blend, weights fitted out-of-fold", "fitted", kind="prior", below="tta"
        ),
        Rung("truth", "", "the same model given the full truth", "truth", ceiling=True),
        Rung(
            *("truth_prior", "", "the same, with estimated priors", "truth"),
            kind="prior",
            ceiling=True,
        ),
    ]
