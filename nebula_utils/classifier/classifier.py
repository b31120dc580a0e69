"""The exported classifier: from the bytes of a picture to a result, and nothing else.

Loading needs neither TensorFlow nor pandas nor scikit-learn, so that `nebula classify`
answers in about a second; `export` writes what is read here.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nebula_utils.config import MODEL, OTHER
from nebula_utils.errors import ModelError
from nebula_utils.features.backbone import Backbone, load_lite
from nebula_utils.features.views import Preprocessing, View, apply_first, average_views
from nebula_utils.files import DAMAGED, compute_sha256, unseal
from nebula_utils.images import reading
from nebula_utils.training.calibration import is_confident
from nebula_utils.training.heads import Head, load_head

FORMAT_VERSION = 3  # with a checksum of each file
N_NEIGHBOURS = 4


class Neighbour(NamedTuple):
    """A training picture that the network finds similar.

    Attributes
    ----------
    nebula, label, credit, licence : str
        What it shows, and whose it is.
    similarity : float
        Cosine of the two centred embeddings, in [-1, 1].
    thumbnail : ndarray of shape (96, 96, 3), uint8, or None
        The picture, where its licence lets us show it.
    """

    nebula: str
    label: str
    credit: str
    licence: str
    similarity: float
    thumbnail: np.ndarray | None


@dataclass(frozen=True)
class Result:
    """What the classifier says about one picture.

    Attributes
    ----------
    path : str
        Name that was given for the picture.
    label : str
        The most probable class.
    probabilities : dict of str to float
        Calibrated, over every class of the model; they sum to 1.
    confident : bool
        False where the classifier should rather say "not sure": the conformal
        prediction set is not one class, or that is less likely than not.
    nebula : float
        1 - P(other), in [0, 1].
    grey_label : str
        The answer to the same picture without its colour.
    stability : float
        Mean over the colour counterfactuals of P(label) there over P(label) here, at
        most 1; 1 means that no change of colour makes the answer weaker.
    candidates : tuple of str
        The conformal prediction set, most probable first.
    counterfactuals : dict of str to dict of str to float
        The probabilities after each colour intervention.
    activation : ndarray of shape (rows, columns), float32, or None
        Class activation map of the label, in [0, 1], over the first view (the largest
        centred square).
    neighbours : tuple of Neighbour
        The most similar training pictures.
    picture : ndarray of shape (h, w, 3), uint8
        The picture; its shorter side is below 1024 px, decoded smaller if need be.
    """

    path: str
    label: str
    probabilities: dict[str, float]
    confident: bool
    nebula: float
    grey_label: str
    stability: float
    candidates: tuple[str, ...] = ()
    counterfactuals: dict[str, dict[str, float]] = field(default_factory=dict)
    activation: np.ndarray | None = None
    neighbours: tuple[Neighbour, ...] = ()
    picture: np.ndarray | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what ``nebula classify --json`` prints."""
        return {
            "path": self.path,
            "label": self.label,
            "probabilities": self.probabilities,
            "confident": self.confident,
            "nebula": self.nebula,
            "grey_label": self.grey_label,
            "stability": self.stability,
        }


@dataclass(frozen=True)
class Classifier:
    """A head, a backbone, and how a picture is put to them.

    Attributes
    ----------
    head : Head
        Calibrated.
    backbone : Backbone
        Feature extractor.
    views : tuple of View
        Views whose embeddings are averaged.
    counterfactuals : tuple of str
        Colour interventions that are answered too; "grey" is among them.
    threshold : float
        A class is in the prediction set if its probability reaches this.
    neighbours : dict of str to ndarray
        Training embeddings and what they show, as `export` writes them.
    examples : dict of str to ndarray
        Pictures to try, with their credit, as `export` writes them.
    about : dict
        ``model.json``.
    trim : bool
        Whether a dark border is cut off first (`reading.trim_border`).
    """

    head: Head
    backbone: Backbone
    views: tuple[View, ...]
    counterfactuals: tuple[str, ...]
    threshold: float
    neighbours: dict[str, np.ndarray] = field(default_factory=dict)
    examples: dict[str, np.ndarray] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    trim: bool = False

    @property
    def map_start(self) -> int:
        """Where in the embedding the mean of the feature map begins."""
        return int(self.about.get("backbone", {}).get("map_start", 0))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that can be answered."""
        return self.head.class_names

    def classify(self, source: Path | bytes, name: str | None = None) -> Result:
        """Classify one picture.

        Parameters
        ----------
        source : Path or bytes
            A file, or its content.
        name : str, optional
            What the result calls it; default: the path. It is never opened.

        Returns
        -------
        Result

        Raises
        ------
        ImageError
            If it can't be used as a picture.
        """
        questions = self._list_questions()
        unique = tuple(dict.fromkeys(view for views in questions for view in views))
        recipe = Preprocessing(unique, trim=self.trim)
        image = recipe.read(source)
        X, maps = self._embed(recipe.make_views(image))
        asked = np.stack([average_views(X, unique, views) for views in questions])
        y_proba = self.head.predict_proba(asked.astype(np.float64))
        answers = [self._name(row) for row in y_proba]
        proba = y_proba[0]
        best = int(proba.argmax())
        order = [int(i) for i in np.argsort(-proba) if proba[i] >= self.threshold]
        strip = dict(zip(self.counterfactuals, answers[2:], strict=True))
        grey = answers[2 + self.counterfactuals.index("grey")]
        # The strip's answers are compared with the strip's answer as it is; grey is
        # asked in full, so it is compared with the full one.
        base = [0 if name == "grey" else 1 for name in self.counterfactuals]
        held = np.minimum(1, y_proba[2:, best] / y_proba[base, best])
        return Result(
            path=str(source)
            if name is None and isinstance(source, Path)
            else name or "",
            label=self.class_names[best],
            probabilities=answers[0],
            confident=bool(is_confident(proba, self.threshold)),
            nebula=_round(1 - answers[0].get(OTHER, 0.0)),
            grey_label=max(grey, key=grey.__getitem__),
            stability=_round(held.mean()),
            candidates=tuple(self.class_names[i] for i in order),
            counterfactuals=strip,
            activation=self._compute_activation(maps, best, image),
            neighbours=self._find_neighbours(asked[0]),
            picture=image,
        )

    def make_strip(self, image: np.ndarray, side: int = 160) -> dict[str, np.ndarray]:
        """Return the picture under each counterfactual, as small squares.

        Parameters
        ----------
        image : ndarray of shape (h, w, 3), uint8
            A result's ``picture``.
        side : int
            Side of the squares, px.

        Returns
        -------
        dict of str to ndarray of shape (side, side, 3), uint8
        """
        views = tuple(View(side, "whole", name) for name in self.counterfactuals)
        made = Preprocessing(views).make_views(image)
        return {
            name: reading.to_uint8(view)
            for name, view in zip(self.counterfactuals, made, strict=True)
        }

    def _list_questions(self) -> list[tuple[View, ...]]:
        """Give the views of each question: the picture, the strip's frame, the strip.

        Grey is asked in full; the other counterfactuals of the whole picture only,
        without its crops, which is a third of the work.
        """
        frame = tuple(v for v in self.views if v.crop == "whole") or self.views
        changed = [
            apply_first(name, self.views if name == "grey" else frame)
            for name in self.counterfactuals
        ]
        return [self.views, frame, *changed]

    def _embed(self, batch: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
        """Embed views; return also the first one's feature map, if there is one."""
        X = np.empty((len(batch), self.backbone.n_features), np.float32)
        first = None
        sizes = np.array([len(view) for view in batch])
        for size in dict.fromkeys(sizes):
            rows = np.flatnonzero(sizes == size)
            found, maps = self.backbone.embed_with_map(
                np.stack([batch[i] for i in rows])
            )
            X[rows] = found
            if rows[0] == 0 and maps is not None:
                first = maps[0]
        return X, first

    def _compute_activation(
        self, maps: np.ndarray | None, label: int, image: np.ndarray
    ) -> np.ndarray | None:
        if maps is None:
            return None
        found = compute_activation_map(maps, self.head, label, self.map_start)
        if not self.trim or reading.trim_border(image).shape == image.shape:
            return found
        # The network saw the inside only: lay its map into the whole square.
        fine = np.kron(found, np.ones((4, 4), np.float32))
        missing = round(len(fine) / reading.INSIDE) - len(fine)
        return np.pad(fine, (missing // 2, missing - missing // 2))

    def _name(self, proba: np.ndarray) -> dict[str, float]:
        return {
            name: _round(p) for name, p in zip(self.class_names, proba, strict=True)
        }

    def _find_neighbours(self, x: np.ndarray) -> tuple[Neighbour, ...]:
        if not self.neighbours:
            return ()
        stored = self.neighbours
        x = x - stored["mean"]
        similarity = stored["X"] @ (x / (np.linalg.norm(x) + 1e-9))
        nearest = np.argsort(-similarity, kind="stable")[:N_NEIGHBOURS]
        return tuple(
            Neighbour(
                str(stored["nebula"][i]),
                str(stored["label"][i]),
                str(stored["credit"][i]),
                str(stored["licence"][i]),
                _round(similarity[i]),
                stored["thumbnails"][i] if stored["may_show"][i] else None,
            )
            for i in nearest
        )


def compute_activation_map(
    feature_map: np.ndarray, head: Head, label: int, start: int = 0
) -> np.ndarray:
    """Return where in the picture the evidence for a class lies.

    Parameters
    ----------
    feature_map : ndarray of shape (rows, columns, n_features), float32
        Whose mean over rows and columns is the embedding.
    head : Head
        Linear head on that embedding.
    label : int
        Index of the class.
    start : int
        Where in the embedding the mean of this map begins; what else the head sees
        has no place in the picture and does not count.

    Returns
    -------
    ndarray of shape (rows, columns), float32
        In [0, 1]: the class's weight against the mean of all classes, of each cell;
        0 where the cell speaks against the class [1]_.

    References
    ----------
    .. [1] Zhou et al. (2016), Learning deep features for discriminative localization,
       arXiv:1512.04150.
    """
    coef = head.class_coef[start : start + feature_map.shape[2]]
    contrast = coef[:, label] - coef.mean(1)
    evidence = np.maximum(feature_map @ contrast, 0)
    return (evidence / max(float(evidence.max()), 1e-9)).astype(np.float32)


def load_classifier(folder: Path = MODEL) -> Classifier:
    """Load an exported classifier.

    Parameters
    ----------
    folder : Path
        As `export.export_classifier` writes it.

    Returns
    -------
    Classifier

    Raises
    ------
    ModelError
        If there is none, it is damaged, or of another version.
    """
    folder = Path(folder)
    about = _read_about(folder)
    for name, expected in about["files"].items():
        _check_file(folder / name, expected)
    backbone = about["backbone"]
    return Classifier(
        head=load_head(folder / "head.npz"),
        backbone=load_lite(
            folder / "backbone.tflite", backbone["sha256"], backbone["n_features"]
        ),
        views=tuple(View(*view) for view in about["preprocessing"]["views"]),
        counterfactuals=tuple(about["counterfactuals"]),
        threshold=about["calibration"]["threshold"],
        neighbours=_load_arrays(folder / "neighbours.npz"),
        examples=_load_arrays(folder / "examples.npz"),
        about=about,
        trim=about["preprocessing"]["trim"],
    )


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.get("format_version", "unknown")
        if version != FORMAT_VERSION:
            raise ModelError(
                f"the classifier in {folder} is of format {version}, this program "
                f"reads {FORMAT_VERSION}: run `make reproduce` again"
            )
        return unseal(content)
    except FileNotFoundError as error:
        raise ModelError(
            f"there is no classifier in {folder}: run `make reproduce` first (about "
            "ten minutes), or name another folder with --model"
        ) from error
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{path} is damaged ({error}): run `make reproduce` again"
        ) from error


def _check_file(path: Path, expected: str) -> None:
    try:
        if compute_sha256(path) == expected:
            return
        reason = "its checksum is wrong"
    except OSError as error:
        reason = str(error.strerror)
    raise ModelError(f"{path} is damaged ({reason}): run `make reproduce` again")


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        return {}
    except DAMAGED as error:
        raise ModelError(
            f"{path} is damaged ({error}): run `make reproduce` again"
        ) from error


def _round(value: float) -> float:
    return round(float(value), 6)
