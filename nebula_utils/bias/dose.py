"""A causal test with dust: make one cloud denser, all else equal, and ask again.

A head that knows dark nebulae must say "dark" the more surely, the more dust there is,
and not care which colours the scene has. Nothing but the dust differs along a curve.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from nebula_utils.bias.analysis import Answers
from nebula_utils.counterfactuals import dust
from nebula_utils.features.backbone import Backbone
from nebula_utils.features.extraction import embed_views
from nebula_utils.features.views import Preprocessing, apply_first, average_views
from nebula_utils.images import reading
from nebula_utils.report.drawing import DPI, make_axes, write_title
from nebula_utils.report.pictures import SIDE, choose_examples, read_square

A_V = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # magnitudes
FIRST_SEED = 1_000_000  # no scene that a head was trained on has such a seed
_LINES = {"as it is": "-", "grey": ":"}
_COLOURS = {"plain": "#CC3311", "robust": "#0072B2"}


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


def plot_dose_response(response: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw P(dark) against the extinction, the median and half of the scenes.

    Parameters
    ----------
    response : DataFrame
        From `measure_dose_response`.
    ax : Axes, optional
        Where to draw; default: a new figure.

    Returns
    -------
    Axes
    """
    ax = make_axes(ax, (6.4, 3.6))
    for (head, colour), rows in response.groupby(["head", "colour"], sort=False):
        curve = rows.groupby("a_v")["p_dark"].quantile([0.25, 0.5, 0.75]).unstack()
        shade = _COLOURS.get(head, "#555")
        ax.plot(curve.index, curve[0.5], _LINES[colour], color=shade, marker="o", ms=4)
        if colour == "as it is":
            ax.fill_between(
                curve.index, curve[0.25], curve[0.75], color=shade, alpha=0.1
            )
        end = float(curve[0.5].iloc[-1])
        ax.annotate(
            f"{head}, {colour}",
            (curve.index[-1], end),
            xytext=(6, 4 if colour == "grey" else -8),
            textcoords="offset points",
            color=shade,
            fontsize=8,
        )
    ax.set(
        xlabel="visual extinction A$_V$ of the cloud's densest part, magnitudes",
        ylabel="P(dark)",
        ylim=(0, 1),
        xlim=(0, 1.35 * response["a_v"].max()),
    )
    ax.spines[["top", "right"]].set_visible(False)
    final = response[response["a_v"] == response["a_v"].max()]
    medians = final[final["colour"] == "as it is"].groupby("head", sort=False)["p_dark"]
    found = " and ".join(f"{m:.2f} ({n})" for n, m in medians.median().items())
    about = f"{response['scene'].nunique()} simulated fields, only the dust changes"
    return write_title(ax, f"With the dust P(dark) rises to {found}", about)


def plot_dust_gallery(
    manifest: pd.DataFrame, n: int = 5, random_state: int = 3
) -> np.ndarray:
    """Draw real dark nebulae above simulated ones, and those above the same without.

    Parameters
    ----------
    manifest : DataFrame
        One row a picture; pictures under free licences are chosen.
    n : int
        Pictures a row.
    random_state : int
        Seed of the choice and of the scenes.

    Returns
    -------
    ndarray of Axes, shape (3, n)
    """
    real = choose_examples(manifest[manifest["label"] == "dark"], n, random_state)
    _, axes = plt.subplots(
        3, n, figsize=(1.7 * n, 5.6), layout="constrained", dpi=DPI, squeeze=False
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, row in zip(axes[0], real.to_dict("records"), strict=False):
        ax.imshow(read_square(row["path"], row["source"], SIDE))
        ax.set_title(row["nebula"], fontsize=8)
        text = f"{row['credit'][:40]}\n{row['licence']}"
        place = {"ha": "center", "va": "top", "transform": ax.transAxes}
        ax.text(0.5, -0.02, text, fontsize=5.5, color="#444", **place)
    skies = list(dust.SKIES)
    for i in range(n):
        sky = skies[i % len(skies)]
        pair = dust.simulate_dark_nebula(
            None, FIRST_SEED + random_state + i, shape=(SIDE, SIDE), sky=sky
        )
        for ax, picture, text in zip(
            axes[1:, i], pair, ("with dust", "without"), strict=True
        ):
            ax.imshow(picture)
            ax.set_title(f"simulated, {sky}: {text}", fontsize=7)
    return axes


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
