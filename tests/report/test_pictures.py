"""Which photographs are shown, and what is drawn into them."""

import types
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from nebula_utils.report import pictures


def test_outcomes_are_right_wrong_and_unsure() -> None:
    """One answer of each kind is chosen, and none that may not be shown."""
    labels = ["dark", "dark", "emission", "emission", "other"]
    licences = ["CC0", "CC0", "CC BY 4.0", "all rights reserved", "CC0"]
    table = pd.DataFrame(
        {"label": labels, "licence": licences, "nebula": list("abcde")}
    )
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.45, 0.55], [0.01, 0.99], [1, 0]])
    data = types.SimpleNamespace(
        manifest=table, accept=np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 0]], bool)
    )
    study = types.SimpleNamespace(
        dataset=data,
        is_nebula=np.array(labels) != "other",
        ask=lambda rows: ({"as_is": proba[rows]}, ("dark", "emission")),
    )
    assert list(pictures.choose_outcomes(study)["nebula"]) == ["a", "b", "c"]


def test_a_frame_without_a_place_says_so(tmp_path: Path) -> None:
    """The picture is shown all the same."""
    Image.linear_gradient("L").save(tmp_path / "sky.png")
    ax = pictures.plot_frame(tmp_path / "sky.png", "somebody, CC0")
    assert "does not say where" in ax.get_title(loc="left")
    assert "somebody, CC0" in [text.get_text() for text in ax.texts]
