"""Rows about the study: cross-validation and intervals against plain loops."""

import warnings
from collections.abc import Collection

import numpy as np
from measuring import Options, Row, judge, take_turns
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import recall_score

from nebula_utils.training.discriminant import fit_folds
from nebula_utils.training.fitting import Samples, fit_temperature
from nebula_utils.training.scores import (
    N_RESAMPLES,
    Predictions,
    compute_balanced_accuracy,
    make_score,
    make_weights,
)

N_FEATURES, N_CLASSES, N_NEBULAE, N_FOLDS = 1024, 6, 60, 5
N_SAMPLES = 8000
COPIES = 4  # colours of a crop; ours also learns from their differences
PICTURES = 10  # of each nebula, that are asked about
N_REPEATS, N_IMAGES = 3, 560  # of the cross-validation, in the study
SHRINKAGE = 0.3


def make_samples() -> tuple[Samples, Samples, list[np.ndarray]]:
    """Return synthetic crops, the pictures asked about, and the folds' pictures."""
    rng = np.random.default_rng(0)
    centre = rng.normal(0, 0.3, (N_CLASSES, N_FEATURES))
    own = rng.normal(0, 0.5, (N_NEBULAE, N_FEATURES))

    def draw(nebula: np.ndarray, copies: int) -> Samples:
        y = nebula % N_CLASSES
        X = centre[y] + own[nebula] + rng.normal(0, 1, (len(y), N_FEATURES))
        groups = np.char.add("nebula ", nebula.astype(str))
        return Samples(X.astype(np.float32), y, groups, copies=copies)

    crops = np.repeat(np.arange(N_SAMPLES // COPIES) % N_NEBULAE, COPIES)
    asked = np.repeat(np.arange(N_NEBULAE), PICTURES)
    fold = asked // N_CLASSES % N_FOLDS  # every class in every fold
    folds = [np.flatnonzero(fold == i) for i in range(N_FOLDS)]
    return draw(crops, COPIES), draw(asked, 1), folds


def loop_over_folds(
    samples: Samples, judged: Samples, folds: list[np.ndarray]
) -> list[float]:
    """Do what `fit_folds` does, one scikit-learn fit after the other."""

    def fit(*out: np.ndarray) -> LinearDiscriminantAnalysis:
        left = samples.without(judged.groups[np.concatenate(out)]) if out else samples
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE)
        return model.fit(left.X, left.y)

    temperatures, logits = [], np.empty((len(judged.y), N_CLASSES))
    for i, outer in enumerate(folds):
        inner = np.empty_like(logits)
        for j, asked in enumerate(folds):
            if j != i:
                inner[asked] = fit(outer, asked).decision_function(judged.X[asked])
        rest = np.setdiff1d(np.arange(len(judged.y)), outer)
        temperatures.append(fit_temperature(inner[rest], judged.y[rest]))
        logits[outer] = fit(outer).decision_function(judged.X[outer])
    fit()
    return [*temperatures, fit_temperature(logits, judged.y)]


def make_predictions() -> Predictions:
    """Return synthetic answers, of the study's size."""
    rng = np.random.default_rng(0)
    nebula = rng.integers(0, N_IMAGES * 9 // 10, N_IMAGES)
    y = nebula % N_CLASSES
    logits = rng.normal(0, 1, (N_REPEATS, N_IMAGES, N_CLASSES))
    logits += 2 * np.eye(N_CLASSES)[y]
    proba = np.exp(logits)
    names = tuple(f"class {i}" for i in range(N_CLASSES))
    proba /= proba.sum(-1, keepdims=True)
    return Predictions(y, proba, np.char.add("nebula ", nebula.astype(str)), names)


def resample(p: Predictions) -> None:
    """Give the interval of the balanced accuracy, as the study does."""
    weights = make_weights(p.groups, p.y_true)
    make_score(compute_balanced_accuracy(p, weights), p.groups)


def resample_in_a_loop(p: Predictions) -> None:
    """Do the same with one call of scikit-learn a resample and repeat."""
    rng = np.random.default_rng(0)
    nebulae, first = np.unique(p.groups, return_index=True)
    members = {name: np.flatnonzero(p.groups == name) for name in nebulae}
    values = []
    for _ in range(N_RESAMPLES):
        rows: list[int] = []
        for label in range(N_CLASSES):
            mine = nebulae[p.y_true[first] == label]
            for name in rng.choice(mine, len(mine)):
                rows.extend(members[name])
        weight = [1 / len(members[p.groups[row]]) for row in rows]
        recalls = [
            recall_score(
                p.y_true[rows], answers[rows], average="macro", sample_weight=weight
            )
            for answers in p.y_pred
        ]
        values.append(np.mean(recalls))
    np.percentile(values, [2.5, 97.5])


def measure(options: Options, names: Collection[str]) -> list[Row]:
    """Measure the rows of these names."""
    steps, rows = {}, []
    if "validation" in names:
        samples, judged, folds = make_samples()
        classes = tuple(f"class {i}" for i in range(N_CLASSES))
        steps["loop of fits"] = lambda: ignore(loop_over_folds(samples, judged, folds))
        steps["fit_folds"] = lambda: ignore(fit_folds(samples, judged, classes, folds))
    if "intervals" in names:
        p = make_predictions()
        steps["loop of scores"] = lambda: resample_in_a_loop(p)
        steps["intervals"] = lambda: resample(p)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        times = take_turns(steps, options.rounds, "study")
    if "validation" in names:
        n_fits = N_FOLDS * N_FOLDS + 1
        rows.append(
            judge(
                f"cross-validation of {N_SAMPLES:,} × {N_FEATURES} features: "
                f"{N_FOLDS} folds, their calibration, the final fit",
                f"a loop of {n_fits} scikit-learn fits (LDA, lsqr)",
                lambda: times.ratio("loop of fits", "fit_folds"),
                5,
            )
        )
    if "intervals" in names:
        rows.append(
            judge(
                f"interval of a score: {N_RESAMPLES:,} resamples of the nebulae",
                "a loop of scikit-learn's `recall_score`",
                lambda: times.ratio("loop of scores", "intervals"),
                5,
            )
        )
    return rows


def ignore(_: object) -> None:
    """Take no figures from what a step returned."""
