"""The tests in two processes side by side: what starts Ray, and all the rest, each of which would leave a core idle.

    python tests/in_halves.py [arguments of pytest]

With a path among the arguments, one process that runs what is named. The output of the second half follows the first's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
WITH_RAY = {"orchestrator", "studies", "test_ray_cluster.py"}
# In a folder of these, a file that says none of it starts neither Ray nor a command that does.
SIGNS = ("cluster", "subprocess", "main(")
# These start Ray, and are among the others all the same: so both halves take about as long.
BESIDE = {
    "test_positive_studies.py",
    "test_saliency_methods.py",
}
NOTHING_COLLECTED = 5


def halves() -> tuple[list[str], list[str]]:
    """The files of tests that start Ray, most of them, and the others."""
    found = sorted(HERE.rglob("test_*.py"))
    with_ray = [str(path) for path in found if starts_ray(path)]
    return with_ray, [str(path) for path in found if str(path) not in with_ray]


def starts_ray(path: Path) -> bool:
    is_of_ray = path.relative_to(HERE).parts[0] in WITH_RAY and path.name not in BESIDE
    return is_of_ray and any(sign in path.read_text() for sign in SIGNS)


def main(arguments: list[str]) -> int:
    """Exit status of pytest: 0 where both halves passed, or one did and the other had nothing to run."""
    pytest = [sys.executable, "-m", "pytest"]
    if any(Path(argument.partition("::")[0]).exists() for argument in arguments):
        return subprocess.run([*pytest, *arguments], check=False).returncode
    first, second = halves()
    with tempfile.TemporaryFile("w+") as said:
        beside = subprocess.Popen([*pytest, *second, *arguments], stdout=said, stderr=subprocess.STDOUT)
        try:
            codes = [subprocess.run([*pytest, *first, *arguments], check=False).returncode, beside.wait()]
        finally:
            beside.terminate()
        said.seek(0)
        print(said.read(), end="")
    ran = [code for code in codes if code != NOTHING_COLLECTED]
    return next((code for code in ran if code), 0) if ran else NOTHING_COLLECTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
