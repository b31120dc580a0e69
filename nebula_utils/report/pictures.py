"""Figures with photographs: never stretched, credit beneath, free licences only."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nebula_utils.catalogue.frame import annotate, read_frame, read_outlines
from nebula_utils.catalogue.place import NoPlaceError
from nebula_utils.catalogue.table import resolve
from nebula_utils.config import CLASS_NAMES
from nebula_utils.counterfactuals import dust
from nebula_utils.dataset.manifest import load_source
from nebula_utils.dataset.photos import is_free
from nebula_utils.errors import CatalogueError, ImageError
from nebula_utils.features.views import make_batch, recolour
from nebula_utils.images import reading
from nebula_utils.report.drawing import (
    CHANGE_NAMES,
    CLASS_LABELS,
    CLASS_STYLE,
    COLOURS,
    get_figure,
    make_axes,
    make_grid,
    write_title,
)
from nebula_utils.training.study import Study

SIDE = 160  # px of a picture in a gallery


class Found(NamedTuple):
    """A picture to classify: where it is and whose."""

    path: Path
    credit: str


def find_picture(
    name: str, source: str = "stellarium", photos_dir: Path | str | None = None
) -> Found:
    """Find a picture by its path, or by the name of the nebula that it shows.

    The nebula is looked for in a source, as in `manifest.load_source`.

    Raises
    ------
    ImageError
        If there is no such picture.
    """
    if Path(name).is_file():
        return Found(Path(name), "")
    manifest = load_source(source, photos_dir)
    try:
        nebula = resolve(name).name
    except CatalogueError:
        nebula = name
    rows = manifest[manifest["nebula"] == nebula]
    if rows.empty:
        raise ImageError(
            f"no file {name!r}, and no picture of such a nebula in {source}: give a "
            "path, or a nebula such as NGC 1976"
        )
    row = rows.iloc[0]
    return Found(Path(row["path"]), f"{row['credit']}, {row['licence']}")


def choose_free(rows: pd.DataFrame, n: int | None = None) -> pd.DataFrame:
    """Return the first rows of a manifest whose licence lets us show the picture."""
    return rows[[is_free(licence) for licence in rows["licence"]]].head(n or len(rows))


def choose_examples(
    manifest: pd.DataFrame, n_each: int = 4, random_state: int = 0
) -> pd.DataFrame:
    """Choose pictures that may be shown: some of each class, of different nebulae.

    Returns
    -------
    DataFrame
        Rows of the manifest, at most ``n_each`` of a class, in the classes' order.
    """
    free = choose_free(manifest).sample(frac=1, random_state=random_state)
    chosen = free.drop_duplicates("nebula").groupby("label").head(n_each)
    order = {name: place for place, name in enumerate(CLASS_NAMES)}
    return chosen.sort_values("label", key=lambda s: s.map(order), kind="stable")


def choose_flips(
    manifest: pd.DataFrame, flips: pd.DataFrame, n: int = 5
) -> pd.DataFrame:
    """Choose pictures to show whose right answer turns wrong, by `bias.list_flips`.

    They are rows of the dataset's manifest, of different nebulae, at most ``n``.
    """
    rows = manifest.loc[flips.loc[flips["was_right"], "row"]]
    return choose_free(rows).drop_duplicates("group").head(n)


def choose_outcomes(study: Study) -> pd.DataFrame:
    """Choose the surest right answer to a nebula, the surest wrong, the least sure.

    Parameters
    ----------
    study : Study
        Whose answers out of fold decide; pictures that may not be shown don't count.

    Returns
    -------
    DataFrame
        Up to three rows of the manifest; none if no picture may be shown.
    """
    data = study.dataset
    rows = choose_free(data.manifest[study.is_nebula])
    if rows.empty:
        return rows
    proba = study.ask(rows.index)[0]["as_is"]
    best, sure = proba.argmax(1), proba.max(1)
    right = data.accept[rows.index, best]
    wanted = [np.where(right, sure, -1), np.where(right, -1, sure), -sure]
    chosen = [values.argmax() for values in wanted if values.max() != -1]
    return rows.iloc[list(dict.fromkeys(chosen))]


def plot_gallery(
    rows: pd.DataFrame, columns: int = 6, captions: Sequence[str] | None = None
) -> np.ndarray:
    """Draw rows of a manifest in a grid, each with its nebula, class and credit.

    ``captions`` are one line a picture, by default its class.

    Raises
    ------
    ImageError
        If a picture's licence doesn't let us show it.
    """
    _refuse_unfree(rows)
    columns = min(columns, max(1, len(rows)))
    axes = make_grid(max(1, -(-len(rows) // columns)), columns, (1.6, 2.45))
    for ax in axes.flat:
        ax.axis("off")
    texts = rows["label"].map(CLASS_LABELS) if captions is None else captions
    for ax, row, text in zip(axes.flat, rows.to_dict("records"), texts, strict=False):
        _draw_picture(ax, _read_square(row), row, text)
    return axes


def plot_views(rows: pd.DataFrame, colours: Sequence[str]) -> np.ndarray:
    """Draw pictures in colours that `views.View` knows, a row each, a column a colour.

    Raises
    ------
    ImageError
        If a picture's licence doesn't let us show it.
    """
    _refuse_unfree(rows)
    axes = make_grid(max(1, len(rows)), len(colours), (1.45, 1.75))
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    for ax, colour in zip(axes[0], colours, strict=True):
        kind, _, number = colour.partition(":")
        name = f"random copy {int(number) + 1}" if number else CHANGE_NAMES[kind]
        ax.set_title(name, fontsize=8)
    for line, row in zip(axes, rows.to_dict("records"), strict=False):
        for ax, colour in zip(line, colours, strict=True):
            ax.imshow(_read_square(row, colour))
        _write_credit(line[0], row)
    return axes


def plot_strips(
    rows: pd.DataFrame,
    y_proba: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    names: Sequence[str] = COLOURS,
) -> np.ndarray:
    """Draw pictures under each colour, with what the head answers to it.

    Parameters
    ----------
    rows : DataFrame
        Rows of a manifest, one picture each.
    y_proba : mapping of str to ndarray of shape (n_rows, n_classes)
        Answers to these pictures ``"as_is"`` and under each counterfactual.
    names : sequence of str
        Which colours, from left to right.

    Raises
    ------
    ImageError
        If a picture's licence doesn't let us show it.
    """
    axes = plot_views(rows, names)
    for i, accept in enumerate(rows["accept"]):
        for ax, name in zip(axes[i], names, strict=True):
            proba = y_proba[name][i]
            best = class_names[int(proba.argmax())]
            right = best in accept.split("|")
            for side in ax.spines.values():
                side.set(color="#2a7f3f" if right else "#cc3311", linewidth=2.5)
            answer = f"{'' if right else '✗ '}{CLASS_LABELS[best]} {proba.max():.2f}"
            ax.set_xlabel(answer, fontsize=8, labelpad=2)
    return axes


def plot_held_out(
    rows: pd.DataFrame, answers: Mapping[str, pd.DataFrame]
) -> np.ndarray:
    """Draw a held-out picture in every colour, a row a head, with what each answers.

    Parameters
    ----------
    rows : DataFrame
        The dataset's held-out pictures; the first that may be shown is drawn.
    answers : mapping of str to DataFrame
        `bias.predict_held_out`.
    """
    free = choose_free(rows, 1)
    if free.empty or not answers:
        axes = make_grid(1, 1, (6, 0.6))
        axes[0, 0].axis("off")
        axes[0, 0].text(0, 0.5, "no held-out picture in this source may be shown")
        return axes
    classes = list(next(iter(answers.values())).columns[2:])
    nebula = free["nebula"].iloc[0]
    of_it = [
        one[one["nebula"] == nebula].set_index("colour") for one in answers.values()
    ]
    y_proba = {
        colour: np.stack([one.loc[[colour], classes].iloc[0] for one in of_it])
        for colour in COLOURS
    }
    axes = plot_strips(pd.concat([free] * len(answers)), y_proba, classes)
    for line, name in zip(axes, answers, strict=True):
        line[0].set_ylabel(f"{name} head\n{line[0].get_ylabel()}", fontsize=6)
    return axes


def plot_dust_gallery(
    manifest: pd.DataFrame, n: int = 5, random_state: int = 3
) -> np.ndarray:
    """Draw real dark nebulae, and emission nebulae behind dust and without it."""
    axes = make_grid(3, n, (1.7, 1.9))
    for ax in axes.flat:
        ax.set_axis_off()
    real, behind = (
        choose_examples(manifest[manifest["label"] == label], n, random_state)
        for label in ("dark", "emission")
    )
    for ax, row in zip(axes[0], real.to_dict("records"), strict=False):
        _draw_picture(ax, _read_square(row), row, "a real one")
    for i, row in enumerate(behind.to_dict("records")):
        square, kind = _read_square(row), dust.KINDS[i % len(dust.KINDS)]
        nebula = dust.DarkNebula(kind, a_v=6.0)
        dusty, _ = dust.simulate_dark_nebula(reading.to_float(square), i, nebula)
        _draw_picture(axes[1, i], dusty, row, f"simulated: {kind}")
        _draw_picture(axes[2, i], square, row, "without it")
    return axes


def plot_frame(path: Path | str, credit: str = "") -> Axes:
    """Draw every nebula of the catalogue into a picture that knows its place.

    Parameters
    ----------
    path : Path or str
        A picture; one without a place is drawn as it is, and the title says so.
    credit : str
        Whose picture it is, written beneath.
    """
    path = Path(path)
    ax = make_axes(None, (7, 7))
    ax.set_axis_off()
    ax.text(0, -0.02, credit, fontsize=7, va="top", transform=ax.transAxes)
    try:
        decoded, place, found = read_frame(path)
    except NoPlaceError:
        ax.imshow(reading.read_image(path))
        write_title(ax, "This picture does not say where on the sky it is", path.name)
        return ax
    outlines = read_outlines(path.parent / "outlines.dat")
    ax.imshow(annotate(decoded.image, place, found, outlines))
    degrees = max(place.shape) / place.px_per_arcmin / 60
    title = f"{len(found)} nebulae of the catalogue in one picture"
    write_title(ax, title, f"{degrees:.1f}° along its longer side")
    return ax


def plot_result(result: Any, credit: str = "") -> np.ndarray:
    """Draw a `classifier.Result`: picture, probabilities, in grey, nearest pictures.

    ``credit`` says whose picture it is, and is written beneath.
    """
    axes = make_grid(1, 2, (4.5, 3.4))[0]
    axes[0].axis("off")
    if result.picture is not None:
        axes[0].imshow(result.picture)
        axes[0].set_title(result.path, fontsize=10)
        beneath: dict[str, Any] = {"transform": axes[0].transAxes, "va": "top"}
        axes[0].text(0, -0.04, credit, fontsize=7, **beneath)
    _draw_bars(axes[1], result)
    shown = [one for one in result.neighbours if one.thumbnail is not None]
    if shown:
        figure = get_figure(axes[0])
        figure.set_size_inches(9, 5.6)
        grid = figure.add_gridspec(2, len(shown), height_ratios=[3, 2])
        axes[0].set_subplotspec(grid[0, : len(shown) // 2 or 1])
        axes[1].set_subplotspec(grid[0, len(shown) // 2 :])
        for place, one in enumerate(shown):
            ax = figure.add_subplot(grid[1, place])
            ax.axis("off")
            _draw_picture(ax, one.thumbnail, one._asdict(), CLASS_LABELS[one.label])
    return axes


def _draw_bars(ax: Axes, result: Any) -> None:
    grey = result.counterfactuals["grey"]
    for row, (name, share) in enumerate(result.probabilities.items()):
        ax.barh(row, share, 0.62, color=CLASS_STYLE[name]["color"])
        ax.plot([grey[name]] * 2, [row - 0.4, row + 0.4], color="#d4a017", lw=2.5)
        ax.text(max(share, grey[name]) + 0.02, row, f"{share:.2f}", va="center")
    ax.set_yticks(range(len(grey)), [CLASS_LABELS[n] for n in result.probabilities])
    ax.set(xlim=(0, 1.12), ylim=(len(grey) - 0.5, -0.5), xlabel="probability")
    ax.spines[["top", "right"]].set_visible(False)
    sure = "" if result.confident else "Not sure: "
    title = (
        f"{sure}{CLASS_LABELS[result.label]}; in grey: "
        f"{CLASS_LABELS[result.grey_label]}\nbar: as it is; gold line: without colour; "
        f"stability {result.stability:.2f}"
    )
    ax.set_title(title, loc="left", fontsize=10)


def _read_square(row: Mapping[str, Any], colour: str = "as_is") -> np.ndarray:
    """Return the square of a picture that the network sees, small: uint8."""
    return reading.to_uint8(recolour(make_batch([row["path"]], SIDE)[0], colour))


def _draw_picture(ax: Axes, picture: Any, row: Mapping[str, Any], text: str) -> None:
    ax.imshow(picture)
    ax.set_title(f"{row['nebula']}\n{text}", fontsize=8)
    _write_credit(ax, row)


def _write_credit(ax: Axes, row: Mapping[str, Any]) -> None:
    credit = textwrap.shorten(row["credit"], 110, placeholder="…")
    text = "\n".join(textwrap.wrap(credit, 26) + textwrap.wrap(row["licence"], 26))
    if ax.axison:  # an answer stands beneath, so the credit goes to the side
        ax.set_ylabel(f"{row['nebula']}\n{text}", fontsize=6)
        return
    look: dict[str, Any] = {"fontsize": 5.5, "color": "#444", "ha": "center"}
    ax.text(0.5, -0.03, text, va="top", transform=ax.transAxes, **look)


def _refuse_unfree(rows: pd.DataFrame) -> None:
    unfree = sorted({one for one in rows["licence"] if not is_free(one)})
    if unfree:
        raise ImageError(
            f"a picture under the licence {unfree[0]!r} may not be shown: choose "
            "others with choose_examples"
        )
