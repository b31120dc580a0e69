"""What a head is fitted on: pictures in several colours, framings, and behind dust.

A recipe says which samples there are; each is embedded once and kept. What it weighs
goes by class, sample type and nebula, and a fold is a choice of samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from nebula_utils.config import OTHER
from nebula_utils.dataset.manifest import Dataset
from nebula_utils.errors import SourceError
from nebula_utils.features.augmentation import DustyCrops, RandomCrops, ZoomedOut
from nebula_utils.features.backbone import Backbone
from nebula_utils.features.extraction import Views, extract_features
from nebula_utils.features.views import CROPS, Preprocessing, View
from nebula_utils.training.heads import Head, LinearHead, TwoStepHead
from nebula_utils.training.scores import weigh_nebulae

PICTURE = "picture"  # the sample type of a class's own pictures and of crops of them
# What each sample type weighs in its class beside the pictures' 1, where it is asked
# which type a nebula is.
SHARES_TYPES = {"framed": 0.5, "dusty": 0.5}
WHOLE = (View(),)
# Asked of the whole picture and of five crops, each in its colours and in grey.
TWELVE = tuple(
    View(crop=crop, colour=colour)
    for crop in ("whole", *CROPS)
    for colour in ("as_is", "grey")
)


@dataclass(frozen=True)
class Recipe:
    """How a head is fitted, and how it is asked.

    Attributes
    ----------
    name : str
        As in the tables.
    views : tuple of View
        Test-time views of a picture; the first is the whole picture.
    two_step : bool
        Whether one layer answers if it is a nebula and another which
        (`heads.TwoStepHead`), or one layer answers both.
    balanced : bool
        Whether every class weighs the same, and every nebula in a class.
    colours : tuple of str
        Colours in which the whole picture is fitted: ``"as_is"`` and ``"grey"``.
    crops, framed, dusty : int
        Random crops of each nebula, zoomed-out copies of each picture, and crops of
        each emission nebula behind simulated dust; each of nebulae in three colours.
    C : float
        Inverse strength of the penalty; see `heads.LinearHead`.
    """

    name: str
    views: tuple[View, ...] = WHOLE
    two_step: bool = False
    balanced: bool = True
    colours: tuple[str, ...] = ("as_is",)
    crops: int = 0
    framed: int = 0
    dusty: int = 0
    C: float = 0.01

    @property
    def size(self) -> int:
        """Side of the network's input, px."""
        return self.views[0].size

    def at_size(self, size: int) -> "Recipe":
        """Return the recipe for another side of the network's input, px."""
        return replace(self, views=tuple(v._replace(size=size) for v in self.views))


class Samples(NamedTuple):
    """Embeddings with what they show.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features), float32
        Embeddings.
    y : ndarray of shape (n_samples,), int
        Classes.
    groups : ndarray of shape (n_samples,), str
        Nebulae; a picture with simulated dust belongs to the nebula behind the dust.
    kind : ndarray of shape (n_samples,), str
        Sample types.
    shares : dict of str to float
        What each sample type weighs in its class, where it is not 1.
    """

    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    kind: np.ndarray
    shares: dict[str, float]

    def without(self, groups: np.ndarray) -> "Samples":
        """Return the samples whose nebula is not among ``groups``."""
        kept = ~np.isin(self.groups, groups)
        X, y, nebulae, kind = (array[kept] for array in self[:4])
        return Samples(X, y, nebulae, kind, self.shares)


class Training(NamedTuple):
    """The samples of each step, and of how many pictures they are."""

    types: Samples  # for the step that tells types; of a head of one step, all
    nebula: Samples | None  # for the step that tells nebulae from the rest
    n_pictures: int  # what the weights of each step sum to


def embed(
    dataset: Dataset,
    backbone: Backbone,
    views: Sequence[View] = WHOLE,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Embed views of all pictures of a dataset, or of a part; dark borders cut off.

    Returns
    -------
    ndarray of shape (n_masked, n_views, n_features), float32

    Raises
    ------
    SourceError
        If a picture that was sound before can't be read now.
    """
    return _embed(dataset, backbone, Preprocessing(tuple(views), trim=True), mask)


def make_training(dataset: Dataset, backbone: Backbone, recipe: Recipe) -> Training:
    """Embed everything that a recipe's head may be fitted on."""
    label, size = dataset.manifest["label"].to_numpy(), recipe.size
    is_type, is_emission = label != OTHER, label == "emission"
    plain = [View(size, colour=name) for name in recipe.colours]
    whole = embed(dataset, backbone, plain)
    types = both = [_label(dataset, is_type, whole[is_type])]
    rest = [_label(dataset, ~is_type, whole[~is_type])]
    if recipe.crops:
        X = _embed(dataset, backbone, RandomCrops(recipe.crops, size), is_type)
        types = [*types, _label(dataset, is_type, X)]
    if recipe.dusty and "dark" in dataset.class_names and is_emission.any():
        X = _embed(dataset, backbone, DustyCrops(recipe.dusty, size), is_emission)
        dusty = _label(dataset, is_emission, X, "dusty")
        dark = np.full(len(dusty.y), dataset.class_names.index("dark"))
        types = [*types, dusty._replace(y=dark)]
    if recipe.framed:
        # Nebulae only: set smaller, a galaxy is a star field, and so is many a nebula;
        # asked if it is one, the head then takes more of `other` for nebulae.
        X = _embed(dataset, backbone, ZoomedOut(recipe.framed, size), is_type)
        types = [*types, _label(dataset, is_type, X, "framed")]
    n = len(dataset.y)
    if not (recipe.two_step and OTHER in dataset.class_names):
        return Training(_join(types + rest, SHARES_TYPES), None, n)
    return Training(_join(types, SHARES_TYPES), _join(both + rest, {}), n)


def fit_head(
    training: Training,
    recipe: Recipe,
    class_names: Sequence[str],
    without: np.ndarray | None = None,
    n_pictures: int | None = None,
) -> Head:
    """Fit a recipe's head; its temperature stays 1.

    No sample of the nebulae ``without`` is fitted; the weights sum to ``n_pictures``,
    or as many as ``training`` has.

    Raises
    ------
    ValueError
        If a class has no sample.
    """
    from threadpoolctl import threadpool_limits

    total = n_pictures or training.n_pictures
    names = np.array(class_names)

    def fit(samples: Samples, labels: np.ndarray) -> LinearHead:
        kept = samples if without is None else samples.without(without)
        weight = compute_sample_weight(kept, recipe.balanced) * total / len(kept.y)
        head = LinearHead(recipe.C, tuple(labels.tolist()))
        # Its matrices are small: threads would mostly wait for each other.
        with threadpool_limits(1):
            return head.fit(kept.X, names[kept.y], weight)

    if training.nebula is None:
        return fit(training.types, names)
    head = TwoStepHead(recipe.C, tuple(names.tolist()))
    return head.set_steps(
        fit(training.nebula, names), fit(training.types, names[names != OTHER])
    )


def compute_sample_weight(samples: Samples, balanced: bool) -> np.ndarray:
    """Return one weight a sample, with mean 1, shape (n_samples,).

    If not ``balanced``, every sample weighs the same. Otherwise every class does; in a
    class each sample type has its share, and in a sample type every nebula weighs the
    same.
    """
    y = samples.y
    weight = np.ones(len(y))
    if not balanced:
        return weight
    for kind in np.unique(samples.kind):
        share = samples.shares.get(kind, 1.0)
        for label in np.unique(y[samples.kind == kind]):
            members = (samples.kind == kind) & (y == label)
            weight[members] = share * weigh_nebulae(samples.groups[members])
            weight[members] /= len(np.unique(samples.groups[members]))
    for label in np.unique(y):
        weight[y == label] /= weight[y == label].sum()
    return weight * len(y) / weight.sum()


def _embed(
    dataset: Dataset,
    backbone: Backbone,
    views: Views,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    rows = dataset.manifest if mask is None else dataset.manifest[mask]
    found = extract_features(list(rows["path"]), backbone, views)
    for index, reason in found.failed.items():
        raise SourceError(
            f"{rows['path'].iloc[index]} could be read before, but now: {reason}; "
            "fetch the source again"
        )
    return found.X


def _label(
    dataset: Dataset, mask: np.ndarray, X: np.ndarray, kind: str = PICTURE
) -> Samples:
    """Make a sample of each view (axis 1) of the pictures where ``mask`` is true."""
    copies = X.shape[1]
    return Samples(
        X.reshape(-1, X.shape[2]),
        np.repeat(dataset.y[mask], copies),
        np.repeat(dataset.groups[mask], copies),
        np.full(len(X) * copies, kind),
        {},
    )


def _join(parts: Sequence[Samples], shares: dict[str, float]) -> Samples:
    X, y, groups, kind = (np.concatenate([part[i] for part in parts]) for i in range(4))
    return Samples(X, y, groups, kind, shares)
