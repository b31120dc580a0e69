"""Label review: nobody's other rows are touched."""

from pathlib import Path
from shutil import copyfile, copytree

import pandas as pd
import pytest
from PIL import Image

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


def test_saving_loses_no_picture_of_class_folders(
    synthetic_folder: Path, tmp_path: Path
) -> None:
    """Ticking a second type for one of two pictures changes that one; all stay."""
    folder = tmp_path / "photos"
    copytree(synthetic_folder, folder)
    before = load_photos(folder)
    rows = before[before["label"].isin(["dark", "other"])].iloc[[0, -1]]
    box = review_labels(rows.assign(answer="emission"), folder / "manifest.csv")
    *lines, button, said = box.children
    second = lines[1].children[1].children[1]
    assert second.description == "emission" and not second.value
    button.click()
    assert not (folder / "manifest.csv").exists() and "0 rows" in said.value
    second.value = True
    button.click()
    assert "1 rows" in said.value
    expected = before.set_index("image_id")
    expected.loc[rows["image_id"].iloc[1], "accept"] = "other|emission"
    after = load_photos(folder).set_index("image_id").loc[expected.index]
    pd.testing.assert_frame_equal(after, expected)


def test_pictures_of_another_source_are_refused(
    dataset: Dataset, tmp_path: Path
) -> None:
    """A row outside the folder would make the whole manifest unreadable."""
    rows = dataset.manifest.iloc[:1].assign(answer="emission")
    box = review_labels(rows, tmp_path / "manifest.csv")
    line, button, said = box.children
    line.children[1].children[1].value = True
    button.click()
    assert "not in" in said.value and not (tmp_path / "manifest.csv").exists()


def test_a_first_manifest_lists_what_the_folders_did(tmp_path: Path) -> None:
    """No hidden file, none of another folder; what `other` is of stays known."""
    picture = Image.effect_noise((40, 40), 60).convert("RGB")
    for name in ("galaxies/a.png", "galaxies/._a.png", "my notes/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture.save(tmp_path / name)
    before = load_photos(tmp_path)
    rows = before.assign(accept="other|emission")
    write_accepted(tmp_path / "manifest.csv", rows)
    pd.testing.assert_frame_equal(load_photos(tmp_path), rows)
