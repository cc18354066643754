"""A study of additional positives with wanted scores, published through the store's own methods."""

from __future__ import annotations

from synthetic_study import MADE, FabricatedStudy, writer

from analysis.positives.evidence import ROLES, labelled_sets
from analysis.results import load_study
from orchestrator.store import Lineage, Result
from trainables.api.names import BY_FEATURES_PRETRAINED, BY_TRACIN_PRETRAINED, BYOL_ALONE, RANDOM_START

GPU = MADE | {"device": "NVIDIA H100"}


def levels(**changes):
    """A wanted score of every way; ``changes`` by role, with underscores for hyphens."""
    changes = {role.replace("_", "-"): level for role, level in changes.items()}
    return {role: changes.get(role, 0.5) for role in ROLES}


class FabricatedPositives(FabricatedStudy):
    """Publishes pretrainings and scores of fine-tunings as trials do."""

    def __init__(self, folder, data="isic2019", metric="test/bma", *, study="byol_positives", pretrained_on=""):
        card = {"name": data, "counts": {"train": 100, "test": 20}, "num_groups": 120, "split": "by group",
                "licence": "CC-BY", "groups": "images"}  # fmt: skip
        super().__init__(folder, [card])
        self.data, self.metric, self.study = data, metric, study
        self.shown = {"data": data} | ({"pretrained": f"pretrained on {pretrained_on}"} if pretrained_on else {})
        del self.manifest["facts"]["pretraining_start"]  # the study has none to choose
        self.manifest |= {"study": study, "question": "Which additional positives?"}

    def pretrained(self, role, seed, *, busy_s=100.0, made=MADE, is_done=True, continued_from=None):
        """The pretraining of a way, made from that of BYOL where this one chooses; its key. Once each."""
        key = f"{role}-pretraining-{seed}"
        if key in {entry["key"] for entry in self.trials}:
            return key
        upstream = []
        if role in (BY_FEATURES_PRETRAINED, BY_TRACIN_PRETRAINED):
            upstream = [self.pretrained(BYOL_ALONE, seed)]
        self.add(key, seeds={"pretrain_seed": seed}, upstream=upstream, named=False)
        if is_done:
            self.finished(key, busy_s, made, continued_from)
        return key

    def finished(self, key, busy_s, made=MADE, continued_from=None):
        lineage = Lineage(continued_from, 1) if continued_from else None
        self.store.publish(
            Result(key, {}, {}, [], 1.0, 2.0, busy_s, 1, 0.0, dict(made), "t", continued_from=lineage)
        )  # fmt: skip

    def scored(self, role, fraction, pretrain_seed, finetune_seed, value, *, is_done=True):
        """A fine-tuning and its score, of a pretraining that is made along."""
        name = f"{role}-{fraction}-{pretrain_seed}-{finetune_seed}-{self.data}"
        before = [] if role == RANDOM_START else [self.pretrained(role, pretrain_seed)]
        model = self.add(f"model-{name}", upstream=before, named=False)
        path = "init_seed" if role == RANDOM_START else "pretrain_seed"
        self.add(
            f"score-{name}", role, {**self.shown, "labels": f"{100 * fraction:.4g} % of labels"},
            {f"model.encoder.{path}": pretrain_seed, "model.finetune_seed": finetune_seed}, upstream=[model],
            files={"predictions.parquet": writer(b"none")} if is_done else None, metrics={self.metric: value},
            configuration={"class": "ClassificationScores", "model": {"label_fraction": fraction}},
        )  # fmt: skip

    def table(self, of_levels, fraction=1.0, *, num_pretrainings=1, num_finetunings=5, step=0.01):
        """All fine-tunings of the first pretraining, ``step`` apart, and one each of the others, at these levels."""
        for role, level in of_levels.items():
            for number in range(num_finetunings):
                self.scored(role, fraction, 0, number, level + step * (number - (num_finetunings - 1) / 2))
            for seed in range(1, num_pretrainings):
                self.scored(role, fraction, seed, seed, level + step * (seed % 3 - 1) / (2 + len(role)))

    def found(self):
        """The one data set, as a report reads it."""
        (found,) = labelled_sets(load_study(self.store, self.manifest))
        return found

    def submit(self, number, scale="full", **facts):
        """The manifest as of now, as a submission of its own."""
        document = self.manifest | {"submitted_at": float(number), "facts": {"scale": scale, **facts}}
        self.store.write_document(f"studies/{self.study}/{number}.json", document)
