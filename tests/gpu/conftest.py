"""The toys of other folders, also in Ray's workers."""

import os
import sys
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
_PLACES = [str(_TESTS / name) for name in ("gpu", "trainables", "orchestrator")]
sys.path[:0] = _PLACES
os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (*_PLACES, os.environ.get("PYTHONPATH")) if p)
