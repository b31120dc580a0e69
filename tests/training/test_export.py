"""The export is the study's head: what is served answers as what was scored."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_classifier import make_tiny_backbone

from nebula_utils.classifier.classifier import load_classifier
from nebula_utils.dataset.manifest import make_dataset
from nebula_utils.features.views import View
from nebula_utils.files import unseal
from nebula_utils.training import calibration, study
from nebula_utils.training.export import export_classifier

VIEWS = tuple(View(64, colour=name) for name in ("as_is", "grey"))
# The sixth bit of a picture may differ between two ways to run a network.
SAME = 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("certainty", ["measured", "unknown"])
def test_what_is_served_answers_as_what_was_scored(
    manifest: pd.DataFrame, tmp_path: Path, tmp_cache, monkeypatch, certainty: str
) -> None:
    """One picture through the export and through the study: one answer."""
    known = tmp_path / "certainty.json"
    measured = {
        "threshold": calibration.SURE,
        "coverage": 0.5,
        "accuracy": 0.9,
        "measured_on": "pictures by other photographers",
        "sets": {"strangers": {"share": 0.5}},
    }
    if certainty == "measured":
        known.write_text(json.dumps(measured))
    monkeypatch.setattr(calibration, "CERTAINTY", known)
    dataset = make_dataset(
        manifest.assign(group=manifest["nebula"], palette="red"), min_nebulae=3
    )
    small = replace(study.ROBUST, views=VIEWS, crops=1, framed=1, dusty=1)
    backbone = make_tiny_backbone(tmp_path / "network")
    made = study.run_study(
        dataset, backbone, small, (4, 1, 0), ("grey",), (), random_split=False
    )
    scored = made.score()
    difference = export_classifier(
        tmp_path / "model", made, scored, {"data": dataset.describe()}
    )
    assert difference == 0
    about = unseal(json.loads((tmp_path / "model/model.json").read_text()))
    if certainty == "measured":
        assert about["calibration"]["sure"]["accuracy"] == 0.9
        assert about["calibration"]["measured"] == measured["sets"]
    else:
        expected = scored["sure"]["share"]["value"]
        assert about["calibration"]["sure"]["coverage"] == expected
    assert about["metrics"]["ece"] == scored["ece"]
    assert not list((tmp_path / "model").glob("*.pkl"))
    loaded = load_classifier(tmp_path / "model")
    answers = made.predict(dataset.manifest.iloc[:3])
    for row in range(3):
        result = loaded.classify(Path(dataset.manifest["path"].iloc[row]))
        for name, of in (
            ("as_is", result.probabilities),
            *result.counterfactuals.items(),
        ):
            if name in answers:
                found = [of[c] for c in dataset.class_names]
                np.testing.assert_allclose(found, answers[name][row], atol=SAME)
    assert len(result.neighbours) == 4
    assert set(loaded.examples["label"]) == set(dataset.class_names)
