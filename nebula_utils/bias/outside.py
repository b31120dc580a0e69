"""Judge heads otherwise: on outside sets, the held-out nebula, by photographer.

The head that is scored is the one that is exported, fitted on all training pictures.
Copies of training pictures are dropped from an outside set; its other pictures of
nebulae that are also trained on count, and are scored once more without.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from nebula_utils.config import MIN_NEBULAE
from nebula_utils.counterfactuals.colour import REPORTED
from nebula_utils.dataset.manifest import Dataset, load_dataset, make_dataset
from nebula_utils.dataset.screening import find_duplicates
from nebula_utils.dataset.splits import make_groups
from nebula_utils.features.backbone import Backbone
from nebula_utils.training import scores
from nebula_utils.training.calibration import SURE
from nebula_utils.training.scores import Predictions, Score
from nebula_utils.training.study import Plan, Recipe, Study, run_study

log = logging.getLogger(__name__)

DARK_EMISSION = ("dark", "emission")  # the original tool's two classes
POOLED, NEW = "pooled", "pooled, new nebulae"


class Outside(NamedTuple):
    """An outside set."""

    manifest: pd.DataFrame  # its pictures, without copies of training pictures
    is_new: np.ndarray  # bool: no training picture shows the nebula, or its place


def load_outside(folder: Path | str, dataset: Dataset) -> Outside | None:
    """Read a folder of pictures with a manifest, to be judged and never trained on.

    It is as for the source ``photos``; what it flags as doubtful, and classes that the
    training pictures in ``dataset`` lack, are left out. None where there is no such
    folder, or nothing but copies of training pictures in it.

    Raises
    ------
    SourceError
        If the folder holds no usable picture.
    """
    if not Path(folder).is_dir():
        return None
    found = load_dataset("photos", folder, dataset.class_names, min_nebulae=1)
    known = pd.concat([dataset.manifest, dataset.held_out], ignore_index=True)
    # A file may have the same name in both.
    theirs = found.manifest.assign(image_id="outside/" + found.manifest["image_id"])
    both = pd.concat([known, theirs], ignore_index=True)
    copies = find_duplicates(both)
    ours = copies[["first", "second"]].isin(set(known["image_id"]))
    twins = copies[ours.sum(axis=1) == 1]
    groups = make_groups(both, copies)
    is_new = ~np.isin(groups[len(known) :], groups[: len(known)])
    kept = ~theirs["image_id"].isin({*twins["first"], *twins["second"]}).to_numpy()
    if not kept.any():
        log.warning("%s holds only copies of training pictures: not scored", folder)
        return None
    return Outside(found.manifest[kept].reset_index(drop=True), is_new[kept])


def predict_outside(
    study: Study, outside: Outside, name: str, without: Sequence[str] = ()
) -> dict[str, Predictions]:
    """Ask a study's head about an outside set, ``"as_is"`` and in ``"grey"``.

    It is fitted on all pictures but those of the groups ``without``; ``name`` stands
    before the nebulae's names, so that sets can be pooled.
    """
    rows, names = outside.manifest, study.dataset.class_names
    asked = Dataset(rows, names, {}, rows[:0])
    groups = np.array([f"{name}: {group}" for group in asked.groups])
    return {
        change: Predictions(asked.y, y_proba[None], groups, names, asked.accept)
        for change, y_proba in study.predict(rows, ("grey",), without).items()
    }


def score_outside(
    studies: Mapping[str, Study], folders: Mapping[str, Path | str]
) -> dict[str, Any]:
    """Score several heads on several outside sets, one by one and pooled.

    Returns
    -------
    dict
        Set → head → its scores, and under `POOLED` and `NEW` those of all sets
        together; None for a set whose folder is not there, and for the pool if one is
        missing.
    """
    dataset = next(iter(studies.values())).dataset
    sets = {name: load_outside(folder, dataset) for name, folder in folders.items()}
    found: dict[str, Any] = dict.fromkeys((*sets, POOLED, NEW))
    there = {name: one for name, one in sets.items() if one is not None}
    answers = {
        name: {head: predict_outside(s, one, name) for head, s in studies.items()}
        for name, one in there.items()
    }
    palettes = {n: one.manifest["palette"].to_numpy(str) for n, one in there.items()}
    if len(there) == len(sets):
        is_new = np.concatenate([one.is_new for one in there.values()])
        together = {h: pool([each[h] for each in answers.values()]) for h in studies}
        answers |= {POOLED: together, NEW: {}}
        palettes[POOLED] = np.concatenate(list(palettes.values()))
        palettes[NEW] = palettes[POOLED][is_new]
        for head, changes in together.items():
            answers[NEW][head] = {k: p.select(is_new) for k, p in changes.items()}
    for name, by_head in answers.items():
        found[name] = {h: score_answers(p, palettes[name]) for h, p in by_head.items()}
    return found


def pool(answers: Sequence[Mapping[str, Predictions]]) -> dict[str, Predictions]:
    """Join the answers to several sets of pictures."""

    def join(change: str) -> Predictions:
        parts = [one[change] for one in answers]
        return Predictions(
            np.concatenate([p.y_true for p in parts]),
            np.concatenate([p.y_proba for p in parts], axis=1),
            np.concatenate([p.groups for p in parts]),
            parts[0].class_names,
            np.concatenate([p.accept for p in parts if p.accept is not None]),
        )

    return {change: join(change) for change in answers[0]}


def score_answers(
    answers: Mapping[str, Predictions], palettes: np.ndarray
) -> dict[str, Any]:
    """Return the scores of one head on one set, as metrics.json has them.

    Beside the keys of `scores.score_head` there is ``dark_emission``: the balanced
    accuracy on pictures of the original tool's two classes, of answers among these.
    """
    p = answers["as_is"]
    changed = {"grey": answers["grey"].y_proba}
    found: dict[str, Any] = scores.score_head(p, changed, palettes, sure=SURE)
    if set(DARK_EMISSION) <= {p.class_names[i] for i in np.unique(p.y_true)}:
        found["dark_emission"] = scores.score_accuracy(p.among(DARK_EMISSION))
    return found


def predict_held_out(
    studies: Mapping[str, Study], changes: Sequence[str] = REPORTED
) -> dict[str, pd.DataFrame]:
    """Ask heads about the nebulae that no head is fitted on, in several colours.

    Returns
    -------
    dict of str to DataFrame
        Head → one row a picture and change (``nebula``, ``colour``), the probability
        of every class; empty without such pictures.
    """
    found = {}
    for head, study in studies.items():
        rows, names = study.dataset.held_out, list(study.dataset.class_names)
        parts = [pd.DataFrame(columns=["nebula", "colour", *names])]
        if len(rows):
            parts = [
                pd.DataFrame(y_proba, columns=names).assign(
                    nebula=rows["nebula"].to_numpy(), colour=change
                )
                for change, y_proba in study.predict(rows, changes).items()
            ]
        found[head] = pd.concat(parts, ignore_index=True)[["nebula", "colour", *names]]
    return found


def describe_held_out(story: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return `predict_held_out`'s answers as metrics.json has them.

    Nebula → head → colour → class → probability, rounded to 5 digits.
    """
    found: dict[str, Any] = {}
    for head, table in story.items():
        for row in table.to_dict("records"):
            nebula, colour = row.pop("nebula"), row.pop("colour")
            answers = {str(name): round(float(p), 5) for name, p in row.items()}
            found.setdefault(nebula, {}).setdefault(head, {})[colour] = answers
    return found


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

    Each picture's ``credit`` names its photographer. One picture a nebula is used, so
    that none is on both sides either way; classes with fewer photographers than folds
    are left out of both.

    Returns
    -------
    dict
        Recipe → ``"nebula"`` and ``"photographer"`` → balanced accuracy, with its
        interval over what was left out.
    """
    once = dataset.manifest.drop_duplicates("group").reset_index(drop=True)
    who = once["credit"].str.split(r"[/,;&]").str[0].str.strip().str.lower()
    who = who.where(who != "", once["image_id"])
    counts = who.groupby(once["label"]).nunique()
    names = tuple(n for n in dataset.class_names if counts.get(n, 0) >= plan[0])
    once, who = (part[once["label"].isin(names)] for part in (once, who))
    ways = {"nebula": once, "photographer": once.assign(group=who)}
    found: dict[str, dict[str, Score]] = {}
    for recipe in recipes:
        for way, rows in ways.items():
            part = replace(dataset, manifest=rows, class_names=names)
            study = run_study(part, backbone, recipe, plan, (), (), random_split=False)
            score = scores.score_accuracy(study.predictions)
            found.setdefault(recipe.name, {})[way] = score
    return found
