"""A study file like a user's, over toy trainables: `python toy_study.py --storage DIR --log-dir DIR`."""

from dataclasses import dataclass
from pathlib import Path

from toy import Count, Diverge, Squares

from orchestrator.cli import main
from orchestrator.options import DefaultInHelp, StudyOptions
from orchestrator.study import Study


@dataclass(frozen=True)
class ToyOptions(StudyOptions):
    log_dir: Path = Path()
    """Where trials note what they compute."""
    epoch_s: float = 0.0
    """How long an epoch or item lasts."""
    with_failure: DefaultInHelp[bool] = False
    """Add a trial that diverges."""


def report(store, manifest, out_dir):
    """Counts how often it was written."""
    path = out_dir / "part" / "report.html"
    path.parent.mkdir(exist_ok=True)
    path.write_text("<p>report</p>")
    with (out_dir / "written").open("a") as file:
        file.write("once\n")
    return [path]


def make_study(options):
    def log(name):
        return options.log_dir / name

    base = Count(6, epoch_s=options.epoch_s, log_path=log("base"))
    trials = {
        "tuned": Count(4, 2, upstream=base, epoch_s=options.epoch_s, log_path=log("tuned")),
        "other": Count(8, 3, epoch_s=options.epoch_s, log_path=log("other")),
        "items": Squares(10, 1, item_s=options.epoch_s, log_path=log("items")),
    }
    if options.with_failure:
        trials |= {"diverges": Diverge(), "waits": Count(2, upstream=Diverge())}
    return Study("toy", "Does everything survive?", trials, report="toy_study:report")


if __name__ == "__main__":
    main(ToyOptions, make_study, __doc__)
