"""The cross-validated study: a recipe's heads, and what they answer out of fold.

No nebula is fitted in the fold that asks about it. Under other colours than grey, and
framed otherwise, only pictures of nebulae are asked about: the question there is
whether colour or framing decides which nebula it is.
"""

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from nebula_utils.config import OTHER, RANDOM_STATE
from nebula_utils.counterfactuals.colour import REPORTED
from nebula_utils.dataset import splits
from nebula_utils.dataset.manifest import Dataset
from nebula_utils.errors import SourceError
from nebula_utils.features.backbone import Backbone
from nebula_utils.features.views import apply_first
from nebula_utils.files import load_or_compute
from nebula_utils.training import calibration, scores
from nebula_utils.training.fitting import (
    TWELVE,
    Recipe,
    Training,
    embed,
    fit_head,
    make_training,
)
from nebula_utils.training.heads import Head, make_head, temper
from nebula_utils.training.scores import Predictions, weigh_nebulae

FRAMINGS = ("smaller", "much_smaller", "larger", "off_centre", "turned")
# Asked of every picture; all else only of nebulae.
EVERYONE = ("as_is", "grey")
MIN_FOLDS = 3
N_JOBS = 2  # folds at once, each with one thread of linear algebra

# The original tool's head: every picture once, as it is.
PLAIN = Recipe("plain", balanced=False)
BALANCED = Recipe("balanced")
# What other photographers' pictures chose; see scripts/choose_head.py.
ROBUST = Recipe(
    "robust",
    TWELVE,
    two_step=True,
    colours=("as_is", "grey"),
    crops=6,
    framed=4,
    dusty=4,
)
RECIPES = {recipe.name: recipe for recipe in (PLAIN, BALANCED, ROBUST)}
# Simpler ways, and the robust one without one of its parts.
ABLATION = (
    Recipe("as is and grey", colours=("as_is", "grey")),
    replace(ROBUST, name="robust without dust", dusty=0),
    replace(ROBUST, name="robust without framing", framed=0),
    replace(ROBUST, name="robust, one head", two_step=False),
    replace(ROBUST, name="robust, asked in colour only", views=TWELVE[::2]),
)

Plan = tuple[int, int, int]  # folds, repeats, seed


@dataclass(frozen=True)
class Study:
    """A recipe's answers to pictures that its heads were not fitted on.

    Attributes
    ----------
    dataset, recipe, backbone, training
        The pictures, how heads are fitted and asked, and what they are fitted on.
    y_proba : dict of str to ndarray of shape (n_repeats, n, n_classes), float64
        Calibrated answers ``"as_is"`` and under each change; those under another
        change than grey are of the pictures of nebulae only, in their order.
    temperature : float
        Of the head that is fitted on all pictures.
    framings : tuple of str
        Which of the changes are framings; the others are colours.
    random_split : ndarray of shape (1, n, n_classes), optional
        Answers had the split been random.
    """

    dataset: Dataset
    recipe: Recipe
    backbone: Backbone
    training: Training
    y_proba: dict[str, np.ndarray]
    temperature: float = 1.0
    framings: tuple[str, ...] = ()
    random_split: np.ndarray | None = None

    @cached_property
    def head(self) -> Head:
        """The calibrated head that is fitted on all pictures."""
        return self.fit_head()

    @property
    def predictions(self) -> Predictions:
        """The answers to the pictures as they are."""
        return self.predict_under("as_is")

    @property
    def is_nebula(self) -> np.ndarray:
        """Whether each picture shows a nebula, shape (n_images,), bool."""
        return _list_nebulae(self.dataset)

    def predict_under(self, name: str) -> Predictions:
        """Return the answers under one change; but for grey, to nebulae only."""
        data, asked = self.dataset, _list_asked(self.dataset, name)
        y, groups, accept = data.y[asked], data.groups[asked], data.accept[asked]
        return Predictions(y, self.y_proba[name], groups, data.class_names, accept)

    def ask(
        self, rows: np.ndarray | pd.Index
    ) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Return the mean answers to some rows by change, and the classes.

        Where a change was not asked about, there is NaN.
        """
        found, names = {}, self.dataset.class_names
        for name, y_proba in self.y_proba.items():
            answers = np.full((len(self.dataset.y), len(names)), np.nan)
            answers[_list_asked(self.dataset, name)] = y_proba.mean(0)
            found[name] = answers[np.asarray(rows, int)]
        return found, names

    def score(self) -> dict[str, Any]:
        """Return every score that metrics.json holds of one head."""
        p, loose, palettes = self.predictions, self.random_split, self.dataset.palettes
        changes = {k: v for k, v in self.y_proba.items() if k != "as_is"}
        framed = {k: changes.pop(k) for k in self.framings}
        random = None if loose is None else p.replace(loose)
        return scores.score_head(p, changes, palettes, framed, random, calibration.SURE)

    def embed(self) -> np.ndarray:
        """Return the embeddings of the test-time views, (n_images, n_views, d)."""
        return embed(self.dataset, self.backbone, self.recipe.views)

    def fit_head(self, without: Sequence[str] = ()) -> Head:
        """Fit the calibrated head on all pictures but those of some groups."""
        left = np.array(sorted(without), str)
        given = (self.training, self.recipe, self.dataset.class_names, left)

        def compute() -> Mapping[str, np.ndarray]:
            return fit_head(*given).list_arrays()

        key = (*given, sys.modules[fit_head.__module__])
        head = make_head(load_or_compute("heads", key, compute))
        head.temperature = self.temperature
        return head

    def predict(
        self,
        pictures: pd.DataFrame,
        changes: Sequence[str] = ("grey",),
        without: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        """Ask one head about pictures that it is not fitted on.

        Parameters
        ----------
        pictures : DataFrame
            Of an outside set, or the held-out nebulae; the columns ``path`` and
            ``label`` are read.
        changes : sequence of str
            Colours and framings in which they are asked about, too.
        without : sequence of str
            This study's groups that are not fitted, as they show the same nebulae.

        Returns
        -------
        dict of str to ndarray of shape (n_images, n_classes), float64
            Calibrated probabilities ``"as_is"`` and under each change.
        """
        asked = Dataset(pictures.reset_index(drop=True), (), {}, pictures[:0])
        head = self.fit_head(without) if len(without) else self.head
        X = embed_changes(asked, self.backbone, self.recipe, changes, everyone=True)
        return {name: head.predict_proba(x) for name, x in X.items()}


def run_study(
    dataset: Dataset,
    backbone: Backbone,
    recipe: Recipe,
    plan: Plan = (5, 1, RANDOM_STATE),
    changes: Sequence[str] = REPORTED,
    framings: Sequence[str] = FRAMINGS,
    random_split: bool = True,
) -> Study:
    """Cross-validate a recipe by nebula, or read the answers in the cache.

    Parameters
    ----------
    dataset, backbone, recipe
        Pictures, feature extractor, and how a head is fitted and asked.
    plan : (int, int, int)
        Folds, repeats and seed of the cross-validation.
    changes, framings : sequence of str
        Names from `colour.COUNTERFACTUALS` and `framing.FRAMINGS`, in which pictures
        are asked about, too.
    random_split : bool
        Also run it once with a split by picture, to show how that flatters.

    Raises
    ------
    LeakageError
        If a group stands on both sides of a split.
    SourceError
        If there are too few folds, or a class has fewer nebulae than folds.
    """
    k, repeats, seed = plan
    folds = make_splits(dataset, k, repeats, seed)
    training = make_training(dataset, backbone, recipe)
    X = embed_changes(dataset, backbone, recipe, (*changes, *framings))
    y_proba, temperature = _cross_validate(dataset, training, recipe, X, folds)
    loose = None
    if random_split:
        alone = dataset.ungroup()
        parts = make_training(alone, backbone, recipe)
        X = {"as_is": X["as_is"]}
        folds = make_splits(alone, k, 1, seed)
        loose = _cross_validate(alone, parts, recipe, X, folds)[0]["as_is"]
    given = (dataset, recipe, backbone, training)
    return Study(*given, y_proba, temperature, tuple(framings), loose)


def make_splits(
    dataset: Dataset, n_splits: int, n_repeats: int, random_state: int = RANDOM_STATE
) -> list[splits.Split]:
    """Return repeated k-folds by group, each checked for leakage; see `run_study`."""
    groups = dataset.groups
    thinnest = dataset.manifest.groupby("label")["group"].nunique().min()
    if not MIN_FOLDS <= n_splits <= thinnest:
        raise SourceError(
            f"can't split {thinnest} nebulae of the thinnest class into {n_splits} "
            f"folds: choose FOLDS from {MIN_FOLDS} to {max(MIN_FOLDS, thinnest)} "
            "(three at least, as each fold is calibrated on the others)"
        )
    made = splits.repeated_group_kfold(
        dataset.y, groups, n_splits, n_repeats, random_state
    )
    folds = list(made)
    for _, _, train, test in folds:
        splits.check_leakage(groups, train, test)
    return folds


def embed_changes(
    dataset: Dataset,
    backbone: Backbone,
    recipe: Recipe,
    changes: Sequence[str],
    everyone: bool = False,
) -> dict[str, np.ndarray]:
    """Embed pictures as a recipe asks about them, as they are and changed.

    ``everyone`` says whether every picture is asked about under every change, or only
    as it is and in grey, and pictures of nebulae otherwise. Each array has shape
    (n, n_views, n_features).
    """
    asked = {"as_is": recipe.views}
    asked |= {name: apply_first(name, recipe.views) for name in changes}
    full = asked if everyone else [name for name in EVERYONE if name in asked]
    common = list(dict.fromkeys(view for name in full for view in asked[name]))
    rest = {view for views in asked.values() for view in views}.difference(common)
    chosen = _list_nebulae(dataset)
    X = embed(dataset, backbone, common)
    found = {view: X[:, i] for i, view in enumerate(common)}
    few = {view: x[chosen] for view, x in found.items()}
    if rest and chosen.any():
        order = sorted(rest)
        X = embed(dataset, backbone, order, chosen)
        few |= {view: X[:, i] for i, view in enumerate(order)}
    return {
        name: np.stack([(found if name in full else few)[v] for v in views], 1)
        for name, views in asked.items()
        if name in full or chosen.any()
    }


def _cross_validate(
    dataset: Dataset,
    training: Training,
    recipe: Recipe,
    X: dict[str, np.ndarray],
    folds: Sequence[splits.Split],
) -> tuple[dict[str, np.ndarray], float]:
    """Return calibrated out-of-fold answers by change, and the export's temperature."""

    def compute() -> Mapping[str, np.ndarray]:
        y_proba = _predict_folds(dataset, training, recipe, X, folds)
        return {**y_proba, "temperature": _calibrate(dataset, y_proba, folds)}

    code = sys.modules[__name__]
    parts = [[*fold] for fold in folds]
    known = [dataset.y, dataset.groups, dataset.accept, dataset.class_names]
    found = load_or_compute(
        "answers", (training, recipe, X, known, parts, code), compute
    )
    return found, float(found.pop("temperature"))


def _predict_folds(
    dataset: Dataset,
    training: Training,
    recipe: Recipe,
    X: dict[str, np.ndarray],
    folds: Sequence[splits.Split],
) -> dict[str, np.ndarray]:
    """Return out-of-fold answers, not calibrated."""
    from threadpoolctl import threadpool_limits

    names, groups = dataset.class_names, dataset.groups
    rows = {name: _list_asked(dataset, name) for name in X}
    shape = 1 + max(repeat for repeat, _, _, _ in folds), len(names)
    y_proba = {k: np.full((shape[0], len(x), shape[1]), np.nan) for k, x in X.items()}

    def fit(fold: splits.Split) -> Head:
        _, _, train, test = fold
        return fit_head(training, recipe, names, groups[test], len(train))

    # Set for all folds at once: set and reset by each of two threads, the limit holds
    # now and then, and the last bits of the answers with it.
    with threadpool_limits(1), ThreadPoolExecutor(N_JOBS) as pool:
        fits = tqdm(
            pool.map(fit, folds), recipe.name, len(folds), unit="fold", disable=None
        )
        for (repeat, _, _, test), head in zip(folds, fits, strict=True):
            for name, x in X.items():
                mine = np.isin(rows[name], test)
                y_proba[name][repeat, mine] = head.predict_proba(x[mine])
    return y_proba


def _calibrate(
    dataset: Dataset, y_proba: dict[str, np.ndarray], folds: Sequence[splits.Split]
) -> np.ndarray:
    """Calibrate answers in place, each fold by the others; return one for the export.

    The temperatures are chosen on the pictures as they are.
    """
    rows = {name: _list_asked(dataset, name) for name in y_proba}
    raw = y_proba["as_is"].copy()
    for repeat, answers in enumerate(raw):
        tests = [test for r, _, _, test in folds if r == repeat]
        found = calibration.fit_temperatures(
            answers, dataset.accept, dataset.groups, tests
        )
        for test, temperature in zip(tests, found, strict=True):
            for name, values in y_proba.items():
                mine = np.isin(rows[name], test)
                values[repeat, mine] = temper(values[repeat, mine], temperature)
    n = len(raw)
    weight = np.tile(weigh_nebulae(dataset.groups), n)
    accept = np.tile(dataset.accept, (n, 1))
    flat = raw.reshape(-1, raw.shape[2])
    return np.array(calibration.fit_temperature(flat, accept, weight))


def _list_asked(dataset: Dataset, name: str) -> np.ndarray:
    """Return the rows of the dataset that are asked about under a change."""
    everyone = np.arange(len(dataset.manifest))
    return everyone if name in EVERYONE else everyone[_list_nebulae(dataset)]


def _list_nebulae(dataset: Dataset) -> np.ndarray:
    return dataset.manifest["label"].to_numpy() != OTHER
