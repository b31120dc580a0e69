"""Which answers flip, how much colour that takes, and where the evidence lies."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from astropy.coordinates import SkyCoord
from PIL import Image, ImageDraw

from nebula_utils.catalogue.frame import read_outlines
from nebula_utils.catalogue.place import TEXTURES, place_by_corners, read_corners
from nebula_utils.catalogue.table import find
from nebula_utils.config import OTHER
from nebula_utils.counterfactuals.colour import find_flips
from nebula_utils.features.evidence import enlarge, measure_share, pad_border
from nebula_utils.features.views import Preprocessing
from nebula_utils.images import reading
from nebula_utils.training.scores import Predictions
from nebula_utils.training.study import Study

Classifier = Any  # a later room's, which is only handed in

SEEN = (0.02, 0.6)  # share of a picture that an object covers, to be told from chance
CELLS = 64  # along each side of maps that are compared between pictures
MASK_SIDE = 256  # px, shorter side of the mask of an object


def predict_nebulae(study: Study, changes: Sequence[str]) -> dict[str, Predictions]:
    """Return the answers out of fold to the pictures of nebulae, under each change."""
    found = {change: study.predict_under(change) for change in changes}
    return {change: p.select(p.is_nebula) for change, p in found.items()}


def list_flips(study: Study, change: str = "grey") -> pd.DataFrame:
    """List the nebula pictures whose answer a change of colour or framing flips.

    Returns
    -------
    DataFrame
        One row a picture whose mean answer out of fold flips: ``row`` (in the
        dataset), ``nebula``, ``label``, ``before``, ``after``, ``was_right`` and
        ``shift``, how much probability the first answer lost; most first.
    """
    dataset = study.dataset
    names = np.array(dataset.class_names)
    rows = np.flatnonzero(study.is_nebula)
    found = predict_nebulae(study, ("as_is", change))
    before, after = found["as_is"].y_proba.mean(0), found[change].y_proba.mean(0)
    old, new = before.argmax(1), after.argmax(1)
    every = np.arange(len(rows))
    table = pd.DataFrame(
        {
            "row": rows,
            "nebula": dataset.manifest["nebula"].to_numpy()[rows],
            "label": names[dataset.y[rows]],
            "before": names[old],
            "after": names[new],
            "was_right": dataset.accept[rows, old],
            "shift": (before[every, old] - after[every, old]).round(3),
        }
    )
    flipped = table[old != new]
    return flipped.sort_values(["shift", "row"], ascending=[False, True])


def measure_localisation(
    classifier: Classifier, rows: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Measure how much of the evidence for a nebula's type lies on the nebula.

    Parameters
    ----------
    classifier : Classifier
        With a feature map.
    rows : iterable of mapping
        Of a manifest; those of Stellarium's textures are measured, as their corners
        are known: inside Stellarium's outline of the object, or where it has none in
        the circle of the catalogue's size.

    Returns
    -------
    list of dict
        One a picture whose object covers a part of it (`SEEN`): ``nebula``, ``label``,
        ``shape`` ("outline" or "circle"), ``share`` of the evidence for the true type
        that lies inside; ``chance``, the share of the picture that it covers; and
        ``others``, which share of the evidence would lie there if it lay as in the
        other pictures on average: nebulae stand in the middle of pictures, and so may
        evidence that knows nothing of them.
    """
    found, maps, masks = [], [], []
    for row in rows:
        if row["label"] not in classifier.class_names or row["label"] == OTHER:
            continue
        image = _read(classifier, row)
        mask, shape = make_mask(row, (image.shape[0], image.shape[1]))
        if mask is None or not SEEN[0] <= mask.mean() <= SEEN[1]:
            continue
        evidence = classifier.map_evidence(image)
        label = classifier.class_names.index(row["label"])
        inside = reading.trim_border(image) if classifier.trim else image
        part = inside.shape[0] / image.shape[0]
        rows_seen, columns_seen = (round(part * n) for n in evidence.shape[:2])
        seen = pad_border(np.ones((rows_seen, columns_seen, 1), np.float32), part)
        share, chance = measure_share(evidence[..., label], mask, seen[..., 0])
        kept = {name: row[name] for name in ("nebula", "label")}
        found.append({**kept, "shape": shape, "share": share, "chance": chance})
        cells = enlarge(evidence[..., [label]], CELLS, CELLS)[..., 0].clip(0)
        maps.append(cells / max(cells.sum(), 1e-9))
        masks.append(np.asarray(Image.fromarray(mask).resize((CELLS, CELLS))))
    total = sum(maps)
    for one, own, mask in zip(found, maps, masks, strict=True):
        others = (total - own) / max(len(maps) - 1, 1)
        one["others"] = float(others[mask].sum()) if len(maps) > 1 else np.nan
    return found


def measure_flip_distances(
    classifier: Classifier, rows: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Measure how much colour has to change until the answer to a row's picture flips.

    Returns
    -------
    list of dict
        One a picture: ``nebula``, ``label`` (the true type), ``answer``; ``hue``, the
        smallest turn of all hues that flips it, degrees in (0, 180], infinite where
        none does; ``saturation``, the largest factor below 1 that flips it, negative
        where not even grey does; ``palettes`` that do, joined by a blank.
    """
    found = []
    for row in rows:
        image = _read(classifier, row)
        predict = classifier.make_predictor(image)
        flips, answer = find_flips(predict), predict([np.array]).argmax()
        shifts = [flip.shift for flip in flips]
        hue = [abs(s.hue) for s in shifts if s.hue]
        paler = [s.saturation for s in shifts if s.saturation < 1]
        palettes = [s.palette for s in shifts if s.palette != "natural"]
        found.append(
            {
                "nebula": row["nebula"],
                "label": row["label"],
                "answer": classifier.class_names[int(answer)],
                "hue": min(hue, default=np.inf),
                "saturation": max(paler, default=-1.0),
                "palettes": " ".join(palettes),
            }
        )
    return found


def make_mask(
    row: Mapping[str, Any], size: tuple[int, int]
) -> tuple[np.ndarray | None, str]:
    """Say which pixels of one of Stellarium's textures show the object.

    ``row`` is a manifest's, ``size`` the picture's height and width in px.

    Returns
    -------
    mask : ndarray of shape (height, width), bool, or None
        In the proportions of the picture, its shorter side `MASK_SIDE`; None where
        corners or size are not known.
    shape : {"outline", "circle", ""}
        What the mask is.
    """
    path = Path(row["path"])
    corners = read_corners(path.parent / TEXTURES).get(path.name)
    nebula = find(row["nebula"])
    if corners is None or nebula is None:
        return None, ""
    scale = MASK_SIDE / min(size)
    height, width = (round(length * scale) for length in size)
    place = place_by_corners(corners, (height, width))
    outlines = read_outlines(path.parent / "outlines.dat").get(nebula.name)
    if not outlines and nebula.size_arcmin is None:
        return None, ""
    mask = Image.new("1", (width, height))
    draw = ImageDraw.Draw(mask)
    if outlines:
        points = place.find_pixels(SkyCoord(outlines[-1], unit="deg"))
        draw.polygon([(float(x), float(y)) for x, y in points], fill=1)
    else:
        middle = SkyCoord(nebula.ra_deg, nebula.dec_deg, unit="deg")
        ((x, y),) = place.find_pixels(middle)
        radius = float(nebula.size_arcmin or 0) / 2 * place.px_per_arcmin
        draw.circle((x, y), radius, fill=1)
    return np.asarray(mask), "outline" if outlines else "circle"


def _read(classifier: Classifier, row: Mapping[str, Any]) -> np.ndarray:
    shown = Preprocessing(classifier.views, trim=classifier.trim)
    return shown.read(Path(row["path"]))
