"""The section that the ladder writes: table, sentences, goals and commands, in Markdown."""

import math
from pathlib import Path
from typing import Any

from local.io.errors import CanopyError
from local.io.files import write_text
from local.stages.run_record import read_work
from recipes.rfcx.ladder.climb import Clock, Plan, commands, data_command, minutes, shown
from recipes.rfcx.ladder.rungs import Rung
from recipes.rfcx.ladder.scores import KINDS, Estimate, Measured

BEGIN = "<!-- ladder: begin (written by make ladder) -->"
END = "<!-- ladder: end -->"
TITLE = "## Ladder"

# What the climb should reach.
GAIN_OVER_POSITIVES = 0.10
WITHIN_FULL_TRUTH = 0.03
WITHIN_ORACLE = 0.01


def section(plan: Plan, measured: Measured, clock: Clock, command: str) -> str:
    """The whole section, from its title on."""
    parts = [
        TITLE,
        _preamble(plan, clock, command),
        _table(plan, measured, clock),
        "What each rung did, against the one before, on the same seeds and recordings:",
        "\n".join(f"- {line}" for line in sentences(measured)),
        "What the climb should reach:",
        "\n".join(f"- {line}" for line in goals(measured)),
        f"Commands of seed {plan.seeds[0]}, in the order in which they run:",
        _commands(plan),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def put_section(path: Path, text: str) -> None:
    """Put the section between its markers in `path`; at the end, when it has none yet."""
    whole = path.read_text(encoding="utf-8") if path.is_file() else "# Results\n"
    if (whole.count(BEGIN), whole.count(END)) not in ((0, 0), (1, 1)):
        raise CanopyError(
            f"{path}: the markers {BEGIN!r} and {END!r} must stand there once each, or not at all"
        )
    block = f"{BEGIN}\n{text}{END}"
    if BEGIN not in whole:
        write_text(path, f"{whole.rstrip()}\n\n{block}\n")
        return
    before, _, rest = whole.partition(BEGIN)
    if END not in rest:
        raise CanopyError(f"{path}: {END!r} stands before {BEGIN!r}; put it after it")
    write_text(path, before + block + rest.partition(END)[2])


# ----------------------------------------------------------------------------------------- words


def _preamble(plan: Plan, clock: Clock, command: str) -> str:
    config = plan.config
    size = ", ".join(f"{key} {value}" for key, value in config.prepare.items()) or "size small"
    epochs = plan.epochs or config.train.n_epochs
    times = [clock.seconds(run.name, seed) for run in plan.chosen for seed in plan.seeds]
    total = sum(seconds for seconds in times if not math.isnan(seconds))
    n_seeds = len(plan.seeds)
    seeds = " ".join(map(str, plan.seeds))
    return (
        f"    {command}\n\n"
        f"The simulated competition, {size}, {epochs} epochs a training, "
        f"{config.split.n_folds} folds; {n_seeds} seed{'s' * (n_seeds > 1)} ({seeds}), each of "
        "them another competition and another training. "
        f"{_machine(plan)} All runs together: {minutes(total)}.\n\n"
        "LWLRAP on the test recordings, mean over seeds, with a 95 % bootstrap interval over "
        "recordings and, beside it, lowest and highest seed. Rungs 1 to 6 are scored before the "
        "correction of class priors, 7 to 9 after it, with priors estimated from scores. Oracle "
        "prior: the same scores, corrected whole with the true prevalence of the test "
        "recordings. Steps are paired differences to the rung before; their intervals draw seeds "
        "and then recordings, "
        "and say 'no difference' where they include 0. With few seeds they are a little too "
        "narrow."
    )


def _machine(plan: Plan) -> str:
    for run in plan.chosen:
        for record in read_work(plan.folder(run.name, plan.seeds[0])).values():
            device = record.get("gpu", record["device"])
            where = "on the CPU" if device == "cpu" else f"on {device}"
            cores = f"{record['cpu_count']} cores" if record["cpu_count"] != 1 else "1 core"
            return f"{cores}, computed {where}, PyTorch {record['torch']}."
    return ""


HEADER = (
    "| rung | | LWLRAP (95 %) | seeds | oracle prior (95 %) | step | step, oracle prior "
    "| time a seed |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def _table(plan: Plan, measured: Measured, clock: Clock) -> str:
    lines = [HEADER]
    seen: set[str] = set()
    for rung in measured.rungs:
        own, oracle = measured.estimate(rung.key, rung.kind), measured.estimate(rung.key, "oracle")
        steps = [step_of(measured, rung, kind) for kind in (rung.kind, "oracle")]
        times = [clock.seconds(rung.run, seed) for seed in plan.seeds]
        time = "" if rung.run in seen else minutes(sum(times) / len(times))
        seen.add(rung.run)
        cells = [rung.number, rung.title, _with_interval(own), _range(own)]
        cells += [_with_interval(oracle), *map(_step, steps), time]
        lines.append(f"| {' | '.join(cells)} |")
    if measured.rungs:
        lines += _baselines(measured)
    return "\n".join(lines)


def _baselines(measured: Measured) -> list[str]:
    scores = measured.scores[measured.rungs[0].key]
    rows = {
        "chance": [score.chance for score in scores],
        "best constant row (knows the prevalence)": [score.constant_row for score in scores],
    }
    return [
        f"| | {title} | {sum(values) / len(values):.3f} | {min(values):.3f} to "
        f"{max(values):.3f} | | | | |"
        for title, values in rows.items()
    ]


def step_of(measured: Measured, rung: Rung, kind: str) -> Estimate | None:
    """The difference of a rung to the one it stands on, each with its own kind of score.

    With the oracle prior on both sides, a rung that only estimates priors changes nothing: None.
    """
    if rung.below is None or rung.below not in measured.scores:
        return None
    below = measured.rung(rung.below)
    if kind == "oracle" and (below.run, below.cycle) == (rung.run, rung.cycle):
        return None
    return measured.against(rung.key, kind, below.key, kind if kind == "oracle" else below.kind)


def _with_interval(value: Estimate) -> str:
    return f"{value.mean:.3f} ({value.low:.3f}-{value.high:.3f})"


def _range(value: Estimate) -> str:
    return f"{min(value.seeds):.3f} to {max(value.seeds):.3f}"


def _step(value: Estimate | None) -> str:
    return "" if value is None else f"{_signed(value)}: {value.verdict}"


def _signed(value: Estimate) -> str:
    return f"{value.mean:+.3f} ({value.low:+.3f} to {value.high:+.3f})"


def sentences(measured: Measured) -> list[str]:
    """One plain sentence a rung: whether it helped."""
    lines = []
    for rung in measured.rungs:
        own = step_of(measured, rung, rung.kind)
        if own is None:
            continue
        words = {"helps": "helps", "hurts": "hurts", "no difference": "makes no clear difference"}
        line = f"{rung.number} {rung.title}: {words[own.verdict]}, {_signed(own)}"
        oracle = step_of(measured, rung, "oracle")
        if oracle is not None:
            line += f"; with oracle priors it {words[oracle.verdict]}, {_signed(oracle)}"
        lines.append(line + ".")
    return lines


# ----------------------------------------------------------------------------------------- goals


def goals(measured: Measured) -> list[str]:
    """What the climb should reach, what was measured, and whether it is reached."""
    lines = []
    gain = measured.against("default", "prior", "positives", "raw")
    if gain is not None:
        lines.append(
            f"the finished default beats positives only by at least {GAIN_OVER_POSITIVES:.2f}: "
            f"{_signed(gain)}, {_reached(gain.mean >= GAIN_OVER_POSITIVES)}."
        )
    ceiling = _best_ceiling(measured)
    if ceiling is not None and "default" in measured.scores:
        behind = measured.against("default", "prior", "truth", ceiling)
        oracle = measured.against("default", "prior", "truth", "oracle")
        lines.append(
            "it comes within "
            f"{WITHIN_FULL_TRUTH:.2f} of the same model given the full truth, with or without "
            f"estimated priors, whichever is better: {_signed(behind)}, "
            f"{_reached(behind.mean >= -WITHIN_FULL_TRUTH)}; against that model with oracle "
            f"priors: {_signed(oracle)}."
        )
    short = measured.against("default", "prior", "default", "oracle")
    if short is not None:
        lines.append(
            f"estimated priors come within {WITHIN_ORACLE:.2f} of oracle priors: {_signed(short)}, "
            f"{_reached(short.mean >= -WITHIN_ORACLE)}."
        )
    return lines + _cycle_goal(measured)


def _best_ceiling(measured: Measured) -> str | None:
    """`raw` or `prior`: which scores of the model with the full truth are better."""
    if "truth" not in measured.scores:
        return None
    return max(("raw", "prior"), key=lambda kind: measured.estimate("truth", kind).mean)


def _cycle_goal(measured: Measured) -> list[str]:
    told, fell = [], False
    for rung in measured.rungs:
        if rung.key.startswith("cycle"):
            steps = {
                kind: measured.against(rung.key, kind, rung.below, kind)
                for kind in ("raw", "oracle")
            }
            if all(step is not None for step in steps.values()):
                fell = fell or any(step.mean < 0 for step in steps.values())
                told.append(
                    f"cycle {rung.cycle} {_signed(steps['raw'])}, with oracle priors "
                    f"{_signed(steps['oracle'])}"
                )
    if not told:
        return []
    return [f"relabelling cycles do not fall: {'; '.join(told)}; {_reached(not fell)}."]


def _reached(is_reached: bool) -> str:
    return "reached" if is_reached else "**not reached**"


# ------------------------------------------------------------------------------ commands, numbers


def _commands(plan: Plan) -> str:
    seed = plan.seeds[0]
    lines = [f"    {shown(data_command(plan, seed))}"]
    for run in plan.chosen:
        lines += [f"    {shown(command)}" for command in commands(plan, run, seed)]
    notes = []
    if "tta" in plan.runs:
        notes.append("`tta` has its own folder, into which the models of `default` are copied.")
    if "truth" in plan.runs:
        notes.append(
            "The data folder of `truth` links to the competition, with "
            "`truth/train_events.csv` as `train_tp.csv`."
        )
    return "\n".join(lines) + ("\n\n" + " ".join(notes) if notes else "")


def numbers(plan: Plan, measured: Measured, clock: Clock) -> dict[str, Any]:
    """Everything in the table, for other programs."""
    rows = []
    for rung in measured.rungs:
        step = step_of(measured, rung, rung.kind)
        row: dict[str, Any] = {"key": rung.key, "run": rung.run, "cycle": rung.cycle}
        row |= {"title": rung.title, "kind": rung.kind, "ceiling": rung.ceiling}
        row["scores"] = {kind: vars(measured.estimate(rung.key, kind)) for kind in KINDS}
        row["step"] = None if step is None else {**vars(step), "verdict": step.verdict}
        row["chance"] = [score.chance for score in measured.scores[rung.key]]
        row["constant_row"] = [score.constant_row for score in measured.scores[rung.key]]
        row["seconds"] = [clock.seconds(rung.run, seed) for seed in plan.seeds]
        rows.append(row)
    return {"seeds": plan.seeds, "rungs": rows, "goals": goals(measured)}
