"""The cross-validated study: one strategy, its embeddings, its out-of-fold answers.

A *strategy* says how a head is trained and asked: which views of a picture are fitted,
which are averaged into the embedding that is judged, and how classes are weighted.
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from nebula_utils.bias.erasure import fit_eraser
from nebula_utils.config import IMAGE_SIZE, OTHER, RANDOM_STATE
from nebula_utils.counterfactuals.colour import REPORTED
from nebula_utils.dataset import splits
from nebula_utils.dataset.manifest import Dataset
from nebula_utils.errors import SourceError
from nebula_utils.features.backbone import Backbone
from nebula_utils.features.extraction import extract_features
from nebula_utils.features.views import CROPS, Preprocessing, View, apply_first
from nebula_utils.training.discriminant import COLOUR, fit_folds
from nebula_utils.training.fitting import Fit, Samples, compute_sample_weight, fit_head
from nebula_utils.training.robust import make_robust_samples
from nebula_utils.training.scores import Predictions

log = logging.getLogger(__name__)

# Stellarium's textures fade to black at their edges, which a head could learn.
INSIDE = {"stellarium": 0.85}
# Asked of every picture; the other counterfactuals only of nebulae.
EVERYONE = ("as_is", "grey")
CALIBRATION_FOLDS = 5
MIN_FOLDS = 3
N_JOBS = 2  # folds at once, each with one thread of linear algebra


@dataclass(frozen=True)
class Strategy:
    """How a head is trained and how pictures are put to it.

    Attributes
    ----------
    name : str
        As in the tables.
    train : tuple of View
        Copies of each picture that are fitted, each as a sample of its own.
    test : tuple of View
        Views whose embeddings are averaged into the one that is judged.
    balanced : bool
        Whether every class weighs the same in the fit, and every nebula in a class.
    method : {"logistic", "discriminant"}
        How the head is fitted, by `training` or by `discriminant`.
    deep : bool
        Whether the last two layers are pooled (`Backbone.pool_two_layers`), or the
        feature vector alone is used.
    makes : {"views", "crops", "dust"}
        Whether the ``train`` views are fitted, random crops of each picture instead,
        or those and simulated dark nebulae (`robust`).
    trim : bool
        Whether a dark border is cut off each picture that is judged
        (`images.trim_border`); else each source is cut as `INSIDE` says.
    colour : float
        What differences of colour add to the discriminant's covariance.
    size : int
        Side of the network's input, px, of what `robust` makes.
    palettes : {"ignored", "balanced", "erased"}
        ``"balanced"``: each palette in a class weighs the same, too, which is deep
        feature reweighting with groups of type and palette (Kirichenko et al. 2022,
        arXiv:2204.02937). ``"erased"``: so, and the palette is erased from the
        embeddings first (`erasure`).
    """

    name: str
    train: tuple[View, ...] = (View(),)
    test: tuple[View, ...] = (View(),)
    balanced: bool = False
    method: str = "logistic"
    deep: bool = False
    trim: bool = False
    makes: str = "views"
    colour: float = COLOUR
    size: int = IMAGE_SIZE
    palettes: str = "ignored"

    def adapt(self, backbone: Backbone) -> Backbone:
        """Return the extractor as this strategy uses it."""
        return backbone.pool_two_layers() if self.deep else backbone

    def at_size(self, size: int) -> "Strategy":
        """Return the strategy with every view's side scaled as 224 px to ``size``."""
        scale = size / IMAGE_SIZE

        def resize(views: tuple[View, ...]) -> tuple[View, ...]:
            return tuple(v._replace(size=round(v.size * scale)) for v in views)

        return replace(
            self, train=resize(self.train), test=resize(self.test), size=size
        )


# The original tool's head: every picture once, as it is.
PLAIN = Strategy("plain")
BALANCED = Strategy("balanced", balanced=True)
# A first counter-measure: copies in random colours, and grey beside colour when asked.
RANDOMISED = Strategy(
    "colour-randomised",
    train=(
        View(),
        View(colour="grey"),
        *(View(colour=f"random:{k}") for k in range(6)),
    ),
    test=(View(), View(colour="grey")),
    balanced=True,
)
# Asked of the whole picture and of five crops; grey counts six times as much as colour.
ROBUST = Strategy(
    "robust",
    test=tuple(
        View(crop=crop, colour=colour)
        for colour in ("as_is", *["grey"] * 6)
        for crop in ("whole", *CROPS)
    ),
    balanced=True,
    method="discriminant",
    deep=True,
    trim=True,
    makes="dust",
)


# Other ways, and the robust one without one of its parts, for the ablation.
_GREY = (View(colour="grey"),)
ABLATION = (
    BALANCED,
    Strategy("balanced by type and palette", balanced=True, palettes="balanced"),
    Strategy("… and palette erased", balanced=True, palettes="erased"),
    Strategy("luminance only", _GREY, _GREY, balanced=True),
    RANDOMISED,
    replace(ROBUST, name="robust without dust", makes="crops"),
    replace(ROBUST, name="robust without the colour term", colour=0.0),
    replace(ROBUST, name="robust, last layer only", deep=False),
    replace(ROBUST, name="robust, one view", test=(View(), *_GREY * 6)),
    replace(ROBUST, name="robust, asked in grey only", test=ROBUST.test[-6:]),
)


@dataclass(frozen=True)
class Embeddings:
    """What a strategy sees of a dataset.

    Attributes
    ----------
    train : Samples
        What may be fitted.
    test : dict of str to ndarray of shape (n_images, n_features), float32
        The judged embedding of each picture ``"as_is"`` and under each colour
        counterfactual; all but ``"grey"`` hold for nebulae only, for `other` the
        picture as it is stands in.
    """

    train: Samples
    test: dict[str, np.ndarray]


def embed_dataset(
    dataset: Dataset,
    backbone: Backbone,
    strategy: Strategy,
    counterfactuals: Sequence[str] = REPORTED,
) -> Embeddings:
    """Embed a dataset as a strategy sees it.

    Parameters
    ----------
    dataset : Dataset
        Pictures.
    backbone : Backbone
        Loaded feature extractor.
    strategy : Strategy
        Which views.
    counterfactuals : sequence of str
        Names from `counterfactuals.COUNTERFACTUALS` to judge under.

    Returns
    -------
    Embeddings
    """
    y = dataset.y
    backbone = strategy.adapt(backbone)
    if strategy.makes == "views":
        X = embed_pictures(dataset, backbone, strategy.train)
        copies = X.shape[1]
        train = Samples(
            X.reshape(-1, X.shape[2]),
            np.repeat(y, copies),
            np.repeat(dataset.groups, copies),
            None
            if strategy.palettes == "ignored"
            else np.repeat(dataset.palettes, copies),
        )
    else:
        with_dust = strategy.makes == "dust"
        train = make_robust_samples(dataset, backbone, strategy.size, with_dust)
    asked = embed_questions(dataset, backbone, strategy, counterfactuals)
    return Embeddings(train, asked)


def embed_questions(
    dataset: Dataset,
    backbone: Backbone,
    strategy: Strategy,
    counterfactuals: Sequence[str] = REPORTED,
) -> dict[str, np.ndarray]:
    """Embed pictures as a strategy judges them.

    Parameters
    ----------
    dataset, backbone, strategy, counterfactuals
        As for `embed_dataset`.

    Returns
    -------
    dict of str to ndarray of shape (n_images, n_features), float32
        As `Embeddings.test`.
    """
    backbone = strategy.adapt(backbone)
    asked = {name: apply_first(name, strategy.test) for name in counterfactuals}
    asked = {"as_is": strategy.test, **asked}
    everyone = {view for name in EVERYONE if name in asked for view in asked[name]}
    rest = {view for views in asked.values() for view in views} - everyone
    is_nebula = dataset.manifest["label"].to_numpy() != OTHER
    found: dict[View, np.ndarray] = {}
    for needed, mask in ((sorted(everyone), None), (sorted(rest), is_nebula)):
        if needed:
            X = embed_pictures(dataset, backbone, needed, mask, strategy.trim)
            found |= {view: X[:, i] for i, view in enumerate(needed)}
    test = {}
    for name, views in asked.items():
        if everyone.issuperset(views):
            test[name] = np.mean([found[view] for view in views], axis=0)
        else:
            chosen = [found[v][is_nebula] if v in everyone else found[v] for v in views]
            test[name] = test["as_is"].copy()
            test[name][is_nebula] = np.mean(chosen, axis=0)
    return test


def embed_pictures(
    dataset: Dataset,
    backbone: Backbone,
    views: Sequence[View],
    mask: np.ndarray | None = None,
    trim: bool = False,
) -> np.ndarray:
    """Embed views of a dataset's pictures, each source cut as `INSIDE` says.

    Parameters
    ----------
    dataset : Dataset
        Pictures.
    backbone : Backbone
        Loaded feature extractor.
    views : sequence of View
        Views of each picture.
    mask : ndarray of shape (n_images,), bool, optional
        Which pictures; default: all.
    trim : bool
        Cut dark borders off instead, whatever the source.

    Returns
    -------
    ndarray of shape (n_masked, n_views, n_features), float32

    Raises
    ------
    SourceError
        If a picture that was sound before can't be read now.
    """
    rows = dataset.manifest if mask is None else dataset.manifest[mask]
    X = np.empty((len(rows), len(views), backbone.n_features), np.float32)
    for source in rows["source"].unique():
        here = np.flatnonzero(rows["source"].to_numpy() == source)
        inside = 1.0 if trim else INSIDE.get(source, 1.0)
        recipe = Preprocessing(tuple(views), inside, trim=trim)
        found = extract_features(list(rows["path"].iloc[here]), backbone, recipe)
        if found.failed:
            index, reason = next(iter(found.failed.items()))
            raise SourceError(
                f"{rows['path'].iloc[here[index]]} could be read before, but now: "
                f"{reason}; fetch the source again"
            )
        X[here] = found.X
    return X


def make_splits(
    dataset: Dataset, n_splits: int, n_repeats: int, random_state: int = RANDOM_STATE
) -> list[splits.Split]:
    """Return repeated k-folds by group, each checked for leakage.

    Parameters
    ----------
    dataset : Dataset
        Pictures.
    n_splits, n_repeats : int
        Folds, and how often they are dealt out anew.
    random_state : int
        Seed.

    Returns
    -------
    list of (repeat, fold, train, test)

    Raises
    ------
    LeakageError
        If a group stands on both sides.
    SourceError
        If there are fewer than three folds, or a class has fewer nebulae than folds.
    """
    groups = dataset.groups
    thinnest = dataset.manifest.groupby("label")["group"].nunique().min()
    if not MIN_FOLDS <= n_splits <= thinnest:
        raise SourceError(
            f"can't split {thinnest} nebulae of the thinnest class into {n_splits} "
            f"folds: choose FOLDS from {MIN_FOLDS} to {max(MIN_FOLDS, thinnest)} "
            "(three at least, as calibration splits the training folds again)"
        )
    folds = list(
        splits.repeated_group_kfold(
            dataset.y, groups, n_splits, n_repeats, random_state
        )
    )
    for _, _, train, test in folds:
        splits.check_leakage(groups, train, test)
    return folds


def cross_validate(
    dataset: Dataset,
    embeddings: Embeddings,
    strategy: Strategy,
    folds: Sequence[splits.Split],
) -> dict[str, np.ndarray]:
    """Return out-of-fold probabilities.

    Parameters
    ----------
    dataset : Dataset
        Pictures.
    embeddings : Embeddings
        Of this dataset, by `embed_dataset`.
    strategy : Strategy
        How a head is trained.
    folds : sequence of (repeat, fold, train, test)
        From `make_splits`.

    Returns
    -------
    dict of str to ndarray of shape (n_repeats, n_images, n_classes), float64
        One entry for each key of ``embeddings.test``.
    """
    n_repeats = 1 + max(repeat for repeat, _, _, _ in folds)
    shape = (n_repeats, len(dataset.y), len(dataset.class_names))
    y_proba = {name: np.full(shape, np.nan) for name in embeddings.test}
    fits = _fit_folds(dataset, embeddings, strategy, folds)
    progress = tqdm(total=len(folds), desc=strategy.name, unit="fold", disable=None)
    with progress:
        for (repeat, _, _, test), fit in zip(folds, fits, strict=True):
            for name, X in embeddings.test.items():
                y_proba[name][repeat, test] = fit.head.predict_proba(X[test])
            progress.update()
    return y_proba


def fit_strategy(
    dataset: Dataset,
    embeddings: Embeddings,
    strategy: Strategy,
    rows: np.ndarray | None = None,
) -> Fit:
    """Fit a strategy's head on some of the pictures, or on all.

    Parameters
    ----------
    dataset : Dataset
        Pictures.
    embeddings : Embeddings
        Of this dataset, by `embed_dataset`.
    strategy : Strategy
        How a head is trained.
    rows : ndarray of int, optional
        Pictures that may be used; nothing of another picture's nebula takes part.
        Default: all.

    Returns
    -------
    Fit
    """
    groups = dataset.groups
    rows = np.arange(len(groups)) if rows is None else rows
    samples = embeddings.train.without(np.setdiff1d(groups, groups[rows]))
    judged = _judge(dataset, embeddings, rows)
    names = dataset.class_names
    if strategy.method == "logistic":
        if strategy.palettes == "erased":
            return _fit_erased(samples, judged, names, strategy.balanced)
        return fit_head(samples, judged, names, strategy.balanced)
    inner = splits.repeated_group_kfold(judged.y, judged.groups, CALIBRATION_FOLDS, 1)
    tests = [test for _, _, _, test in inner]
    return fit_folds(samples, judged, names, tests, strategy.colour)[1]


def _fit_erased(
    samples: Samples, judged: Samples, names: Sequence[str], balanced: bool
) -> Fit:
    """Fit on embeddings without a trace of the kind; answer for those with."""
    assert samples.kind is not None
    weight = compute_sample_weight(samples, balanced)
    eraser = fit_eraser(samples.X, samples.kind, weight)
    samples = samples._replace(X=eraser.apply(samples.X))
    judged = judged._replace(X=eraser.apply(judged.X))
    fit = fit_head(samples, judged, names, balanced)
    return fit._replace(head=eraser.merge(fit.head))


def _judge(dataset: Dataset, embeddings: Embeddings, rows: np.ndarray) -> Samples:
    return Samples(
        embeddings.test["as_is"][rows],
        dataset.y[rows],
        dataset.groups[rows],
        accept=dataset.accept[rows],
    )


def _fit_folds(
    dataset: Dataset,
    embeddings: Embeddings,
    strategy: Strategy,
    folds: Sequence[splits.Split],
) -> Iterator[Fit]:
    """Yield the fit of each fold, in order."""
    if strategy.method == "discriminant":
        judged = _judge(dataset, embeddings, np.arange(len(dataset.y)))
        for _, repeat in itertools.groupby(folds, key=lambda fold: fold[0]):
            tests = [test for _, _, _, test in repeat]
            names, colour = dataset.class_names, strategy.colour
            yield from fit_folds(embeddings.train, judged, names, tests, colour)[0]
        return

    def fit(fold: splits.Split) -> Fit:
        return fit_strategy(dataset, embeddings, strategy, fold[2])

    with threadpool_limits(1), ThreadPoolExecutor(N_JOBS) as pool:
        yield from pool.map(fit, folds)


def predict_study(
    dataset: Dataset, y_proba: dict[str, np.ndarray], name: str = "as_is"
) -> Predictions:
    """Put answers and truth together for `evaluate`."""
    return Predictions(
        dataset.y, y_proba[name], dataset.groups, dataset.class_names, dataset.accept
    )
