"""The graph of stages: its order, what its parts need, and the commands made of it."""

from pathlib import Path

import pytest

from local.stages.stage_graph import PARTS, STAGES, command, order

ROOT = Path(__file__).resolve().parents[3]


def test_the_order_of_a_run():
    got = [(work.stage.number, work.part.name, work.cycle) for work in order(range(6), [1, 2])]
    later = ("relabel", "train", "infer", "merge")
    assert got == [
        *((0, "prepare", 0), (0, "preprocess", 0), (1, "split", 0), (2, "train", 0)),
        *((3, "infer", 0), (3, "merge", 0)),
        *((4, name, cycle) for cycle in (1, 2) for name in later),
        (5, "submit", 0),
    ]


def test_every_part_finds_what_it_needs():
    done = set()
    for work in order(range(6), [1, 2]):
        needs = {(name, work.cycle) for name in work.part.needs}
        needs |= {(name, work.cycle - 1) for name in work.part.needs_before}
        for name, cycle in needs:
            part = PARTS[name]
            if name == "relabel" and cycle == 0:  # there are pseudo events from cycle 1 on
                continue
            assert (name, cycle if part.per in ("cycle", "fold") else 0) in done, (work, name)
        done.add((work.part.name, work.cycle))


def test_stages_are_numbered_and_all_parts_are_theirs():
    assert [stage.number for stage in STAGES] == list(range(len(STAGES)))
    assert {name for stage in STAGES for name in stage.parts} == set(PARTS)
    for part in PARTS.values():
        assert (ROOT / part.script.format(recipe="demo")).is_file()
        # What gathers is done by the script that did what is gathered.
        if part.gathers:
            assert part.script == PARTS[part.gathers].script


@pytest.mark.parametrize(
    ("first", "last", "cycles", "names"),
    [
        (2, 3, [1], ["train", "infer", "merge"]),
        (4, 5, [], ["submit"]),
        (4, 5, [0], ["relabel", "submit"]),  # a task that calibrates
        (0, 0, [1, 2, 3], ["prepare", "preprocess"]),
    ],
)
def test_some_stages(first, last, cycles, names):
    assert [work.part.name for work in order(range(first, last + 1), cycles)] == names


def test_a_command_holds_what_is_given():
    values = {"recipe": "mice", "cycle": 0, "folds": "", "force": True, "set": ["a.b=1", "c.d=2"]}
    assert command(PARTS["train"], values) == [
        *("bin/sed_train.py", "--recipe", "mice", "--set", "a.b=1", "--set", "c.d=2", "--force"),
        *("--cycle", "0"),
    ]
