"""Look again at doubtful labels of one's own pictures, and write what is accepted."""

import csv
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from nebula_utils.classifier.rendering import to_png
from nebula_utils.config import CLASS_NAMES
from nebula_utils.errors import SourceError
from nebula_utils.files import write_atomic
from nebula_utils.images import reading

THUMBNAIL_SIDE = 128  # px
COLUMNS = ("file", "class", "accept", "nebula")


def write_accepted(manifest_csv: Path, rows: Any) -> None:
    """Write which types are accepted for some pictures into one's own manifest.

    Parameters
    ----------
    manifest_csv : Path
        As the source ``photos`` reads it; if it is not there, it is made of all the
        pictures in class folders beside it, as it then decides what is listed. Other
        rows and columns stay as they are.
    rows : DataFrame
        With ``path``, ``label``, ``accept`` (types joined by ``|``) and ``nebula``.

    Raises
    ------
    SourceError
        If a picture lies outside the manifest's folder, or a class folder is empty.
    """
    from nebula_utils.dataset.photos import list_class_folders  # imports pandas

    folder = Path(os.path.abspath(manifest_csv.parent))
    for path in rows["path"]:
        if not Path(os.path.abspath(path)).is_relative_to(folder):
            raise SourceError(f"{path} is not in {folder}: nothing is written")
    fields = list(COLUMNS)
    if manifest_csv.is_file():
        with open(manifest_csv, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            old = list(reader)
            fields = list(dict.fromkeys([*(reader.fieldnames or ()), *COLUMNS]))
    else:
        old = list_class_folders(folder)
    known = {os.path.normpath(row["file"]): row for row in old}
    for row in rows.to_dict("records"):
        file = os.path.relpath(row["path"], folder)
        new = {"file": Path(file).as_posix(), "nebula": row["nebula"]}
        new["class"] = row["label"]
        known.setdefault(os.path.normpath(file), new)["accept"] = row["accept"]
    with (
        write_atomic(manifest_csv) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, fields, restval="")
        writer.writeheader()
        writer.writerows(known.values())


def review_labels(
    rows: Any, manifest_csv: Path | str, class_names: tuple = CLASS_NAMES
) -> widgets.VBox:
    """Show pictures with their accepted types to be ticked, and a button that saves.

    ``rows`` are from `training.list_doubtful`; what was changed is put into the
    manifest by `write_accepted`, and a line says how much that was.
    """
    path = Path(manifest_csv)
    ticks = [_make_ticks(accept, class_names) for accept in rows["accept"]]
    lines = [
        widgets.HBox([_show(row), widgets.VBox(list(boxes.values()))])
        for row, boxes in zip(rows.to_dict("records"), ticks, strict=True)
    ]
    said = widgets.HTML()
    button = widgets.Button(description=f"Save to {path.name}")

    def save(_: Any) -> None:
        accepted = [
            "|".join(name for name, box in boxes.items() if box.value)
            for boxes in ticks
        ]
        changed = [
            bool(new) and set(new.split("|")) != set(old.split("|"))
            for new, old in zip(accepted, rows["accept"], strict=True)
        ]
        try:
            if any(changed):
                write_accepted(path, rows.assign(accept=accepted)[changed])
            said.value = escape(f"{sum(changed)} rows written to {path}")
        except SourceError as error:
            said.value = escape(str(error))

    button.on_click(save)
    return widgets.VBox([*lines, button, said])


def _make_ticks(accept: str, class_names: tuple) -> dict[str, widgets.Checkbox]:
    accepted = accept.split("|")
    look: dict[str, Any] = {"indent": False, "layout": widgets.Layout(width="auto")}
    return {
        name: widgets.Checkbox(name in accepted, description=name, **look)
        for name in class_names
    }


def _show(row: Mapping[str, Any]) -> widgets.VBox:
    """Return a thumbnail with what is known of the picture below it."""
    square = reading.cut_square(reading.read_image(Path(row["path"])), THUMBNAIL_SIDE)
    text = f"{row['nebula']}: {row['label']}, said {row['answer']}"
    return widgets.VBox([widgets.Image(value=to_png(square)), widgets.Label(text)])
