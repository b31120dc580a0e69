"""From a manifest to the arrays a study works with: y, groups, accept, palettes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from nebula_utils.config import CLASS_NAMES, MIN_NEBULAE, OTHER
from nebula_utils.dataset.screening import judge_source
from nebula_utils.errors import SourceError
from nebula_utils.files import write_atomic

# Kept out of training and of every fold: the original's author's own example.
HELD_OUT = ("LDN 1622",)


@dataclass(frozen=True)
class Dataset:
    """The pictures of a study and what is known of them.

    Attributes
    ----------
    manifest : DataFrame
        One row a picture; the columns of `sources`, and ``group`` and ``palette``.
    class_names : tuple of str
        Classes that are studied, in the house order.
    left_out : dict of str to str
        Classes that are not, and why.
    held_out : DataFrame
        Pictures of the nebulae that no head is fitted on.
    """

    manifest: pd.DataFrame
    class_names: tuple[str, ...]
    left_out: dict[str, str]
    held_out: pd.DataFrame

    @property
    def y(self) -> np.ndarray:
        """Index of each picture's class, shape (n_images,), int."""
        index = {name: i for i, name in enumerate(self.class_names)}
        return self.manifest["label"].map(index).to_numpy(int)

    @property
    def groups(self) -> np.ndarray:
        """The nebula of each picture, shape (n_images,), str."""
        return self.manifest["group"].to_numpy(str)

    @property
    def palettes(self) -> np.ndarray:
        """The palette of each picture, shape (n_images,), str."""
        return self.manifest["palette"].to_numpy(str)

    @property
    def accept(self) -> np.ndarray:
        """Which answers count as right, shape (n_images, n_classes), bool."""
        accepted = self.manifest["accept"].str.split("|")
        return np.array(
            [[name in names for name in self.class_names] for names in accepted]
        )

    @property
    def is_ambiguous(self) -> np.ndarray:
        """Whether a picture has a second accepted type, shape (n_images,), bool."""
        return self.manifest["accept"].str.contains("|", regex=False).to_numpy(bool)

    def ungroup(self) -> "Dataset":
        """Return the dataset with each picture a nebula of its own.

        A split of it is a random split by picture, which lets one nebula stand on
        both sides: only good to show how that flatters.
        """
        alone = self.manifest.assign(group=self.manifest["image_id"])
        return replace(self, manifest=alone)

    def describe(self) -> dict:
        """Return the ``data`` part of metrics.json."""
        counts = self.manifest.groupby("label")
        return {
            "source": "+".join(sorted(self.manifest["source"].unique())),
            "n_images": len(self.manifest),
            "n_nebulae": int(self.manifest["group"].nunique()),
            "classes": {
                name: {
                    "images": len(counts.get_group(name)),
                    "nebulae": int(counts.get_group(name)["group"].nunique()),
                }
                for name in self.class_names
            },
            "left_out": self.left_out,
        }


def load_dataset(
    source: str = "stellarium",
    photos_dir: Path | str | None = None,
    classes: Sequence[str] = CLASS_NAMES,
    min_nebulae: int = MIN_NEBULAE,
    listing: Path | None = None,
    use_flags: bool = True,
) -> Dataset:
    """Get a source's pictures, leave out the unusable ones, and group by nebula.

    Parameters
    ----------
    source : str
        ``"stellarium"``, ``"photos"``, ``"hips"``, or several joined by ``"+"``.
    photos_dir : Path or str, optional
        Folder of the ``photos`` source.
    classes : sequence of str
        Classes to study, any of `config.CLASS_NAMES`.
    min_nebulae : int
        A type of nebula with fewer nebulae is left out.
    listing : Path, optional
        Where the judged manifest is written as CSV.
    use_flags : bool
        Whether pictures that their source flags as doubtful are left out.

    Returns
    -------
    Dataset

    Raises
    ------
    SourceError
        If the source can't be had, a class name is unknown, or fewer than two classes
        are left.
    """
    kept = judge_source(source, photos_dir, use_flags).kept
    if listing is not None:
        with write_atomic(listing) as temporary:
            kept.drop(columns="path").to_csv(temporary, index=False)
    return make_dataset(kept, classes, min_nebulae)


def make_dataset(
    manifest: pd.DataFrame,
    classes: Sequence[str] = CLASS_NAMES,
    min_nebulae: int = MIN_NEBULAE,
    held_out: Sequence[str] = HELD_OUT,
) -> Dataset:
    """Choose the classes and hold nebulae out.

    Parameters
    ----------
    manifest : DataFrame
        With ``group`` and ``palette``, as `load_dataset` makes it.
    classes : sequence of str
        Classes to study.
    min_nebulae : int
        A type of nebula with fewer nebulae is left out, by name and reason.
    held_out : sequence of str
        Nebulae that no head may be fitted on.

    Returns
    -------
    Dataset

    Raises
    ------
    SourceError
        If a class name is unknown or fewer than two classes are left.
    """
    unknown = sorted(set(classes) - set(CLASS_NAMES))
    if unknown:
        raise SourceError(f"unknown class {unknown}: choose from {list(CLASS_NAMES)}")
    hidden = manifest["nebula"].isin(held_out)
    rest = manifest[~hidden]
    nebulae = rest.groupby("label")["group"].nunique()
    left_out = {}
    for name in classes:
        n = int(nebulae.get(name, 0))
        if n < (1 if name == OTHER else min_nebulae):
            left_out[name] = f"only {n} nebulae with pictures, fewer than {min_nebulae}"
    names = tuple(n for n in CLASS_NAMES if n in classes and n not in left_out)
    if len(names) < 2:
        raise SourceError(
            f"fewer than two classes are left ({left_out}): add pictures or lower "
            "MIN_NEBULAE"
        )
    return Dataset(
        rest[rest["label"].isin(names)].reset_index(drop=True),
        names,
        left_out,
        manifest[hidden].reset_index(drop=True),
    )
