"""Figures and tables of the thesis's chapter 6: HOG and SVM."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from analysis.hog.evidence import DataSet, data_sets
from analysis.hog.figures import angle_figure, hog_pictures
from analysis.hog.report import accuracy_table
from analysis.render.files import file_name
from analysis.render.pictures import Pictures
from analysis.render.style import Figure
from analysis.render.table import Table
from analysis.results import StudyResults


def histograms(results: StudyResults) -> list[Pictures]:
    """Figure 6.1: sample histograms of each data set."""
    return [
        replace(pictures, name=file_name("histograms", found.name))
        for found in _data_sets(results)
        for pictures in hog_pictures(found)
    ]


def curves(results: StudyResults) -> list[Figure | Table]:
    """Table 6.1: for each data set the Dice curve above the accuracy, and the accuracies in numbers."""
    parts: list[Figure | Table] = []
    for found in _data_sets(results):
        if found.accuracies:
            parts.append(replace(angle_figure(found), name=file_name("angles", found.name)))
            parts.append(replace(accuracy_table(found), name=file_name("accuracy", found.name)))
    return parts


@lru_cache(maxsize=8)
def _data_sets(results: StudyResults) -> list[DataSet]:
    return data_sets(results)
