"""Write the classifier that `classify` and the app load: arrays, JSON and a text."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nebula_utils.config import DATA
from nebula_utils.counterfactuals.colour import REPORTED
from nebula_utils.dataset.manifest import Dataset
from nebula_utils.dataset.photos import is_free
from nebula_utils.errors import BackboneError
from nebula_utils.features.views import make_batch
from nebula_utils.files import compute_sha256, seal, write_atomic
from nebula_utils.images import reading
from nebula_utils.training import calibration
from nebula_utils.training.heads import FORMAT_VERSION, Head, load_head
from nebula_utils.training.study import Study

THUMBNAIL_SIDE = 96  # px
EXAMPLE_SIDE = 384  # px
# What model.json has the checksums of; examples.npz is not always there.
FILES = "backbone.tflite head.npz neighbours.npz examples.npz labels.txt".split()
SHOWN_COLUMNS = ("nebula", "label", "credit", "licence")
SURE_KEYS = ("threshold", "coverage", "accuracy", "measured_on")


def export_classifier(
    folder: Path, study: Study, scored: Mapping[str, Any], about: Mapping[str, Any]
) -> float:
    """Write everything that `classifier.load_classifier` reads.

    Parameters
    ----------
    folder : Path
        Made if needed. Each file in it is replaced whole, ``model.json`` last.
    study : Study
        Its head on all pictures is exported; its out-of-fold answers set the
        threshold of the prediction sets.
    scored : mapping
        The study's scores, from `Study.score`.
    about : mapping
        What else ``model.json`` shall say, e.g. ``data`` and ``protocol``.

    Returns
    -------
    float
        Largest difference between a probability of the head and of it read back.

    Raises
    ------
    BackboneError
        If the backbone can't be converted for LiteRT.
    """
    backbone, head, X = study.backbone, study.head, study.embed()
    if backbone.file is None:
        raise BackboneError(
            f"{backbone.name} can't be converted for LiteRT: no classifier is exported"
        )
    with write_atomic(folder / "backbone.tflite") as temporary:
        shutil.copyfile(backbone.file, temporary)
    head.save(folder / "head.npz")
    _write_neighbours(folder / "neighbours.npz", study.dataset, X.mean(1))
    _write_examples(folder / "examples.npz", head, study.dataset, X)
    names = study.dataset.class_names
    _write_text(folder / "labels.txt", "\n".join(names) + "\n")
    files = [name for name in FILES if (folder / name).is_file()]
    content = {
        "format_version": FORMAT_VERSION,
        "classes": list(names),
        "recipe": study.recipe.name,
        "backbone": {
            "name": backbone.name,
            "sha256": backbone.sha256,
            "n_features": backbone.n_features,
        },
        "preprocessing": {"views": [*map(list, study.recipe.views)], "trim": True},
        "counterfactuals": list(REPORTED),
        "files": {name: compute_sha256(folder / name) for name in files},
        "data_version": {f.name: compute_sha256(f) for f in sorted(DATA.glob("*.csv"))},
        **about,
        "metrics": scored,
        "calibration": _describe_calibration(study, scored),
    }
    text = json.dumps(seal(content), indent=1, sort_keys=True, ensure_ascii=False)
    _write_text(folder / "model.json", text + "\n")
    again = load_head(folder / "head.npz")
    return float(np.abs(again.predict_proba(X) - head.predict_proba(X)).max())


def _describe_calibration(study: Study, scored: Mapping[str, Any]) -> dict[str, Any]:
    """Say how sure the answers are, as measured outside where that was measured."""
    p = study.predictions
    threshold = calibration.compute_threshold(p)
    measured = calibration.read_certainty()
    if measured["sets"]:
        sure = {key: measured[key] for key in SURE_KEYS}
    else:
        values = scored["sure"]["share"]["value"], scored["sure"]["accuracy"]["value"]
        where = "pictures of other nebulae of the same sources"
        sure = dict(zip(SURE_KEYS, (calibration.SURE, *values, where), strict=True))
    return {
        "temperature": round(study.temperature, 6),
        "threshold": threshold,
        "sure": sure,
        "measured": measured["sets"],
        **calibration.score_coverage(p, threshold),
    }


def _write_neighbours(path: Path, dataset: Dataset, X: np.ndarray) -> None:
    rows = dataset.manifest
    centred = X - X.mean(0)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    may_show = np.array([is_free(licence) for licence in rows["licence"]])
    thumbnails = np.zeros((len(rows), THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), np.uint8)
    for i in np.flatnonzero(may_show):
        square = make_batch([rows["path"].iloc[i]], THUMBNAIL_SIDE)[0]
        thumbnails[i] = reading.to_uint8(square)
    with write_atomic(path) as temporary:
        np.savez(
            temporary,
            X=(centred / norm).astype(np.float32),
            mean=X.mean(0),
            nebula=rows["nebula"].to_numpy(str),
            label=rows["label"].to_numpy(str),
            credit=rows["credit"].to_numpy(str),
            licence=rows["licence"].to_numpy(str),
            may_show=may_show,
            thumbnails=thumbnails,
        )


def _write_examples(path: Path, head: Head, dataset: Dataset, X: np.ndarray) -> None:
    """Keep pictures to try: the surest of each class, and those held out."""
    rows = dataset.manifest
    truth = head.predict_proba(X)[np.arange(len(X)), dataset.y]
    clear = np.array([is_free(licence) for licence in rows["licence"]])
    clear &= ~dataset.is_ambiguous
    order = np.argsort(-truth, kind="stable")
    first = {dataset.y[i]: i for i in order[::-1] if clear[i]}
    trained = rows.iloc[[first[label] for label in sorted(first)]]
    held_out = dataset.held_out
    held_out = held_out[held_out["licence"].map(is_free).astype(bool)]
    chosen = pd.concat([held_out, trained])
    if chosen.empty:
        path.unlink(missing_ok=True)
        return
    pictures = reading.to_uint8(make_batch(chosen["path"], EXAMPLE_SIDE))
    with write_atomic(path) as temporary:
        np.savez_compressed(
            temporary,
            pictures=pictures,
            trained=np.arange(len(chosen)) >= len(held_out),
            **{name: chosen[name].to_numpy(str) for name in SHOWN_COLUMNS},
        )


def _write_text(path: Path, text: str) -> None:
    with write_atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
