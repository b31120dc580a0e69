"""Which answers flip, and what other ways of splitting say."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from nebula_utils.config import MIN_NEBULAE, OTHER
from nebula_utils.dataset.manifest import Dataset, make_dataset
from nebula_utils.features.backbone import Backbone
from nebula_utils.training.scores import (
    Predictions,
    Score,
    compute_balanced_accuracy,
    make_score,
    make_weights,
)
from nebula_utils.training.study import Plan, Recipe, Study, run_study


def predict_nebulae(study: Study, changes: Sequence[str]) -> dict[str, Predictions]:
    """Return the answers out of fold to the pictures of nebulae, under each change."""
    found = {change: study.predict_under(change) for change in changes}
    return {change: p.select(p.is_nebula) for change, p in found.items()}


def list_flips(study: Study, change: str = "grey") -> pd.DataFrame:
    """List the nebula pictures whose answer a change flips.

    Parameters
    ----------
    study : Study
        Of one recipe; its answers out of fold.
    change : str
        A change of colour or of framing.

    Returns
    -------
    DataFrame
        One row a picture whose mean answer flips: ``row`` (in the dataset),
        ``nebula``, ``label``, ``before``, ``after``, ``was_right`` and ``shift``, how
        much probability the first answer lost; those that lost most come first.
    """
    dataset = study.dataset
    names = np.array(dataset.class_names)
    rows = np.flatnonzero(names[dataset.y] != OTHER)
    found = predict_nebulae(study, ("as_is", change))
    before, after = found["as_is"].y_proba.mean(0), found[change].y_proba.mean(0)
    old, new = before.argmax(1), after.argmax(1)
    every = np.arange(len(rows))
    table = pd.DataFrame(
        {
            "row": rows,
            "nebula": dataset.manifest["nebula"].to_numpy()[rows],
            "label": names[dataset.y[rows]],
            "before": names[old],
            "after": names[new],
            "was_right": dataset.accept[rows, old],
            "shift": (before[every, old] - after[every, old]).round(3),
        }
    )
    flipped = table[old != new]
    return flipped.sort_values(["shift", "row"], ascending=[False, True])


def narrow(
    dataset: Dataset,
    classes: tuple[str, ...] = ("dark", "emission"),
    min_nebulae: int = MIN_NEBULAE,
) -> Dataset | None:
    """Return the part of a dataset that shows some classes; None if one is missing."""
    if not set(classes) <= set(dataset.class_names):
        return None
    rows = pd.concat([dataset.manifest, dataset.held_out], ignore_index=True)
    return make_dataset(rows, classes, min_nebulae)


def compare_photographers(
    dataset: Dataset, backbone: Backbone, recipes: Sequence[Recipe], plan: Plan
) -> dict[str, dict[str, Score]]:
    """Cross-validate by nebula and by photographer, on the same pictures.

    Parameters
    ----------
    dataset : Dataset
        Each picture's ``credit`` names its photographer.
    backbone : Backbone
        Loaded feature extractor.
    recipes : sequence of Recipe
        Heads to compare.
    plan : (k, repeats, random_state)
        Of the cross-validation.

    Returns
    -------
    dict
        Recipe → ``"nebula"`` and ``"photographer"`` → balanced accuracy, with its
        interval over what was left out. One picture a nebula, so that none is on both
        sides either way.
    """
    once = dataset.manifest.drop_duplicates("group").reset_index(drop=True)
    who = once["credit"].str.split(r"[/,;&]").str[0].str.strip().str.lower()
    ways = {
        "nebula": once,
        "photographer": once.assign(group=who.where(who != "", once["image_id"])),
    }
    found: dict[str, dict[str, Score]] = {}
    for recipe in recipes:
        for way, rows in ways.items():
            part = replace(dataset, manifest=rows)
            study = run_study(part, backbone, recipe, plan, (), (), random_split=False)
            p = study.predictions
            values = compute_balanced_accuracy(p, make_weights(p.groups, p.y_true))
            found.setdefault(recipe.name, {})[way] = make_score(values, p.groups)
    return found
