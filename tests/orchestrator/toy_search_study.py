"""A search like a user's, over a toy trainable: `python toy_search_study.py --storage DIR --log-dir DIR`."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli import main
from orchestrator.options import StudyOptions
from orchestrator.study import Search, Study


@dataclass(frozen=True)
class ToySearchOptions(StudyOptions):
    log_dir: Path = Path()
    """Where trials note what they compute."""
    num_suggestions: int = 8
    """How many points to try."""
    wait_s: float = 0.0
    """How long a trial lasts."""
    fails_above: float = 1.0
    """Trials of a larger x fail."""
    objective: str = "val/loss"
    """What to minimize."""


def make_study(options):
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from toy import Bowl, Count

    base = Count(3, log_path=options.log_dir / "base")

    def make(params):
        log = {"wait_s": options.wait_s, "log_path": options.log_dir / "bowls"}
        fixed = {"upstream": base, "fails_above": options.fails_above, **log}
        return {options.objective: [Bowl(**params, seed=seed, **fixed) for seed in range(options.pretrain_seeds)]}

    space = {"x": FloatDistribution(0.0, 1.0), "y": CategoricalDistribution(["flat", "steep"])}
    start = [{"x": 0.9, "y": "flat"}]
    search = Search(space, make, {options.objective: "minimize"}, options.num_suggestions, start=start)
    return Study("toy_search", "Where is the bottom?", {"base": base}, search)


if __name__ == "__main__":
    main(ToySearchOptions, make_study, __doc__)
