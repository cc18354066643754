"""A store with the trials of a search, and the manifest of its submission."""

from __future__ import annotations

import numpy as np

from orchestrator.store import Failure, Result, Store

ACCURACY, LOSS = "val/retrieval_accuracy", "val/loss"
SPACE = {
    "learning_rate": {
        "name": "FloatDistribution", "attributes": {"step": None, "low": 1e-7, "high": 0.1, "log": True},
    },
    "num_layers": {"name": "IntDistribution", "attributes": {"log": False, "step": 1, "low": 1, "high": 8}},
    "key_momentum": {"name": "CategoricalDistribution", "attributes": {"choices": [0.9, 0.99, 0.999]}},
}  # fmt: skip


def params(number):
    """Parameters that tell the numbers apart."""
    return {
        "learning_rate": 1e-7 * 10 ** (number / 3), "num_layers": 1 + number % 8,
        "key_momentum": (0.9, 0.99, 0.999)[number % 3],
    }  # fmt: skip


class FabricatedSearch:
    """Writes results and failures with the store's own methods, and the manifest that names them."""

    def __init__(self, folder, directions=None, num_suggestions=16):
        self.store = Store(str(folder / "results"))
        self.trials, self.suggestions = [], []
        self.manifest = {
            "study": "toy_search",
            "question": "Which setting finds <most> images again?",
            "facts": {"scale": "smoke", "search_begins": "defaults"},
            "cards": {"toy": {"counts": {"train": 77, "val": 36}, "groups": "slabs of one volume", "licence": "free"}},
            "command": "python studies/toy_search.py --scale smoke",
            "provenance": {"git": "0123abc", "date": "2025-01-01"},
            "trials": self.trials,
            "search": {
                "directions": directions or {ACCURACY: "maximize"}, "space": SPACE, "num_suggestions": num_suggestions,
                "suggestions": self.suggestions,
            },
        }  # fmt: skip

    def add(self, state="complete", **values):
        """The next suggestion; ``values``: metric without ``val/`` -> values of the seeds, None for one without result.

        One trial a seed reports all metrics.
        """
        number = len(self.suggestions) + 1
        seeds = {f"val/{name}": numbers for name, numbers in values.items()}
        num_seeds = len(next(iter(seeds.values())))
        keys = [f"s{number}-seed{seed}" for seed in range(num_seeds)]
        for seed, key in enumerate(keys):
            self.add_trial(key, number, {name: numbers[seed] for name, numbers in seeds.items()})
        is_complete = state == "complete"
        self.suggestions.append(
            {
                "number": number,
                "params": params(number),
                "state": state,
                "values": {name: sum(numbers) / num_seeds for name, numbers in seeds.items()} if is_complete else None,
                "trials": dict.fromkeys(self.manifest["search"]["directions"], keys),
            }
        )
        return keys

    def climb(self, *stages, state="complete"):
        """The next suggestion of a search with rungs: the accuracies of its seeds at each length that it came to. Where
        the loss is an objective too, it is what is left of 1."""
        number, lengths = len(self.suggestions) + 1, self.manifest["search"]["rungs"]["lengths"]
        objectives = list(self.manifest["search"]["directions"])
        rungs = []
        for length, values in zip(lengths, stages, strict=False):
            keys = [f"s{number}-seed{seed}-{length}" for seed in range(len(values))]
            for key, value in zip(keys, values, strict=True):
                found = {ACCURACY: value, LOSS: None if value is None else 1 - value}
                self.add_trial(key, number, {name: found[name] for name in objectives})
            is_last = length == lengths[len(stages) - 1]
            rungs.append({"length": length, "state": state if is_last else "complete", "reason": "",
                          "trials": dict.fromkeys(objectives, keys)})  # fmt: skip
        reached = next((rung for rung in reversed(rungs) if rung["state"] == "complete"), rungs[0])
        self.suggestions.append({"number": number, "params": params(number), **reached, "rungs": rungs})

    def add_trial(self, key, number=0, metrics=None, named=False):
        configuration = {"class": "Toy", "marker": f"configuration of {key}"} | (params(number) if number else {})
        entry = {"key": key, "name": key, "class": "Toy", "upstream": [], "named": named, "data": {}}
        self.trials.append(entry | {"configuration": configuration})
        if metrics and None not in metrics.values():
            self.store.publish(Result(key, metrics, {}, [], 0.0, 1.0, 1.0, 1, 0.0, {}))

    def fail(self, key, message):
        self.store.record_failure(key, Failure("non-finite", message, "", 1, 0.0))


def with_rungs(folder, num=18):
    """Suggestions of 2 seeds at 4, 12 and 36 epochs; curves cross, number 4 failed on its way, the last one runs."""
    search, rng = FabricatedSearch(folder, num_suggestions=num), np.random.default_rng(1)
    search.manifest["search"]["rungs"] = {"lengths": [4, 12, 36], "reduction": 3}
    for number in range(1, num + 1):
        end, pace = rng.uniform(0.4, 0.9), rng.uniform(3, 15)
        stages = [[float(end * (1 - np.exp(-n / pace)) + rng.normal(0, 0.02)) for _ in range(2)] for n in (4, 12, 36)]
        if number == 4:
            search.climb(stages[0], [stages[1][0], None], state="failed")
            search.fail("s4-seed1-12", "train/loss is NaN at epoch 9")
        elif number == num:
            search.climb([stages[0][0], None], state="running")
        else:
            search.climb(*stages[: 1 + (number % 3 == 0) + (number % 9 == 0)])
    return search


def large(folder, directions=None):
    """16 suggestions of 3 seeds and 3 parameters; number 5 has failed, number 16 is running."""
    search, rng = FabricatedSearch(folder, directions), np.random.default_rng(0)
    for number in range(1, 17):
        at = params(number)
        level = 0.85 - 0.06 * (np.log10(at["learning_rate"]) + 3) ** 2 + 0.03 * (number % 3)
        accuracy = list(np.clip(level + rng.normal(0, 0.02, 3), 0, 1))
        loss = list(1.0 + 0.1 * number + rng.normal(0, 0.05, 3) - 2 * (level - 0.5))
        if number == 5:
            keys = search.add("failed", retrieval_accuracy=[0.5, None, 0.5], loss=loss)
            search.fail(keys[1], "train/loss is NaN at epoch 3")
        elif number == 16:
            search.add("running", retrieval_accuracy=[0.5, 0.6, None], loss=loss)
        else:
            search.add(retrieval_accuracy=accuracy, loss=loss)
    return search
