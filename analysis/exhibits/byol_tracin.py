"""The tables of BYOL-TracIn (Zeng et al. 2023), numbered as there, and its claims."""

from __future__ import annotations

from analysis.exhibits import positives
from analysis.exhibits.exhibit import Exhibit
from analysis.published.positives import transferred

_POSITIVES = "python studies/byol_positives.py --scale full --data-root DATA"
_TRANSFER = "python studies/transfer.py --scale full --data-root DATA"
_CHECKPOINTS = "python studies/tracin_checkpoints.py --scale full --data-root DATA"

BYOL_TRACIN = (
    Exhibit(
        "BYOL-TracIn, Table 1", "Additional positives by share of the labels, ISIC 2019", "byol_positives",
        f"{_POSITIVES} --datasets isic2019", positives.scores_of("isic2019"),
    ),
    Exhibit(
        "BYOL-TracIn, Table 1", "Additional positives by share of the labels, ChestX-ray14", "byol_positives",
        f"{_POSITIVES} --datasets chestxray14", positives.scores_of("chestxray14"),
    ),
    Exhibit(
        "BYOL-TracIn, Table 1", "Additional positives by share of the labels, other data sets", "byol_positives", None,
        positives.scores_of(None),
    ),
    Exhibit(
        "BYOL-TracIn, Figure 2", "What TracIn and feature similarity choose, ISIC 2019", "tracin_checkpoints",
        f"{_CHECKPOINTS} --datasets isic2019", positives.choices_of("isic2019"),
    ),
    Exhibit(
        "BYOL-TracIn, Figure 2", "What TracIn and feature similarity choose, other data sets", "tracin_checkpoints",
        None, positives.choices_of(None),
    ),
    Exhibit(
        "BYOL-TracIn, Table 2", "Transfer from ISIC 2019 to ISIC 2016", "transfer",
        f"{_TRANSFER} --datasets isic2019", positives.scores_of(transferred("isic2016", "isic2019")),
    ),
    Exhibit(
        "BYOL-TracIn, Table 2", "Transfer from ChestX-ray14 to Shenzhen", "transfer",
        f"{_TRANSFER} --datasets chestxray14", positives.scores_of(transferred("shenzhen", "chestxray14")),
    ),
    Exhibit(
        "BYOL-TracIn, Table 2", "Transfer between other data sets", "transfer", None, positives.scores_of(None),
    ),
    Exhibit(
        "BYOL-TracIn, claims", "What additional positives do, over pretrainings", "byol_positives",
        f"{_POSITIVES} --pretrain-seeds 5", positives.claims,
    ),
    Exhibit(
        "BYOL-TracIn, claims", "What additional positives do on another data set", "transfer",
        f"{_TRANSFER} --pretrain-seeds 5", positives.claims,
    ),
    Exhibit(
        "Beyond BYOL-TracIn", "Which checkpoint chooses rightly, and how many should be chosen", "tracin_checkpoints",
        None, positives.checkpoints,
    ),
    Exhibit(
        "Beyond BYOL-TracIn", "Scores down to 1 % of the labels", "label_fractions", None, positives.every_share,
    ),
)  # fmt: skip
