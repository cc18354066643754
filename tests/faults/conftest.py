"""The toys and what disturbs them, also in Ray's workers."""

import os
import sys
from pathlib import Path

_HERE = Path(__file__).parent
for _folder in (str(_HERE), str(_HERE.parent / "orchestrator")):
    sys.path.insert(0, _folder)
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (_folder, os.environ.get("PYTHONPATH")) if p)
