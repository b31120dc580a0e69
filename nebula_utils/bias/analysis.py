"""What notebooks 04 and 05 ask: scores, flips, the held-out nebula, other photos."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nebula_utils.bias import erasure
from nebula_utils.config import MIN_NEBULAE, OTHER, RANDOM_STATE, cache_dir
from nebula_utils.counterfactuals.colour import REPORTED
from nebula_utils.dataset import splits
from nebula_utils.dataset.manifest import Dataset, load_dataset, make_dataset
from nebula_utils.dataset.screening import find_unseen
from nebula_utils.features.backbone import Backbone
from nebula_utils.files import DAMAGED, compute_sha256, write_atomic
from nebula_utils.training import discriminant, fitting, heads, robust, scores, study
from nebula_utils.training.fitting import Fit
from nebula_utils.training.scores import Predictions
from nebula_utils.training.study import Embeddings, Strategy

log = logging.getLogger(__name__)

DARK_EMISSION = ("dark", "emission")  # the original tool's two classes
# Their source is part of a stored answer's key.
_RULES = (study, robust, fitting, discriminant, erasure, heads, splits)


@dataclass(frozen=True)
class Answers:
    """The out-of-fold answers of one strategy.

    Attributes
    ----------
    dataset : Dataset
        The pictures.
    strategy : Strategy
        How the heads were trained.
    embeddings : Embeddings
        What they were trained and asked on.
    y_proba : dict of str to ndarray of shape (n_repeats, n_images, n_classes)
        Answers to the pictures ``"as_is"`` and under each counterfactual.
    random_split : ndarray of shape (n_repeats, n_images, n_classes), optional
        Answers had the split been random; None if that was not asked.
    """

    dataset: Dataset
    strategy: Strategy
    embeddings: Embeddings
    y_proba: dict[str, np.ndarray]
    random_split: np.ndarray | None = None

    @cached_property
    def fit(self) -> Fit:
        """The strategy's head on all pictures, fitted once."""
        return study.fit_strategy(self.dataset, self.embeddings, self.strategy)

    @property
    def predictions(self) -> Predictions:
        """The answers to the pictures as they are."""
        return study.predict_study(self.dataset, self.y_proba)

    def predict_under(self, name: str) -> Predictions:
        """Return the answers under one counterfactual."""
        return study.predict_study(self.dataset, self.y_proba, name)

    def predict_random_split(self) -> Predictions:
        """Return the answers had the split been random.

        Raises
        ------
        ValueError
            If that was not asked.
        """
        if self.random_split is None:
            raise ValueError("run_study was called with random_split=False")
        return study.predict_study(self.dataset, {"as_is": self.random_split})

    def ask(
        self, rows: np.ndarray | pd.Index
    ) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Return the mean answers to some pictures by colour, and the classes."""
        rows = np.asarray(rows, int)
        answers = {name: y.mean(0)[rows] for name, y in self.y_proba.items()}
        return answers, self.dataset.class_names

    def score(self) -> dict[str, Any]:
        """Return every score that metrics.json holds of one head."""
        flattering = None
        if self.random_split is not None:
            flattering = self.predict_random_split()
        changed = {k: v for k, v in self.y_proba.items() if k != "as_is"}
        palettes = self.dataset.palettes
        return scores.score_head(
            self.predictions, changed, palettes, random_split=flattering
        )


def run_study(
    dataset: Dataset,
    backbone: Backbone,
    strategy: Strategy,
    n_splits: int,
    n_repeats: int,
    random_state: int = RANDOM_STATE,
    random_split: bool = True,
) -> Answers:
    """Cross-validate a strategy by nebula, or read the answers in the cache.

    Parameters
    ----------
    dataset : Dataset
        Pictures.
    backbone : Backbone
        Loaded feature extractor.
    strategy : Strategy
        How a head is trained.
    n_splits, n_repeats, random_state : int
        Of the cross-validation.
    random_split : bool
        Also run it once with a split by picture, to show how that flatters.

    Returns
    -------
    Answers
    """
    embeddings = study.embed_dataset(dataset, backbone, strategy)
    folds = study.make_splits(dataset, n_splits, n_repeats, random_state)
    y_proba = _cross_validate(dataset, embeddings, strategy, folds)
    if not random_split:
        return Answers(dataset, strategy, embeddings, y_proba)
    loose = dataset.ungroup()
    loosened = study.embed_dataset(loose, backbone, strategy, ())
    folds = study.make_splits(loose, n_splits, 1, random_state)
    flattering = _cross_validate(loose, loosened, strategy, folds)["as_is"]
    return Answers(dataset, strategy, embeddings, y_proba, flattering)


def narrow(
    dataset: Dataset,
    classes: tuple[str, ...] = DARK_EMISSION,
    min_nebulae: int = MIN_NEBULAE,
) -> Dataset | None:
    """Return the part of a dataset that shows some classes; None if one is missing."""
    if not set(classes) <= set(dataset.class_names):
        return None
    rows = pd.concat([dataset.manifest, dataset.held_out], ignore_index=True)
    return make_dataset(rows, classes, min_nebulae)


def list_flips(answers: Answers, counterfactual: str = "grey") -> pd.DataFrame:
    """List the nebula pictures whose answer a change of colour changes.

    Parameters
    ----------
    answers : Answers
        Of one strategy.
    counterfactual : str
        Which change.

    Returns
    -------
    DataFrame
        One row a picture whose mean answer flips: ``row`` (in the dataset),
        ``nebula``, ``label``, ``before``, ``after``, ``was_right`` and ``shift``, how
        much probability the first answer lost; those that lost most come first.
    """
    names = np.array(answers.dataset.class_names)
    before = answers.y_proba["as_is"].mean(0)
    after = answers.y_proba[counterfactual].mean(0)
    old, new = before.argmax(1), after.argmax(1)
    every = np.arange(len(old))
    table = pd.DataFrame(
        {
            "row": every,
            "nebula": answers.dataset.manifest["nebula"].to_numpy(),
            "label": names[answers.dataset.y],
            "before": names[old],
            "after": names[new],
            "was_right": answers.dataset.accept[every, old],
            "shift": (before[every, old] - after[every, old]).round(3),
        }
    )
    flipped = table[(old != new) & (table["label"] != OTHER)]
    return flipped.sort_values(["shift", "row"], ascending=[False, True])


def ask_held_out(
    answers: Answers, backbone: Backbone, counterfactuals: tuple[str, ...] = REPORTED
) -> pd.DataFrame:
    """Ask a head that was fitted on all pictures about those that were held out.

    Parameters
    ----------
    answers : Answers
        Their dataset says what is held out.
    backbone : Backbone
        Loaded feature extractor.
    counterfactuals : tuple of str
        Colour interventions.

    Returns
    -------
    DataFrame
        One row a picture and intervention (``nebula``, ``colour``), the probabilities
        of every class; empty without such pictures.
    """
    dataset = answers.dataset
    held = Dataset(dataset.held_out, dataset.class_names, {}, dataset.held_out[:0])
    columns = ["nebula", "colour", *dataset.class_names]
    if held.manifest.empty:
        return pd.DataFrame(columns=columns)
    head = answers.fit.head
    rows = []
    asking = study.embed_questions(held, backbone, answers.strategy, counterfactuals)
    for name in ("as_is", *counterfactuals):
        y_proba = head.predict_proba(asking[name])
        found = zip(held.manifest["nebula"], y_proba, strict=True)
        rows += [[nebula, name, *proba] for nebula, proba in found]
    return pd.DataFrame(rows, columns=columns)


def describe_held_out(story: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return the held-out nebulae's answers as metrics.json has them.

    Parameters
    ----------
    story : mapping of str to DataFrame
        From `ask_held_out`, one a head.

    Returns
    -------
    dict
        Nebula → head → colour → class → probability, rounded to 5 digits.
    """
    found: dict[str, Any] = {}
    for head, table in story.items():
        for row in table.to_dict("records"):
            nebula, colour = row.pop("nebula"), row.pop("colour")
            answers = {str(name): round(float(p), 5) for name, p in row.items()}
            found.setdefault(nebula, {}).setdefault(head, {})[colour] = answers
    return found


def score_external(
    answers: Answers,
    backbone: Backbone,
    photos_dir: Path | str,
    classes: Sequence[str] | None = None,
    use_flags: bool = True,
) -> dict[str, Any] | None:
    """Score a strategy on pictures of another source that no head ever saw.

    Parameters
    ----------
    answers : Answers
        Its training pictures; nebulae of the other source are left out of the fit.
    backbone : Backbone
        Loaded feature extractor.
    photos_dir : Path or str
        Folder for the source ``photos``.
    classes : sequence of str, optional
        Only these are asked about: their probabilities are scaled to sum to 1.
        Default: all that the head knows.
    use_flags : bool
        Whether pictures that their source flags as doubtful are left out.

    Returns
    -------
    dict or None
        The keys of one head in metrics.json, of the flip rates only ``grey``; None
        where there is no such folder.
    """
    if not Path(photos_dir).is_dir():
        return None
    names = answers.dataset.class_names
    asked = tuple(name for name in names if classes is None or name in classes)
    photos = load_dataset("photos", photos_dir, asked, 1, use_flags=use_flags)
    photos = Dataset(photos.manifest, asked, photos.left_out, photos.held_out)
    rows = find_unseen(answers.dataset.manifest, photos.manifest)
    head = study.fit_strategy(
        answers.dataset, answers.embeddings, answers.strategy, rows
    ).head
    columns = [names.index(name) for name in asked]
    y_proba = {}
    asking = study.embed_questions(photos, backbone, answers.strategy, ("grey",))
    for name, X in asking.items():
        found = head.predict_proba(X)[:, columns]
        y_proba[name] = (found / found.sum(1, keepdims=True))[None]
    return Answers(photos, answers.strategy, answers.embeddings, y_proba).score()


def score_outside(
    answers: Mapping[str, Answers],
    backbone: Backbone,
    asked: Mapping[str, Sequence[Any]],
) -> dict[str, Any]:
    """Score several heads on several outside sets.

    Parameters
    ----------
    answers : mapping of str to Answers
        One a head.
    backbone : Backbone
        Loaded feature extractor.
    asked : mapping of str to (photos_dir, classes, use_flags)
        The sets, each as `score_external` takes it.

    Returns
    -------
    dict
        Set → head → its scores; None for a set whose folder is not there.
    """
    found = {
        name: {head: score_external(a, backbone, *given) for head, a in answers.items()}
        for name, given in asked.items()
    }
    return {name: s if all(s.values()) else None for name, s in found.items()}


def _cross_validate(
    dataset: Dataset,
    embeddings: Embeddings,
    strategy: Strategy,
    folds: list[splits.Split],
) -> dict[str, np.ndarray]:
    key = _make_key(dataset, embeddings, strategy, folds)
    path = cache_dir() / "answers" / f"{key[:20]}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except FileNotFoundError:
        pass
    except DAMAGED as error:
        log.warning("%s is damaged (%s): computed again", path, error)
    y_proba = study.cross_validate(dataset, embeddings, strategy, folds)
    with write_atomic(path) as temporary:
        np.savez(temporary, **y_proba)  # type: ignore[arg-type]
    return y_proba


def _make_key(
    dataset: Dataset,
    embeddings: Embeddings,
    strategy: Strategy,
    folds: list[splits.Split],
) -> str:
    # Whatever decides an answer: the arrays themselves, the folds, and the code.
    digest = hashlib.sha256(repr((strategy, dataset.class_names)).encode())
    for module in _RULES:
        digest.update(compute_sha256(Path(str(module.__file__))).encode())
    samples = embeddings.train
    digest.update(repr(samples.shares).encode())
    arrays = [samples.X, samples.y, samples.groups, dataset.y, dataset.groups]
    arrays += [] if samples.kind is None else [samples.kind]
    for name, X in embeddings.test.items():
        digest.update(name.encode())
        arrays.append(X)
    arrays += [rows for fold in folds for rows in fold[2:]]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
