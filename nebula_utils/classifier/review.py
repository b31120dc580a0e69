"""Look again at doubtful labels of one's own pictures, and write what is accepted."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nebula_utils.config import CLASS_NAMES
from nebula_utils.files import write_atomic
from nebula_utils.images import reading

THUMBNAIL_SIDE = 128  # px
COLUMNS = ("file", "class", "accept", "nebula")


def write_accepted(manifest_csv: Path, rows: Any) -> None:
    """Write which types are accepted for some pictures into one's own manifest.

    Parameters
    ----------
    manifest_csv : Path
        As the source ``photos`` reads it; made if it is not there. Other rows and
        columns stay as they are.
    rows : DataFrame
        With ``path``, ``label``, ``accept`` (types joined by ``|``) and ``nebula``.
    """
    folder = manifest_csv.parent
    old: list[dict[str, str]] = []
    fields = list(COLUMNS)
    if manifest_csv.is_file():
        with open(manifest_csv, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            old = list(reader)
            fields = list(dict.fromkeys([*(reader.fieldnames or ()), *COLUMNS]))
    known = {os.path.normpath(row["file"]): row for row in old}
    for row in rows.to_dict("records"):
        file = os.path.relpath(row["path"], folder)
        new = {"file": Path(file).as_posix(), "nebula": row["nebula"]}
        target = known.setdefault(os.path.normpath(file), new)
        target |= {"class": row["label"], "accept": row["accept"]}
    with (
        write_atomic(manifest_csv) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, fields, restval="")
        writer.writeheader()
        writer.writerows(known.values())


def review_labels(
    rows: Any, manifest_csv: Path | str, class_names: tuple = CLASS_NAMES
) -> Any:
    """Show pictures with their accepted types to be ticked, and a button that saves.

    Parameters
    ----------
    rows : DataFrame
        From `training.list_doubtful`.
    manifest_csv : Path or str
        Where `write_accepted` puts what was changed.
    class_names : tuple of str
        What may be ticked.

    Returns
    -------
    ipywidgets.VBox
        One row a picture, the button and a line that says what was written.
    """
    import ipywidgets

    path = Path(manifest_csv)
    ticks = [_make_ticks(row["accept"], class_names) for _, row in rows.iterrows()]
    lines = [
        ipywidgets.HBox([_show(row), ipywidgets.VBox(list(boxes.values()))])
        for (_, row), boxes in zip(rows.iterrows(), ticks, strict=True)
    ]
    said = ipywidgets.HTML()
    button = ipywidgets.Button(description=f"Save to {path.name}")

    def save(_: Any) -> None:
        accepted = [_read_ticks(boxes) for boxes in ticks]
        changed = [
            bool(new) and set(new.split("|")) != set(old.split("|"))
            for new, old in zip(accepted, rows["accept"], strict=True)
        ]
        write_accepted(path, rows.assign(accept=accepted)[changed])
        said.value = f"{sum(changed)} rows written to {path}"

    button.on_click(save)
    return ipywidgets.VBox([*lines, button, said])


def _make_ticks(accept: str, class_names: tuple) -> dict[str, Any]:
    import ipywidgets

    layout = ipywidgets.Layout(width="auto")
    return {
        name: ipywidgets.Checkbox(
            name in accept.split("|"), description=name, indent=False, layout=layout
        )
        for name in class_names
    }


def _read_ticks(boxes: Mapping[str, Any]) -> str:
    return "|".join(name for name, box in boxes.items() if box.value)


def _show(row: Any) -> Any:
    """Return a thumbnail with what is known of the picture below it."""
    import ipywidgets
    from PIL import Image

    square = reading.cut_square(reading.read_image(Path(row["path"])), THUMBNAIL_SIDE)
    stream = io.BytesIO()
    Image.fromarray(square).save(stream, "JPEG")
    text = ipywidgets.Label(f"{row['nebula']}: {row['label']}, said {row['answer']}")
    return ipywidgets.VBox([ipywidgets.Image(value=stream.getvalue()), text])
