"""Figures with photographs: never stretched, credit beneath, free licences only."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nebula_utils.bias.dust_response import FIRST_SEED
from nebula_utils.catalogue.table import resolve
from nebula_utils.config import CLASS_NAMES
from nebula_utils.counterfactuals import dust
from nebula_utils.dataset.manifest import load_source
from nebula_utils.errors import CatalogueError, ImageError
from nebula_utils.features.views import Preprocessing, View
from nebula_utils.images import reading
from nebula_utils.report.drawing import CHANGE_NAMES, COLOURS, get_figure, make_grid
from nebula_utils.report.style import CLASS_LABELS, CLASS_STYLE
from nebula_utils.training.export import is_free

SIDE = 160  # px of a picture in a gallery


def choose_examples(
    manifest: pd.DataFrame, n_each: int = 4, random_state: int = 0
) -> pd.DataFrame:
    """Choose pictures to show: some of each class, of different nebulae.

    Parameters
    ----------
    manifest : DataFrame
        One row a picture.
    n_each : int
        At most so many of each class.
    random_state : int
        Seed of the choice.

    Returns
    -------
    DataFrame
        Rows whose licence lets us show them, in the order of the classes.
    """
    free = manifest[[is_free(licence) for licence in manifest["licence"]]]
    free = free.sample(frac=1, random_state=random_state).drop_duplicates("nebula")
    order = {name: place for place, name in enumerate(CLASS_NAMES)}
    chosen = free.groupby("label").head(n_each)
    return chosen.sort_values("label", key=lambda s: s.map(order), kind="stable")


def read_square(
    path: Path | str, source: str = "", side: int = SIDE, colour: str = "as_is"
) -> np.ndarray:
    """Return the square that the network sees of a picture, small.

    Parameters
    ----------
    path : Path or str
        The file.
    source : str
        Of the manifest; decides how much of the edges is cut off.
    side : int
        Of the square, px.
    colour : str
        As in `views.View`.

    Returns
    -------
    ndarray of shape (side, side, 3), uint8

    Raises
    ------
    ImageError
        If the file can't be used.
    """
    recipe = Preprocessing((View(side, "whole", colour),), trim=True)
    image = reading.read_image(Path(path), recipe.min_side)
    return reading.to_uint8(recipe.make_views(image)[0])


def plot_gallery(
    rows: pd.DataFrame, columns: int = 6, captions: Sequence[str] | None = None
) -> np.ndarray:
    """Draw pictures in a grid, each with its nebula, class and credit.

    Parameters
    ----------
    rows : DataFrame
        Rows of a manifest; those that may not be shown are refused.
    columns : int
        Pictures a row.
    captions : sequence of str, optional
        One line a picture; default: its class.

    Returns
    -------
    ndarray of Axes

    Raises
    ------
    ImageError
        If a picture's licence doesn't let us show it.
    """
    _refuse_unfree(rows["licence"])
    columns = min(columns, max(1, len(rows)))
    n_rows = max(1, int(np.ceil(len(rows) / columns)))
    axes = make_grid(n_rows, columns, (1.6, 2.45))
    for ax in axes.flat:
        ax.axis("off")
    texts = [CLASS_LABELS[name] for name in rows["label"]]
    texts = texts if captions is None else list(captions)
    for ax, row, text in zip(axes.flat, rows.to_dict("records"), texts, strict=False):
        _draw_picture(ax, read_square(row["path"], row["source"]), row, text)
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
    class_names : sequence of str
        One name a class.
    names : sequence of str
        Which colours, from left to right.

    Returns
    -------
    ndarray of Axes
        A row a picture; the answer and its probability beneath each.

    Raises
    ------
    ImageError
        If a picture's licence doesn't let us show it.
    """
    _refuse_unfree(rows["licence"])
    axes = make_grid(max(1, len(rows)), len(names), (1.35, 1.7))
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    for i, row in enumerate(rows.to_dict("records")):
        for ax, name in zip(axes[i], names, strict=True):
            square = read_square(row["path"], row["source"], 130, name)
            _draw_answer(ax, square, y_proba[name][i], class_names, row["accept"])
            if i == 0:
                ax.set_title(CHANGE_NAMES[name], fontsize=8)
        _write_credit(axes[i, 0], row)
    return axes


def plot_views(rows: pd.DataFrame, colours: Sequence[str]) -> np.ndarray:
    """Draw the views of pictures that a head is trained on.

    Parameters
    ----------
    rows : DataFrame
        Rows of a manifest, one picture each.
    colours : sequence of str
        As in `views.View`.

    Returns
    -------
    ndarray of Axes
        A row a picture, a column a view.

    Raises
    ------
    ImageError
        If a picture's licence doesn't let us show it.
    """
    _refuse_unfree(rows["licence"])
    axes = make_grid(max(1, len(rows)), len(colours), (1.7, 1.75))
    for i, row in enumerate(rows.to_dict("records")):
        for ax, colour in zip(axes[i], colours, strict=True):
            ax.imshow(read_square(row["path"], row["source"], colour=colour))
            ax.set(xticks=[], yticks=[])
            if i == 0:
                ax.set_title(_name_colour(colour), fontsize=8)
        _write_credit(axes[i, 0], row)
    return axes


def choose_free(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return the first rows of a manifest whose licence lets us show the picture."""
    return rows[[is_free(licence) for licence in rows["licence"]]].head(n)


def choose_flips(
    manifest: pd.DataFrame, flips: pd.DataFrame, n: int = 5
) -> pd.DataFrame:
    """Choose, of the pictures whose right answer turns wrong, some to show.

    Parameters
    ----------
    manifest : DataFrame
        The dataset's.
    flips : DataFrame
        From `analysis.list_flips`.
    n : int
        At most so many, of different nebulae.

    Returns
    -------
    DataFrame
        Rows of the manifest, with its index; only free licences.
    """
    rows = manifest.loc[flips.loc[flips["was_right"], "row"]]
    free = rows[[is_free(licence) for licence in rows["licence"]]]
    return free.drop_duplicates("group").head(n)


def plot_held_out(
    rows: pd.DataFrame, answers: Mapping[str, pd.DataFrame]
) -> np.ndarray:
    """Draw a held-out picture in every colour, with what each head answers.

    Parameters
    ----------
    rows : DataFrame
        The dataset's held-out pictures; the first is drawn.
    answers : mapping of str to DataFrame
        Name of each head → `analysis.ask_held_out`.

    Returns
    -------
    ndarray of Axes
        A row a head; without a picture that may be shown, a note.
    """
    free = rows[[is_free(licence) for licence in rows["licence"]]].head(1)
    if free.empty or not answers:
        axes = make_grid(1, 1, (6, 0.6))
        axes[0, 0].axis("off")
        axes[0, 0].text(0, 0.5, "no held-out picture in this source may be shown")
        return axes
    classes = tuple(next(iter(answers.values())).columns[2:])
    y_proba = {
        colour: np.stack(
            [
                one[
                    (one["nebula"] == free["nebula"].iloc[0])
                    & (one["colour"] == colour)
                ][list(classes)].iloc[0]
                for one in answers.values()
            ]
        )
        for colour in COLOURS
    }
    twice = pd.concat([free] * len(answers))
    axes = plot_strips(twice, y_proba, classes)
    for line, name in zip(axes, answers, strict=True):
        line[0].set_ylabel(f"{name} head\n{line[0].get_ylabel()}", fontsize=6)
    return axes


class Found(NamedTuple):
    """A picture to classify: where it is and whose."""

    path: Path
    credit: str


def find_picture(
    name: str, source: str = "stellarium", photos_dir: Path | str | None = None
) -> Found:
    """Find a picture by its path, or by the name of the nebula that it shows.

    Parameters
    ----------
    name : str
        A file, or a nebula's name as the catalogue knows it.
    source, photos_dir : str, Path
        Where to look for the nebula, as in `sources.load_source`.

    Returns
    -------
    Found

    Raises
    ------
    ImageError
        If there is no such picture.
    """
    if Path(name).is_file():
        return Found(Path(name), "")
    manifest = load_source(source, photos_dir)
    rows = manifest[manifest["nebula"] == _resolve(name)]
    if rows.empty:
        raise ImageError(
            f"no file {name!r}, and no picture of such a nebula in {source}: give a "
            "path, or a nebula such as NGC 1976"
        )
    row = rows.iloc[0]
    return Found(Path(row["path"]), f"{row['credit']}, {row['licence']}")


def plot_result(result: Any, credit: str = "") -> np.ndarray:
    """Draw an answer: picture, probabilities, greyscale answer, nearest pictures.

    Parameters
    ----------
    result : Result
        From `classifier.Classifier.classify`.
    credit : str
        Whose picture it is, written beneath.

    Returns
    -------
    ndarray of Axes
    """
    axes = make_grid(1, 2, (4.5, 3.4))[0]
    figure = get_figure(axes[0])
    axes[0].axis("off")
    if result.picture is not None:
        axes[0].imshow(result.picture)
        axes[0].set_title(result.path, fontsize=10)
        axes[0].text(
            0, -0.04, credit, transform=axes[0].transAxes, fontsize=7, va="top"
        )
    _draw_bars(axes[1], result)
    shown = [one for one in result.neighbours if one.thumbnail is not None]
    if shown:
        figure.set_size_inches(9, 5.6)
        grid = figure.add_gridspec(2, len(shown), height_ratios=[3, 2])
        axes[0].set_subplotspec(grid[0, : len(shown) // 2 or 1])
        axes[1].set_subplotspec(grid[0, len(shown) // 2 :])
        for place, one in enumerate(shown):
            ax = figure.add_subplot(grid[1, place])
            ax.axis("off")
            row = {"nebula": one.nebula, "credit": one.credit, "licence": one.licence}
            _draw_picture(ax, one.thumbnail, row, CLASS_LABELS[one.label])
    return axes


def _resolve(name: str) -> str:
    try:
        return resolve(name).name
    except CatalogueError:
        return name


def _name_colour(colour: str) -> str:
    if colour.startswith("random:"):
        return f"random copy {int(colour.removeprefix('random:')) + 1}"
    return CHANGE_NAMES.get(colour, colour)


def _draw_bars(ax: Axes, result: Any) -> None:
    grey = result.counterfactuals["grey"]
    for row, (name, share) in enumerate(result.probabilities.items()):
        style = CLASS_STYLE[name]
        ax.barh(row, share, 0.62, color=style["color"])
        ax.plot([grey[name]] * 2, [row - 0.4, row + 0.4], color="#d4a017", lw=2.5)
        ax.text(max(share, grey[name]) + 0.02, row, f"{share:.2f}", va="center")
    ax.set_yticks(range(len(grey)), [CLASS_LABELS[n] for n in result.probabilities])
    ax.set(xlim=(0, 1.12), ylim=(len(grey) - 0.5, -0.5), xlabel="probability")
    ax.spines[["top", "right"]].set_visible(False)
    sure = "" if result.confident else "Not sure: "
    ax.set_title(
        f"{sure}{CLASS_LABELS[result.label]}; in grey: "
        f"{CLASS_LABELS[result.grey_label]}\nbar: as it is; gold line: without colour; "
        f"stability {result.stability:.2f}",
        loc="left",
        fontsize=10,
    )


def _draw_picture(ax: Axes, picture: Any, row: Mapping[str, Any], text: str) -> None:
    ax.imshow(picture)
    ax.set_title(f"{row['nebula']}\n{text}", fontsize=8)
    _write_credit(ax, row)


def _draw_answer(
    ax: Axes,
    picture: np.ndarray,
    proba: np.ndarray,
    class_names: Sequence[str],
    accept: str,
) -> None:
    best = int(proba.argmax())
    right = class_names[best] in accept.split("|")
    ax.imshow(picture)
    for side in ax.spines.values():
        side.set(color="#2a7f3f" if right else "#cc3311", linewidth=2.5)
    answer = f"{CLASS_LABELS[class_names[best]]} {proba[best]:.2f}"
    ax.set_xlabel(answer if right else f"✗ {answer}", fontsize=8, labelpad=2)


def _write_credit(ax: Axes, row: Mapping[str, Any]) -> None:
    credit = textwrap.shorten(row["credit"], 110, placeholder="…")
    lines = [*textwrap.wrap(credit, 26), *textwrap.wrap(row["licence"], 26)]
    text = "\n".join(lines)
    if ax.axison:  # an answer stands beneath, so the credit goes to the side
        ax.set_ylabel(f"{row['nebula']}\n{text}", fontsize=6)
    else:
        ax.text(
            0.5,
            -0.03,
            text,
            ha="center",
            va="top",
            fontsize=5.5,
            color="#444",
            transform=ax.transAxes,
        )


def _refuse_unfree(licences: pd.Series) -> None:
    unfree = sorted({licence for licence in licences if not is_free(licence)})
    if unfree:
        raise ImageError(
            f"a picture under the licence {unfree[0]!r} may not be shown: choose "
            "others with choose_examples"
        )


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
    axes = make_grid(3, n, (1.7, 1.9))
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, row in zip(axes[0], real.to_dict("records"), strict=False):
        _draw_picture(ax, read_square(row["path"], row["source"]), row, "a real one")
    skies = list(dust.SKIES)
    for i in range(n):
        sky = skies[i % len(skies)]
        pair = dust.simulate_dark_nebula(
            None, FIRST_SEED + random_state + i, shape=(SIDE, SIDE), sky=sky
        )
        columns = zip(axes[1:, i], pair, ("with dust", "without"), strict=True)
        for ax, picture, text in columns:
            ax.imshow(picture)
            ax.set_title(f"simulated, {sky}: {text}", fontsize=7)
    return axes
