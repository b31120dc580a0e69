"""A causal test with dust: make one cloud denser, all else equal, and ask again.

A head that knows dark nebulae must say "dark" the more surely, the more dust there is,
and not care which colours the picture has. Nothing but the dust differs along a curve.
"""

import itertools
from collections.abc import Mapping, Sequence

import pandas as pd

from nebula_utils.counterfactuals.dust import KINDS, DarkNebula, simulate_dark_nebula
from nebula_utils.features.backbone import Backbone
from nebula_utils.features.extraction import embed_views
from nebula_utils.features.views import Preprocessing, apply_first, make_batch
from nebula_utils.images import reading
from nebula_utils.training.study import Study

A_V = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # magnitudes
SIDE = 448  # px of the pictures that the dust is put before; views are cut from them


def measure_dust_response(
    studies: Mapping[str, Study],
    backbone: Backbone,
    n_pictures: int = 16,
    a_v: Sequence[float] = A_V,
) -> pd.DataFrame:
    """Ask heads about emission nebulae with more and more dust in front.

    Parameters
    ----------
    studies : mapping of str to Study
        Of heads that know the class ``dark``, all of one dataset; each is fitted
        without the nebulae that it is asked about.
    backbone : Backbone
        Loaded feature extractor.
    n_pictures : int
        Pictures, each of another nebula, with a cloud of its own.
    a_v : sequence of float
        Extinctions of the densest part of the cloud, magnitudes.

    Returns
    -------
    DataFrame
        One row a head, picture and extinction: ``head``, ``colour`` ("as it is" or
        "grey"), ``nebula``, ``a_v`` and ``p_dark``.
    """
    manifest = next(iter(studies.values())).dataset.manifest
    chosen = choose_backgrounds(manifest, n_pictures)
    dusty = [
        simulate_dark_nebula(picture, i, DarkNebula(KINDS[i % len(KINDS)], dose))[0]
        for i, picture in enumerate(make_batch(chosen["path"], SIDE))
        for dose in a_v
    ]
    rows = []
    for name, study in studies.items():
        head = study.fit_head(chosen["group"])
        dark = study.dataset.class_names.index("dark")
        as_is = study.recipe.views
        asked = {"as it is": as_is, "grey": apply_first("grey", as_is)}
        views = tuple(dict.fromkeys(view for each in asked.values() for view in each))
        made = Preprocessing(views)
        batch = [made.make_views(reading.to_uint8(picture)) for picture in dusty]
        X = embed_views(batch, backbone)
        for colour, each in asked.items():
            columns = [views.index(view) for view in each]
            p_dark = head.predict_proba(X[:, columns])[:, dark].tolist()
            doses = itertools.product(chosen["nebula"], a_v)
            rows += [
                (name, colour, *of, p) for of, p in zip(doses, p_dark, strict=True)
            ]
    return pd.DataFrame(rows, columns=["head", "colour", "nebula", "a_v", "p_dark"])


def choose_backgrounds(
    manifest: pd.DataFrame, n: int, random_state: int = 0
) -> pd.DataFrame:
    """Return rows of a manifest to put dust before: emission, one a nebula.

    At most half of the nebulae, as heads are fitted on the others.
    """
    rows = manifest[manifest["label"] == "emission"].drop_duplicates("group")
    return rows.sample(min(n, len(rows) // 2), random_state=random_state)
