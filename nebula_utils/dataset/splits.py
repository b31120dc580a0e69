"""Split pictures so that nothing of a test nebula was seen in training.

The unit of every split is the group: all pictures of one place on the sky, under
whatever names and from whatever sources, and all copies of them.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from astropy import units
from astropy.coordinates import SkyCoord
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedKFold

from nebula_utils.catalogue.table import find
from nebula_utils.config import RANDOM_STATE
from nebula_utils.errors import LeakageError

logger = logging.getLogger(__name__)

MATCH_ARCMIN = 3.0  # two positions as near as this are one object in any case
_PLACE = ["ra_deg", "dec_deg", "size_arcmin"]
Split = tuple[int, int, np.ndarray, np.ndarray]


def make_groups(
    manifest: pd.DataFrame, duplicates: pd.DataFrame | None = None
) -> np.ndarray:
    """Return a group number for each row; a group must stay on one side of a split.

    Joined are pictures of one nebula; of two nebulae whose positions lie nearer
    to each other than half the size of the smaller (or than `MATCH_ARCMIN`); and
    copies of each other. A small nebula somewhere inside a huge one stays on its
    own: otherwise all of Orion were one group. Positions are compared twice, as the
    manifest has them, where a picture's may be its middle, and as the catalogue does.

    Parameters
    ----------
    manifest : DataFrame
        Columns nebula, ra_deg, dec_deg (degrees, ICRS), size_arcmin; NaN is
        allowed and matches nothing.
    duplicates : DataFrame, optional
        Pairs ``first``, ``second`` of image ids; those not in the manifest are ignored.

    Returns
    -------
    ndarray of int, shape (n,)
        Group numbers from 0, in order of first appearance.
    """
    edges = [_join_names(manifest), _join_positions(manifest)]
    edges.append(_join_positions(_place_by_catalogue(manifest)))
    if duplicates is not None:
        edges.append(_join_copies(manifest, duplicates))
    first, second = np.concatenate(edges, axis=1)
    n = len(manifest)
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    return pd.factorize(labels)[0]


def repeated_group_kfold(
    y: Sequence[str] | np.ndarray,
    groups: np.ndarray,
    n_splits: int = 5,
    n_repeats: int = 3,
    random_state: int = RANDOM_STATE,
) -> Iterator[Split]:
    """Yield repeated k-fold splits by group, stratified by class.

    The groups are dealt out, each by its most frequent label, and not the
    pictures: so a class with at least ``n_splits`` groups is in every test fold,
    which scikit-learn's StratifiedGroupKFold does not promise.

    Parameters
    ----------
    y : array of str, shape (n,)
        Labels.
    groups : ndarray of int, shape (n,)
        From `make_groups`.
    n_splits, n_repeats : int
        Folds, and how often they are dealt out anew.
    random_state : int
        Seed; repeat r uses ``random_state + r``.

    Yields
    ------
    (repeat, fold, train, test)
        Numbers from 0, and arrays of row numbers; of a repeat, every row is in one
        test part.

    Raises
    ------
    LeakageError
        If there are fewer groups than folds, so that no such split exists.
    """
    y = np.asarray(y)
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < n_splits:
        raise LeakageError(
            f"{len(names)} nebulae can't be split into {n_splits} folds: "
            "add nebulae or take fewer folds"
        )
    labels = pd.Series(y).groupby(codes).agg(lambda own: own.mode()[0])
    dealt = random_kfold(labels, n_splits, n_repeats, random_state)
    for repeat, fold, _, test in dealt:
        tested = np.isin(codes, test)
        yield repeat, fold, np.flatnonzero(~tested), np.flatnonzero(tested)


def random_kfold(
    y: Sequence[str] | np.ndarray,
    n_splits: int = 5,
    n_repeats: int = 3,
    random_state: int = RANDOM_STATE,
) -> Iterator[Split]:
    """Yield splits that ignore the nebulae, as `repeated_group_kfold` does not."""
    y = np.asarray(y)
    # StratifiedKFold refuses to run if every class is thin; one class then.
    thin = np.unique(y, return_counts=True)[1].max() < n_splits
    y = np.zeros(len(y), int) if thin else y
    for repeat in range(n_repeats):
        folds = StratifiedKFold(
            n_splits, shuffle=True, random_state=random_state + repeat
        )
        with warnings.catch_warnings():
            # A class thinner than n_splits is missing from some folds: allowed.
            warnings.simplefilter("ignore", UserWarning)
            parts = list(folds.split(y, y))
        for fold, (train, test) in enumerate(parts):
            yield repeat, fold, train, test


def check_leakage(
    groups: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    names: Sequence[str] | None = None,
) -> None:
    """Make sure that no group, of every row, is in the rows of both sides.

    Raises
    ------
    LeakageError
        If one is; it names groups, or the nebulae of every row if these are given.
    """
    groups = np.asarray(groups)
    shared = np.intersect1d(groups[train], groups[test])
    if not len(shared):
        return
    labels = np.asarray(groups if names is None else names, dtype=str)
    rows = np.concatenate([train, test]).astype(int)
    found = sorted(set(labels[rows[np.isin(groups[rows], shared)]]))
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    raise LeakageError(
        f"in training and test at once: {', '.join(found[:10])}{more}; "
        "split by the groups of make_groups"
    )


def _join_names(manifest: pd.DataFrame) -> np.ndarray:
    rows = pd.Series(np.arange(len(manifest)))
    firsts = rows.groupby(manifest["nebula"].to_numpy()).transform("first")
    return np.stack([rows, firsts])


def _join_positions(manifest: pd.DataFrame) -> np.ndarray:
    places = manifest[["nebula", *_PLACE]].assign(row=np.arange(len(manifest)))
    places = places.dropna(subset=_PLACE[:2]).drop_duplicates(["nebula", *_PLACE])
    if len(places) < 2:
        return np.empty((2, 0), int)
    ra, dec, sizes = places[_PLACE].fillna(0).to_numpy(float).T
    sky = SkyCoord(ra, dec, unit="deg")
    reach = max(MATCH_ARCMIN, sizes.max() / 2) * units.arcmin
    one, two, apart, _ = sky.search_around_sky(sky, reach)
    limit = np.maximum(np.minimum(sizes[one], sizes[two]) / 2, MATCH_ARCMIN)
    near = (apart.arcmin < limit) & (one < two)
    names, rows = places["nebula"].to_numpy(), places["row"].to_numpy()
    for i, j in zip(one[near], two[near], strict=True):
        if names[i] != names[j]:
            logger.info("%s and %s are one place on the sky", names[i], names[j])
    return np.stack([rows[one[near]], rows[two[near]]])


def _place_by_catalogue(manifest: pd.DataFrame) -> pd.DataFrame:
    # Where the nebulae stand and how large they are, where the catalogue knows them.
    places = manifest[["nebula", *_PLACE]].copy()
    for name, rows in places.groupby("nebula").groups.items():
        nebula = find(str(name))
        if nebula is not None:
            size = np.nan if nebula.size_arcmin is None else nebula.size_arcmin
            places.loc[rows, _PLACE] = nebula.ra_deg, nebula.dec_deg, size
    return places


def _join_copies(manifest: pd.DataFrame, duplicates: pd.DataFrame) -> np.ndarray:
    row_of = pd.Series(np.arange(len(manifest)), manifest["image_id"])
    known = duplicates[["first", "second"]].isin(row_of.index).all(axis=1)
    pairs = duplicates[known]
    return np.stack([row_of[pairs["first"]], row_of[pairs["second"]]]).astype(int)
