"""A causal test with dust: make one cloud denser, all else equal, and ask again.

A head that knows dark nebulae must say "dark" the more surely, the more dust there is,
and not care which colours the scene has. Nothing but the dust differs along a curve.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nebula_utils.bias.analysis import Answers
from nebula_utils.counterfactuals import dust
from nebula_utils.features.backbone import Backbone
from nebula_utils.features.extraction import embed_views
from nebula_utils.features.views import Preprocessing, apply_first, average_views
from nebula_utils.images import reading

A_V = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # magnitudes
FIRST_SEED = 1_000_000  # no scene that a head was trained on has such a seed


def measure_dose_response(
    answers: Mapping[str, Answers],
    backbone: Backbone,
    n_scenes: int = 24,
    a_v: Sequence[float] = A_V,
) -> pd.DataFrame:
    """Ask heads about simulated fields with more and more dust in front.

    Parameters
    ----------
    answers : mapping of str to Answers
        Of strategies that know the class ``dark``; each is fitted on all its pictures.
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
    for name, one in answers.items():
        dark = one.dataset.class_names.index("dark")
        test = one.strategy.test
        asked = {"as it is": test, "grey": apply_first("grey", test)}
        views = tuple(dict.fromkeys(view for each in asked.values() for view in each))
        recipe = Preprocessing(views, trim=one.strategy.trim)
        deep = one.strategy.adapt(backbone)
        for scene, pictures in enumerate(scenes):
            batch = [recipe.make_views(reading.to_uint8(p)) for p in pictures]
            X = embed_views(batch, deep)
            for colour, each in asked.items():
                mean = average_views(X, views, each)
                found = one.fit.head.predict_proba(mean)[:, dark]
                rows += [
                    (name, colour, scene, dose, float(p))
                    for dose, p in zip(a_v, found, strict=True)
                ]
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
