"""The exported classifier: from the bytes of a picture to a result.

Loading needs neither TensorFlow nor pandas nor scikit-learn, so that `nebula classify`
answers in about half a second; `export` writes what is read here.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nebula_utils.config import MODEL, OTHER
from nebula_utils.counterfactuals.colour import Intervention, Predict
from nebula_utils.errors import ModelError
from nebula_utils.features import evidence
from nebula_utils.features.backbone import Backbone, load_lite
from nebula_utils.features.views import Preprocessing, View, apply_first, recolour
from nebula_utils.files import DAMAGED, compute_sha256, unseal
from nebula_utils.images import reading
from nebula_utils.images.scientific import Decoded
from nebula_utils.training.heads import FORMAT_VERSION, Head, load_head

BATCH = 6  # views in a forward pass: crops come in sixes, and a shape costs 30 MB
N_NEIGHBOURS = 4
PICTURES = ("neighbours.npz", "examples.npz")  # similar ones, and those to try
SAME_VIEW = 2e-3  # of 1, a difference that only rounding makes
SAME_PICTURE = 0.97  # similarity from which on two are one; others reach 0.965


class Neighbour(NamedTuple):
    """A training picture that the network finds similar: what it shows, and whose."""

    nebula: str
    label: str
    credit: str
    licence: str
    similarity: float  # cosine of the two centred embeddings, in [-1, 1]
    thumbnail: np.ndarray | None  # uint8 (96, 96, 3), where its licence allows it


class Certainty(NamedTuple):
    """When an answer counts as sure, and what that was worth where it was measured."""

    threshold: float  # least probability of a sure answer
    coverage: float  # share of the pictures that were answered so, in [0, 1]
    accuracy: float  # share of these that were answered rightly
    measured_on: str  # which pictures, e.g. "pictures by other photographers"


@dataclass(frozen=True)
class Result:
    """What the classifier says about one picture."""

    path: str  # the name that was given for it
    label: str  # the most probable class
    probabilities: dict[str, float]  # calibrated, over all classes; they sum to 1
    confident: bool  # whether that of `label` reaches `Certainty.threshold`
    nebula: float | None  # 1 - P(other); None where there is no class `other`
    grey_label: str  # the answer to the picture without its colour
    # Mean over the colour counterfactuals of P(label) there over P(label) here, at most
    # 1; 1 means that no change of colour makes the answer weaker.
    stability: float
    # Classes that can't be excluded (conformal prediction set), most probable first.
    candidates: tuple[str, ...] = ()
    # The probabilities after each colour intervention, of the same views.
    counterfactuals: dict[str, dict[str, float]] = field(default_factory=dict)
    is_grey: bool = False  # whether there is no colour that could have decided
    neighbours: tuple[Neighbour, ...] = ()  # the picture itself is none
    was_trained_on: bool = False  # whether it, or one nearly like it, was
    notes: tuple[str, ...] = ()  # how the file was decoded, e.g. "stretched"
    decoded: Decoded | None = None  # with the file's header and place on the sky
    picture: np.ndarray | None = None  # uint8 (h, w, 3), shorter side below 1024 px

    def as_dict(self) -> dict[str, Any]:
        """Return what ``nebula classify --json`` prints."""
        names = "path label probabilities confident candidates nebula grey_label"
        found = {name: getattr(self, name) for name in (*names.split(), "stability")}
        return found | {"candidates": list(self.candidates)}


@dataclass(frozen=True)
class Classifier:
    """A calibrated head, a backbone, and how a picture is put to them."""

    head: Head
    backbone: Backbone
    views: tuple[View, ...]  # test-time views, the same for every answer
    counterfactuals: tuple[str, ...]  # of colour, answered too; "grey" is among them
    set_threshold: float  # least probability of a class in the prediction set
    certainty: Certainty
    neighbours: dict[str, np.ndarray] = field(default_factory=dict)  # as exported
    examples: dict[str, np.ndarray] = field(default_factory=dict)  # pictures to try
    about: dict[str, Any] = field(default_factory=dict)  # model.json
    trim: bool = False  # whether a dark border is cut off (`reading.trim_border`)
    folder: Path | None = None  # where it was loaded from, and thumbnails are

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that can be answered."""
        return tuple(self.head.classes_.tolist())

    def classify(
        self, source: Path | bytes, name: str | None = None, nebula: str = ""
    ) -> Result:
        """Classify one picture.

        Parameters
        ----------
        source : Path or bytes
            A file, or its content.
        name : str, optional
            What the result calls it; default: the path. It is never opened.
        nebula : str
            What it shows, if that is known: no training picture of it is a neighbour.

        Raises
        ------
        ImageError
            If it can't be used as a picture.
        """
        if name is None:
            name = str(source) if isinstance(source, Path) else ""
        min_side = Preprocessing(self.views, trim=self.trim).min_side
        found = reading.decode(source, min_side)
        answer = self._answer(found.image, name, nebula)
        return replace(answer, notes=found.notes, decoded=found)

    def make_predictor(self, image: np.ndarray) -> Predict:
        """Get ready to answer a result's picture under many changes of its colours.

        Returns
        -------
        callable
            Changes (n functions of float32 pictures in [0, 1]) → probabilities
            (n, n_classes), of the same views as the headline's. A view that a change
            leaves as it is, as most leave grey ones, is embedded once.
        """
        views = tuple(dict.fromkeys(self.views))
        shapes = dict.fromkeys(view._replace(colour="as_is") for view in views)
        made = Preprocessing(tuple(shapes), trim=self.trim).make_views(image)
        plain = dict(zip(shapes, made, strict=True))

        def look(change: Intervention) -> list[np.ndarray]:
            changed = {shape: change(one) for shape, one in plain.items()}
            return [
                recolour(changed[v._replace(colour="as_is")], v.colour) for v in views
            ]

        first = look(np.array)
        known = self._embed(first)

        def predict(changes: Sequence[Intervention]) -> np.ndarray:
            X = np.repeat(known[None], len(changes), 0)
            new = []
            for i, change in enumerate(changes):
                for j, view in enumerate(look(change)):
                    if np.abs(view - first[j]).max() > SAME_VIEW:
                        new.append((i, j, view))
            if new:
                found = self._embed([view for _, _, view in new])
                X[[i for i, _, _ in new], [j for _, j, _ in new]] = found
            return self.head.predict_proba(X[:, [views.index(v) for v in self.views]])

        return predict

    def make_strip(self, image: np.ndarray, side: int = 160) -> dict[str, np.ndarray]:
        """Return a result's picture "as_is" and counterfactually, as uint8 RGB."""
        names = ("as_is", *self.counterfactuals)
        views = tuple(View(side, "whole", name) for name in names)
        made = Preprocessing(views).make_views(image)
        return dict(zip(names, map(reading.to_uint8, made), strict=True))

    def map_evidence(self, image: np.ndarray) -> np.ndarray:
        """Return what each place of a result's picture says for each class.

        Returns
        -------
        ndarray of shape (rows, columns, n_classes), float32
            The class's weights against the mean of all classes, of the network's last
            feature map, over the whole picture [1]_; a border that is cut off has 0.
            The weights are the gradient of the class's log probability. Negative:
            speaks against the class.

        Raises
        ------
        ModelError
            If the backbone gives no feature map.

        References
        ----------
        .. [1] Zhou et al. (2016), Learning deep features for discriminative
           localization, arXiv:1512.04150.
        """
        seen = reading.trim_border(image) if self.trim else image
        tiles = evidence.cut_tiles(seen, max(view.size for view in self.views))
        colours = list({view.colour: view for view in self.views}.values())
        batch = [
            recolour(tile, view.colour) for view in colours for tile in tiles.pictures
        ]
        X, maps = self._run(batch)
        if maps is None:
            raise ModelError("this classifier's network has no feature map")
        weights = self.head.weigh_classes(X.mean(0))
        found = maps @ (weights - weights.mean(1, keepdims=True))
        found = found.reshape(len(colours), len(tiles.pictures), *found.shape[1:])
        joined = evidence.join_tiles(found.mean(0), tiles)
        return evidence.pad_border(joined, seen.shape[0] / image.shape[0])

    def _answer(self, image: np.ndarray, name: str, nebula: str) -> Result:
        queries = [self.views]
        queries += [apply_first(name, self.views) for name in self.counterfactuals]
        unique = tuple(dict.fromkeys(view for views in queries for view in views))
        X = self._embed(Preprocessing(unique, trim=self.trim).make_views(image))
        asked = np.stack([X[[unique.index(v) for v in views]] for views in queries])
        y_proba = self.head.predict_proba(asked)
        proba, best = y_proba[0], int(y_proba[0].argmax())
        order = np.argsort(-proba, kind="stable")
        kept = [i for i in order if i == best or proba[i] >= self.set_threshold]
        answers = [self._name(row) for row in y_proba]
        grey = answers[1 + self.counterfactuals.index("grey")]
        neighbours, was_trained_on = self._find_neighbours(asked[0].mean(0), nebula)
        return Result(
            path=name,
            label=self.class_names[best],
            probabilities=answers[0],
            confident=bool(proba[best] >= self.certainty.threshold),
            nebula=_round(1 - answers[0][OTHER]) if OTHER in answers[0] else None,
            grey_label=max(grey, key=grey.__getitem__),
            stability=_round(np.minimum(1, y_proba[1:, best] / proba[best]).mean()),
            candidates=tuple(self.class_names[i] for i in kept),
            counterfactuals=dict(zip(self.counterfactuals, answers[1:], strict=True)),
            is_grey=bool(np.ptp(image, axis=2).mean() < 1),
            neighbours=neighbours,
            was_trained_on=was_trained_on,
            picture=image,
        )

    def _embed(self, batch: list[np.ndarray]) -> np.ndarray:
        """Embed views, in batches of one shape for each size of view."""
        X = np.empty((len(batch), self.backbone.n_features), np.float32)
        sizes = np.array([len(view) for view in batch])
        for size in dict.fromkeys(sizes):
            rows = np.flatnonzero(sizes == size)
            X[rows] = self._run([batch[i] for i in rows])[0]
        return X

    def _run(self, views: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
        """Embed views of one size, and return their feature maps if there are any."""
        found = []
        for first in range(0, len(views), BATCH):
            some = views[first : first + BATCH]
            given = np.zeros((BATCH, *some[0].shape), np.float32)
            given[: len(some)] = some
            X, maps = self.backbone.embed_with_map(given)
            found.append((X[: len(some)], None if maps is None else maps[: len(some)]))
        X, maps = zip(*found, strict=True)
        return np.concatenate(X), None if maps[0] is None else np.concatenate(maps)

    def _name(self, proba: np.ndarray) -> dict[str, float]:
        return {
            name: _round(p) for name, p in zip(self.class_names, proba, strict=True)
        }

    def _find_neighbours(
        self, x: np.ndarray, nebula: str
    ) -> tuple[tuple[Neighbour, ...], bool]:
        if not self.neighbours:
            return (), False
        stored = self.neighbours
        x = x - stored["mean"]
        similarity = stored["X"] @ (x / (np.linalg.norm(x) + 1e-9))
        order = np.argsort(-similarity, kind="stable")
        is_same = bool(similarity[order[0]] >= SAME_PICTURE)
        is_other = (similarity < SAME_PICTURE) & (stored["nebula"] != nebula)
        nearest = order[is_other[order]][:N_NEIGHBOURS]
        if (thumbnails := stored.get("thumbnails")) is None:
            assert self.folder is not None
            # Not kept: they are most of what a waiting page would hold in memory.
            file = self.folder / PICTURES[0]
            thumbnails = _load_arrays(file, ("thumbnails",))["thumbnails"]
        found = []
        for i in nearest:
            said = [str(stored[name][i]) for name in Neighbour._fields[:4]]
            shown = thumbnails[i].copy() if stored["may_show"][i] else None
            found.append(Neighbour._make([*said, _round(similarity[i]), shown]))
        return tuple(found), is_same


def load_classifier(folder: Path = MODEL, with_pictures: bool = True) -> Classifier:
    """Load what `export.export_classifier` writes, with or without pictures.

    Those are the similar training pictures and those to try.

    Raises
    ------
    ModelError
        If there is no classifier, it is damaged, or of another version.
    """
    folder = Path(folder)
    about = _read_about(folder)
    for name, expected in about["files"].items():
        if with_pictures or name not in PICTURES:
            _check_file(folder / name, expected)
    backbone, sure = about["backbone"], about["calibration"]["sure"]
    shown = ("X", "mean", "nebula", "label", "credit", "licence", "may_show")
    return Classifier(
        head=load_head(folder / "head.npz"),
        backbone=load_lite(
            folder / "backbone.tflite", backbone["sha256"], backbone["n_features"]
        ),
        views=tuple(View(*view) for view in about["preprocessing"]["views"]),
        counterfactuals=tuple(about["counterfactuals"]),
        set_threshold=about["calibration"]["threshold"],
        certainty=Certainty(*(sure[name] for name in Certainty._fields)),
        neighbours=_load_arrays(folder / PICTURES[0], shown) if with_pictures else {},
        examples=_load_arrays(folder / PICTURES[1]) if with_pictures else {},
        about=about,
        trim=about["preprocessing"]["trim"],
        folder=folder,
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


def _load_arrays(
    path: Path, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names or arrays}
    except FileNotFoundError:
        return {}
    except DAMAGED as error:
        raise ModelError(
            f"{path} is damaged ({error}): run `make reproduce` again"
        ) from error


def _round(value: float) -> float:
    return round(float(value), 6)
