"""Single trials that the notebooks show: fidelity, gradient descent, the export."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from nebula_utils.bias.analysis import Answers
from nebula_utils.config import IMAGE_SIZE
from nebula_utils.counterfactuals.colour import REPORTED
from nebula_utils.features.backbone import Backbone, load_backbone
from nebula_utils.features.quiet import import_tensorflow, silence_stderr
from nebula_utils.features.views import Preprocessing, View
from nebula_utils.features.weights import fetch_frozen_graph
from nebula_utils.images import reading
from nebula_utils.training import fitting, study
from nebula_utils.training.calibration import compute_threshold, measure_certainty
from nebula_utils.training.export import export_classifier
from nebula_utils.training.heads import load_head
from nebula_utils.training.study import INSIDE

POOL = "MobilenetV1/Logits/AvgPool_1a/AvgPool:0"


class KerasTrial(NamedTuple):
    """Gradient descent against logistic regression on one split by nebula.

    Attributes
    ----------
    history : dict of str to list of float
        Losses and accuracies, one an epoch.
    logistic_loss : float
        Cross-entropy of the logistic head on the same test pictures, nats.
    agreement : float
        Share of the test pictures that both heads call the same.
    accuracy, logistic_accuracy : float
        Share of right answers of either.
    n_test : int
        Test pictures.
    """

    history: dict[str, list[float]]
    logistic_loss: float
    agreement: float
    accuracy: float
    logistic_accuracy: float
    n_test: int


def make_batch(manifest: pd.DataFrame, size: int = IMAGE_SIZE) -> np.ndarray:
    """Return what the network is shown of some pictures.

    Parameters
    ----------
    manifest : DataFrame
        One row a picture.
    size : int
        Side of the network's input, px.

    Returns
    -------
    ndarray of shape (n_images, size, size, 3), float32
        RGB in [0, 1].
    """
    made = []
    for row in manifest.to_dict("records"):
        recipe = Preprocessing((View(size),), INSIDE.get(row["source"], 1.0))
        image = reading.read_image(Path(row["path"]), recipe.min_side)
        made += recipe.make_views(image)
    return np.stack(made)


def compute_fidelity(manifest: pd.DataFrame) -> float:
    """Return how far the default backbone is from the original tool's network.

    Parameters
    ----------
    manifest : DataFrame
        Pictures to compare on.

    Returns
    -------
    float
        Largest difference of any feature of any picture at 224 px, between the TF-Hub
        module and the frozen graph that its weights are from.
    """
    tf = import_tensorflow()
    batch = make_batch(manifest)
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(fetch_frozen_graph().read_bytes())
    with tf.Graph().as_default(), silence_stderr():
        tf.import_graph_def(graph, name="")
        with tf.compat.v1.Session() as session:
            original = [
                session.run(POOL, {"input:0": (x[None] * 255 - 127.5) / 127.5})
                for x in batch
            ]
    pooled = np.concatenate(original)[:, 0, 0]
    return float(np.abs(load_backbone().embed(batch) - pooled).max())


def fit_keras_fold(
    answers: Answers,
    n_splits: int,
    random_state: int,
    steps: int = fitting.ORIGINAL_STEPS,
    log_dir: Path | None = None,
) -> KerasTrial:
    """Train a Keras dense layer on the first fold, and compare it with logistic.

    Parameters
    ----------
    answers : Answers
        Of the plain strategy.
    n_splits, random_state : int
        Of the cross-validation.
    steps : int
        Of gradient descent.
    log_dir : Path, optional
        Where TensorBoard finds the curves.

    Returns
    -------
    KerasTrial
    """
    dataset, embeddings = answers.dataset, answers.embeddings
    _, _, rows, test = study.make_splits(dataset, n_splits, 1, random_state)[0]
    X, y = embeddings.test["as_is"][test], dataset.y[test]
    samples = embeddings.train.without(np.unique(dataset.groups[test]))
    names = dataset.class_names
    keras, history = fitting.fit_keras(
        samples.X, samples.y, names, (X, y), steps, log_dir=log_dir
    )
    logistic = study.fit_strategy(dataset, embeddings, answers.strategy, rows).head
    y_proba, y_logistic = keras.predict_proba(X), logistic.predict_proba(X)
    one, two = y_proba.argmax(1), y_logistic.argmax(1)
    return KerasTrial(
        history,
        float(-np.log(y_logistic[np.arange(len(y)), y]).mean()),
        float((one == two).mean()),
        float((one == y).mean()),
        float((two == y).mean()),
        len(y),
    )


def export_study(
    folder: Path,
    answers: Answers,
    backbone: Backbone,
    heads: Mapping[str, Any],
    about: Mapping[str, Any],
    coverage: Mapping[str, Any],
) -> float:
    """Fit a strategy on all pictures and export it.

    Parameters
    ----------
    folder : Path
        Usually ``reports/model``.
    answers : Answers
        Of the strategy; its out-of-fold answers set the conformal threshold.
    backbone : Backbone
        The feature extractor.
    heads : mapping
        The ``heads`` of metrics.json.
    about : mapping
        From `report.make_study`.
    coverage : mapping
        From `calibration.score_coverage`.

    Returns
    -------
    float
        Largest difference between a probability of the fitted head and of the same
        head read back.
    """
    dataset, X = answers.dataset, answers.embeddings.test["as_is"]
    fit = answers.fit
    threshold = compute_threshold(answers.predictions)
    sure = measure_certainty(answers.predictions, "pictures of other nebulae")
    export_classifier(
        folder,
        fit.head,
        answers.strategy.adapt(backbone),
        answers.strategy.test,
        REPORTED,
        threshold,
        dataset,
        X,
        {
            "metrics": heads["robust"],
            "data": about["data"],
            "protocol": about["protocol"],
            "calibration": {
                "temperature": round(fit.temperature, 6),
                "sure": sure,
                **coverage,
            },
        },
        answers.strategy.trim,
    )
    loaded = load_head(folder / "head.npz")
    return float(np.abs(loaded.predict_proba(X) - fit.head.predict_proba(X)).max())
