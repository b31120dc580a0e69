"""A causal test with dust: make one cloud denser, all else equal, and ask again.

A head that knows dark nebulae must say "dark" the more surely, the more dust there is,
and not care which colours the scene has. Nothing but the dust differs along a curve.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nebula_utils.counterfactuals import dust
from nebula_utils.features.backbone import Backbone
from nebula_utils.features.extraction import embed_views
from nebula_utils.features.views import Preprocessing, apply_first
from nebula_utils.images import reading
from nebula_utils.training.study import Study

A_V = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # magnitudes
FIRST_SEED = 1_000_000  # no scene that a head was trained on has such a seed


def measure_dust_response(
    studies: Mapping[str, Study],
    backbone: Backbone,
    n_scenes: int = 16,
    a_v: Sequence[float] = A_V,
) -> pd.DataFrame:
    """Ask heads about simulated fields with more and more dust in front.

    Parameters
    ----------
    studies : mapping of str to Study
        Of heads that know the class ``dark``; each is fitted on all its pictures.
    backbone : Backbone
        Loaded feature extractor.
    n_scenes : int
        Scenes; none of them was used in training.
    a_v : sequence of float
        Extinctions of the densest part of the cloud, magnitudes.

    Returns
    -------
    DataFrame
        One row a head, scene and extinction: ``head``, ``colour`` ("as it is" or
        "grey"), ``scene``, ``a_v`` and ``p_dark``.
    """
    scenes = [_make_scene(seed, a_v) for seed in range(n_scenes)]
    rows = []
    for name, study in studies.items():
        dark = study.dataset.class_names.index("dark")
        as_is = study.recipe.views
        asked = {"as it is": as_is, "grey": apply_first("grey", as_is)}
        views = tuple(dict.fromkeys(view for each in asked.values() for view in each))
        made = Preprocessing(views, trim=True)
        for scene, pictures in enumerate(scenes):
            batch = [made.make_views(reading.to_uint8(p)) for p in pictures]
            X = embed_views(batch, backbone)
            for colour, each in asked.items():
                chosen = X[:, [views.index(view) for view in each]]
                p_dark = study.head.predict_proba(chosen)[:, dark]
                found = zip(a_v, p_dark.tolist(), strict=True)
                rows += [(name, colour, scene, dose, p) for dose, p in found]
    return pd.DataFrame(rows, columns=["head", "colour", "scene", "a_v", "p_dark"])


def _make_scene(seed: int, a_v: Sequence[float]) -> list[np.ndarray]:
    """Return one scene under each extinction; the cloud's shape stays."""
    kind = dust.KINDS[seed % len(dust.KINDS)]
    sky = ("varied", "rich")[seed % 2]
    return [
        dust.simulate_dark_nebula(
            None, FIRST_SEED + seed, dust.DarkNebula(kind, dose), sky=sky
        )[0]
        for dose in a_v
    ]
