"""A study that faults happen to: `python fault_study.py --storage DIR --log-dir DIR`."""

import time
from dataclasses import dataclass
from pathlib import Path

from odd import Odd
from toy import Count, Squares

from orchestrator.cli import main
from orchestrator.options import StudyOptions
from orchestrator.study import Study


@dataclass(frozen=True)
class FaultOptions(StudyOptions):
    log_dir: Path = Path()
    """Where trials note what they compute, and read what they are to do wrong."""
    name: str = "faults"
    """Of the study: several of them share one MLflow server."""
    epoch_s: float = 0.0
    """How long an epoch or item lasts."""


def report(store, manifest, out_dir):
    """Says that it began, and takes its time where a file says how long."""
    (out_dir / "begun").write_text("yes")
    slow = Path(store.uri).parent / "report_s"
    time.sleep(float(slow.read_text()) if slow.exists() else 0.0)
    (out_dir / "report.html").write_text("<p>report</p>")
    return [out_dir / "report.html"]


def make_study(options):
    def log(name):
        return options.log_dir / name

    base = Count(6, epoch_s=options.epoch_s, log_path=log("base"))
    trials = {
        "tuned": Count(4, 2, upstream=base, epoch_s=options.epoch_s, log_path=log("tuned")),
        "other": Count(8, 3, epoch_s=options.epoch_s, log_path=log("other")),
        "items": Squares(10, 1, item_s=options.epoch_s, log_path=log("items")),
        **{f"odd{n}": Odd(2, n, log_path=log(f"odd{n}")) for n in range(1, 5)},
    }
    return Study(options.name, "Does everything survive?", trials, report="fault_study:report")


if __name__ == "__main__":
    main(FaultOptions, make_study, __doc__)
