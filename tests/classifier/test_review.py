"""Label review: nobody's other rows are touched."""

from pathlib import Path

import pandas as pd
import pytest

from nebula_utils.classifier.review import review_labels, write_accepted
from nebula_utils.dataset.manifest import Dataset, make_dataset
from nebula_utils.dataset.photos import load_photos


@pytest.fixture
def dataset(manifest: pd.DataFrame) -> Dataset:
    """Give the synthetic study."""
    rows = manifest.assign(group=manifest["nebula"], palette="mixed")
    return make_dataset(rows, min_nebulae=3)


def test_accepted_types_are_what_the_source_reads_back(
    dataset: Dataset, tmp_path: Path
) -> None:
    """A changed and a new row; other rows and unknown columns stay."""
    from shutil import copyfile

    rows = dataset.manifest.iloc[[0, 2]].copy()
    for i, name in ((0, "a.png"), (2, "b.png")):
        copyfile(rows.loc[i, "path"], tmp_path / name)
        rows.loc[i, "path"] = str(tmp_path / name)
    copyfile(tmp_path / "a.png", tmp_path / "c.png")
    table = tmp_path / "manifest.csv"
    table.write_text("file,class,mine\nc.png,planetary,x\n./a.png,dark,y\n")
    write_accepted(table, rows.assign(accept="dark|emission"))
    found = pd.read_csv(table, keep_default_na=False).set_index("file")
    assert found.loc["c.png", ["class", "mine", "accept"]].tolist() == [
        "planetary",
        "x",
        "",
    ]
    assert found.loc["./a.png", "mine"] == "y" and len(found) == 3
    read = load_photos(tmp_path).set_index("image_id")["accept"]
    assert sorted(read) == ["dark|emission", "dark|emission", "planetary"]


def test_no_picture_is_lost_by_a_first_review(dataset: Dataset, tmp_path: Path) -> None:
    """Class folders without a manifest keep all their pictures when one is reviewed."""
    from shutil import copyfile

    (tmp_path / "dark").mkdir()
    for name in ("a-1.png", "b-1.png"):
        copyfile(dataset.manifest["path"].iloc[0], tmp_path / "dark" / name)
    before = load_photos(tmp_path)
    one = before.head(1).assign(accept="dark|emission")
    write_accepted(tmp_path / "manifest.csv", one)
    after = load_photos(tmp_path)
    assert list(after["image_id"]) == list(before["image_id"])
    assert list(after["accept"]) == ["dark|emission", "dark"]


def test_the_table_writes_only_what_was_changed(
    dataset: Dataset, tmp_path: Path
) -> None:
    """Ticking a second type for one of two pictures writes one row."""
    rows = dataset.manifest.iloc[:2].assign(answer="emission")
    box = review_labels(rows, tmp_path / "manifest.csv")
    *lines, button, said = box.children
    second = lines[1].children[1].children[1]
    assert second.description == "emission" and not second.value
    second.value = True
    button.click()
    found = pd.read_csv(tmp_path / "manifest.csv")
    assert found["accept"].tolist() == ["dark|emission"] and "1 rows" in said.value
