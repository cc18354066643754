"""Failures with a meaning of their own: none of them is cured by trying again."""

from __future__ import annotations


class NonFiniteMetric(Exception):
    """A metric became NaN or infinite."""

    def __init__(self, metric: str, value: float, step: int | None) -> None:
        """``step`` is None for a summary metric, which a trial returns at its end."""
        super().__init__(metric, value, step)
        self.metric, self.value, self.step = metric, value, step

    def __str__(self) -> str:
        where = "in the summary" if self.step is None else f"at step {self.step}"
        return (
            f"metric {self.metric!r} is {self.value} {where}: the training diverged; "
            "lower the learning rate or look at the data"
        )


class BadData(Exception):
    """Input files that cannot be used. Lists every bad file at once."""

    def __init__(self, what: str, problems: dict[str, str]) -> None:
        super().__init__(what, problems)
        self.what, self.problems = what, problems

    def __str__(self) -> str:
        """One line for one file. Of several the first line, which is all that a table shows, names the first."""
        first = next(iter(self.problems), "")
        if len(self.problems) == 1:
            return f"{self.what}: {first}: {self.problems[first]}"
        shown = [f"  {name}: {reason}" for name, reason in list(self.problems.items())[:50]]
        if len(self.problems) > len(shown):
            shown.append(f"  ... and {len(self.problems) - len(shown)} more")
        return f"{self.what}: {len(self.problems)} unusable files, {first} among them\n" + "\n".join(shown)
