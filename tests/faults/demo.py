"""The tiny demo as the faults see it: stages as commands, what they write, what must be equal."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

# Smaller still than tiny: a stage takes a second or two.
SETTINGS = (
    *("prepare.n_train=24", "prepare.n_test=8", "prepare.duration_s=4"),
    *("train.windows_per_epoch=48", "score.n_bootstrap=20", "report.n_recordings=1"),
)
FOLDS = ("0", "1")
# What tells of the time, the process or the machine, and on which no stage depends.
EXEMPT_NAMES = (".lock", "run.json", "timing.csv", "prepare.log", "detect.json")
EXEMPT_FOLDERS = ("logs", "tensorboard")


@dataclass(frozen=True)
class Demo:
    """Where a demo lies: sounds are shared by all, tables, features and results are its own.

    `log` takes what its processes say.
    """

    data: Path
    home: Path
    log: Path

    @property
    def dump(self) -> Path:
        """Tables and features."""
        return self.home / "dump"

    @property
    def exp(self) -> Path:
        """Results, of all tags."""
        return self.home / "exp"

    def options(self, n_processes: int) -> list[str]:
        """Options of ./run.sh, which it hands on to its stages."""
        places = {"datadir": self.data, "dumpdir": self.dump, "expdir": self.exp}
        options = [word for name, path in places.items() for word in (f"--{name}", str(path))]
        return [*options, "--recipe", "demo", "--device", "cpu", *_conf(n_processes)]

    def commands(self, stage: str) -> list[list[str]]:
        """What is called in a stage; folds in the processes that ./run.sh would start for them."""
        options = self.options(1)

        def call(script: str, *more: str) -> list[str]:
            return [f"bin/{script}.py", *options, *more]

        def folds(script: str, cycle: str) -> list[list[str]]:
            return [call(script, "--cycle", cycle, "--worker", "--folds", fold) for fold in FOLDS]

        def infer(cycle: str) -> list[list[str]]:
            return [*folds("sed_infer", cycle), call("sed_infer", "--cycle", cycle)]

        tables = ["--datadir", str(self.data), "--out", str(self.dump / "tables"), *_conf(1)]
        relabel = call("relabel", "--cycle", "1")
        run, model = str(self.exp / "tiny"), str(self.home / "published")
        sounds, found = str(self.data / "test"), str(self.home / "found")
        formats = ("--format", "csv", "raven", "parquet", "--scores", "npz")
        publish = ["bin/export.py", run, "--out", model, "--no-onnx", "--force"]
        return {
            "preprocess": [["recipes/demo/prepare.py", *tables], call("preprocess")],
            "split": [call("split")],
            "train": folds("sed_train", "0"),
            "infer": infer("0"),
            "relabel": [relabel, *folds("sed_train", "1"), *infer("1")],
            "submit": [call("submit")],
            "export": [publish],
            "detect": [["bin/detect.py", model, sounds, "--out", found, *formats]],
        }[stage]

    def copy_to(self, home: Path, log: Path) -> "Demo":
        """The same demo at another place, which is emptied first."""
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(self.home, home)
        return Demo(self.data, home, log)


def _conf(n_processes: int) -> list[str]:
    changes = [word for setting in SETTINGS for word in ("--set", setting)]
    return ["--conf", "conf/demo/tiny.yaml", "--nj", str(n_processes), *changes]


class Lost(Exception):  # noqa: N818 (a finding)
    """What is not as it must be."""


# Those of run.sh, and the tools that go on from a finished run.
STAGES = ("preprocess", "split", "train", "infer", "relabel", "submit", "export", "detect")


def contents(home: Path) -> dict[str, str]:
    """Digest of every file below a folder that must come out the same, by its path."""
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(home.rglob("*"))
        if path.is_file() and not _is_exempt(path.relative_to(home))
    }


def _is_exempt(path: Path) -> bool:
    # The ledger tells when a run ended; it stands beside the tags.
    ledger = path.parts[0] == "exp" and len(path.parts) == 2
    return ledger or path.name in EXEMPT_NAMES or not set(EXEMPT_FOLDERS).isdisjoint(path.parts)


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """What is missing, too much or other, in words."""
    words = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    words += [f"{name} is too much" for name in sorted(found.keys() - expected.keys())]
    both = expected.keys() & found.keys()
    return words + [f"{name} differs" for name in sorted(both) if found[name] != expected[name]]
