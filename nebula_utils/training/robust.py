"""What the robust head is fitted on: many framings, and dust with and without.

Kinds of samples, and what each weighs in its class beside the real pictures' 1.
Chosen on k-fold by nebula of the default pictures and on the photos of the original
tool; notebook 05 shows what each part is worth.
"""

from collections.abc import Sequence

import numpy as np

from nebula_utils.config import IMAGE_SIZE, OTHER, RANDOM_STATE
from nebula_utils.dataset.manifest import Dataset
from nebula_utils.features.augmentation import (
    COLOURS,
    DustyCrops,
    RandomCrops,
    SimulatedScenes,
)
from nebula_utils.features.backbone import Backbone
from nebula_utils.features.extraction import (
    Views,
    extract_features,
    extract_simulated,
)
from nebula_utils.training.fitting import PICTURE, Samples

# Random crops a picture: few where pictures are many, or nearly fill their frame. Twice
# as many, and twice as many scenes, took twice the time and gave the same answers.
CROPS = {"planetary": 8, OTHER: 3}
CROPS_ELSE = 12
# Dusty crops a picture: in front of an emission nebula, and of a cluster's star field.
DUSTY = {"emission": 4, "cluster": 1}
SCENES = {"varied": 125, "rich": 125, "galactic": 175}

SHARES = {
    PICTURE: 1.0,
    "everyday": 0.15,
    "dust before emission": 0.8,
    "dust before stars": 0.2,
    "without dust": 0.3,
    "varied dark": 0.3,
    "rich dark": 0.8,
    "galactic dark": 0.8,
    "varied field": 0.05,
    "rich field": 0.05,
    "galactic field": 0.05,
}


def make_robust_samples(
    dataset: Dataset, backbone: Backbone, size: int = IMAGE_SIZE, dust: bool = True
) -> Samples:
    """Embed everything that the robust head may be fitted on.

    Parameters
    ----------
    dataset : Dataset
        Pictures; nothing else is read.
    backbone : Backbone
        Loaded feature extractor.
    size : int
        Side of the network's input, px.
    dust : bool
        Whether dark nebulae are simulated; only where ``dark`` is studied.

    Returns
    -------
    Samples
        A dusty crop belongs to the nebula of its picture, so that a fold which tests
        the picture is not trained on it; a simulated scene to none.
    """
    parts = [_crop_pictures(dataset, backbone, size)]
    if dust and "dark" in dataset.class_names:
        parts += _add_dust(dataset, backbone, size)
        parts += _simulate(dataset, backbone, size)
    return _join(parts)._replace(shares=SHARES)


def _crop_pictures(dataset: Dataset, backbone: Backbone, size: int) -> Samples:
    rows = dataset.manifest
    n_crops = rows["label"].map(CROPS).fillna(CROPS_ELSE).to_numpy(int)
    kinds = np.where(rows["other_kind"] == "everyday", "everyday", PICTURE)
    parts = []
    for n in np.unique(n_crops):
        here = np.flatnonzero(n_crops == n)
        X = _embed(dataset, here, backbone, RandomCrops(int(n), size))
        y, groups = dataset.y[here], dataset.groups[here]
        part = rows["other_kind"].to_numpy(str)[here]
        parts.append(_repeat(X, y, groups, kinds[here], part))
    return _join(parts)


def _add_dust(dataset: Dataset, backbone: Backbone, size: int) -> list[Samples]:
    """Put dust before emission nebulae and clusters; also give them without."""
    rows, dark = dataset.manifest, dataset.class_names.index("dark")
    before = {
        "dust before emission": (rows["label"] == "emission", DUSTY["emission"]),
        "dust before stars": (rows["other_kind"] == "cluster", DUSTY["cluster"]),
    }
    parts = []
    for kind, (chosen, n_crops) in before.items():
        here = np.flatnonzero(chosen)
        if not len(here):
            continue
        X = _embed(dataset, here, backbone, DustyCrops(n_crops, size))
        # Each crop gives its views with the nebula, then as many without.
        pairs = X.reshape(len(here), n_crops, 2, -1, X.shape[2])
        dusty, clear = (
            pairs[:, :, i].reshape(len(here), -1, X.shape[2]) for i in (0, 1)
        )
        groups = dataset.groups[here]
        y = np.full(len(here), dark)
        parts.append(_repeat(dusty, y, groups, np.full(len(here), kind)))
        names = np.full(len(here), "without dust")
        part = rows["other_kind"].to_numpy(str)[here]
        parts.append(_repeat(clear, dataset.y[here], groups, names, part))
    return parts


def _simulate(dataset: Dataset, backbone: Backbone, size: int) -> list[Samples]:
    """Simulate star fields with a dark nebula; without one they are `other`."""
    dark = dataset.class_names.index("dark")
    parts = []
    for sky, number in SCENES.items():
        seeds = range(RANDOM_STATE, RANDOM_STATE + number)
        X = extract_simulated(seeds, backbone, SimulatedScenes(sky, size))
        half = X.shape[1] // 2
        groups = np.array([f"simulated {sky} {seed}" for seed in seeds])
        label = np.full(number, dark)
        kind = np.full(number, f"{sky} dark")
        parts.append(_repeat(X[:, :half], label, groups, kind))
        if OTHER in dataset.class_names:
            label = np.full(number, dataset.class_names.index(OTHER))
            kind = np.full(number, f"{sky} field")
            part = np.full(number, "star_field")
            parts.append(_repeat(X[:, half:], label, groups, kind, part))
    return parts


def _embed(
    dataset: Dataset, rows: np.ndarray, backbone: Backbone, maker: Views
) -> np.ndarray:
    return extract_features(
        list(dataset.manifest["path"].iloc[rows]), backbone, maker
    ).X


def _repeat(
    X: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    kind: np.ndarray,
    part: np.ndarray | None = None,
) -> Samples:
    copies = X.shape[1]
    part = np.full(len(y), "") if part is None else part
    return Samples(
        X.reshape(-1, X.shape[2]),
        np.repeat(y, copies),
        np.repeat(groups, copies),
        np.repeat(kind, copies),
        part=np.repeat(part, copies),
    )


def _join(parts: Sequence[Samples]) -> Samples:
    return Samples(
        np.concatenate([part.X for part in parts]),
        np.concatenate([part.y for part in parts]),
        np.concatenate([part.groups for part in parts]),
        np.concatenate([part.kind for part in parts if part.kind is not None]),
        part=np.concatenate([part.part for part in parts if part.part is not None]),
        copies=len(COLOURS),
    )
