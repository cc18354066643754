"""A study whose trial trains in two processes, as a user would submit it."""

from dataclasses import dataclass
from pathlib import Path

from toy_ranks import Ranks

from orchestrator.cli import main
from orchestrator.options import StudyOptions
from orchestrator.study import Study


@dataclass(frozen=True)
class RanksOptions(StudyOptions):
    """Flags of the study."""

    log_path: Path = Path("log")
    epoch_s: float = 0.0
    workers_per_trial: int = 2


def make_study(options):
    return Study("ranks", "?", {"ranks": Ranks(8, epoch_s=options.epoch_s, log_path=options.log_path)})


if __name__ == "__main__":
    main(RanksOptions, make_study, __doc__)
