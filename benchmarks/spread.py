"""How many workers are N workers of one trial worth?

A trial maps ``--items`` times N items of half a second (they sleep, so cores do not count) over N workers, through the
real scheduler, claims and journal. Effective workers are the seconds of all items over the time from the first item's
start to the last one's end. ``2 x 2`` are two nodes of two workers.

    python benchmarks/spread.py [--items 100] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestrator.attempt import Settings
from orchestrator.plan import make_plan
from orchestrator.store import Store
from orchestrator.study import Resources, Study
from trainables.api.identity import FileDigests, Keys
from trainables.api.trainable import Trainable, recorded

ITEM_S = 0.5
SETTINGS = {"2": (2, 1), "4": (4, 1), "8": (8, 1), "2 x 2": (2, 2)}
"""Workers a node, and nodes."""


@dataclass(frozen=True)
class Sleeps(Trainable):
    """Items that sleep, and note when."""

    spreads = "items"

    num_items: int
    folder: Path = recorded()

    def run(self, context):
        results = context.map(self.sleep, list(range(self.num_items)))
        assert [int(result["item"]) for result in results] == list(range(self.num_items))
        return {"items": float(len(results))}

    def sleep(self, items):
        begun = time.time()
        time.sleep(ITEM_S * len(items))
        (self.folder / f"{items[0]}").write_text(f"{begun} {time.time()}")
        return [{"item": np.array(item)} for item in items]


class Silent:
    """A listener that does not care."""

    def __getattr__(self, event):
        return lambda *what: None


def effective(per_node: int, nodes: int, items_each: int) -> float:
    """Effective workers of one run."""
    from ray.cluster_utils import Cluster as Nodes

    from orchestrator.cluster import Cluster
    from orchestrator.launch import launch

    workers = per_node * nodes
    local = Nodes(initialize_head=True, head_node_args={"num_cpus": per_node, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            local.add_node(num_cpus=per_node)
        with tempfile.TemporaryDirectory() as folder, Cluster(local.address):
            notes = Path(folder) / "notes"
            notes.mkdir()
            store = Store(f"{folder}/results")
            study = Study("spread", "?", {"sleeps": Sleeps(items_each * workers, notes)})
            settings = Settings(store.uri, Path(folder) / "cache", Resources(1.0, 0.0, workers), {})
            launch(make_plan(study, store, Keys(FileDigests())), store, settings, Silent())
            times = [[float(word) for word in note.read_text().split()] for note in notes.iterdir()]
    finally:
        local.shutdown()
    assert len(times) == items_each * workers, f"{len(times)} items ran"
    return ITEM_S * len(times) / (max(end for _, end in times) - min(begun for begun, _ in times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100, help="items for each worker")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print("workers   effective   share")
    rows = []
    for name, (per_node, nodes) in SETTINGS.items():
        found = effective(per_node, nodes, options.items)
        rows.append({"workers": name, "effective": found, "share": found / (per_node * nodes)})
        print(f"{name:7}   {found:9.2f}   {rows[-1]['share']:5.2f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
