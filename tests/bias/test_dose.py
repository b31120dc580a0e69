"""The causal test with dust: only the dust changes, and nothing else."""

import numpy as np
import pandas as pd
import pytest

from nebula_utils.bias import dose
from nebula_utils.bias.analysis import Answers
from nebula_utils.dataset.manifest import make_dataset
from nebula_utils.features.views import View
from nebula_utils.training import study


@pytest.fixture
def answers(manifest: pd.DataFrame, fake_backbone, tmp_cache) -> Answers:
    """Give a plain study of the synthetic pictures."""
    judged = manifest.assign(group=manifest["nebula"], palette="mixed")
    dataset = make_dataset(judged, min_nebulae=3)
    strategy = study.Strategy("plain", (View(64),), (View(64),))
    embeddings = study.embed_dataset(dataset, fake_backbone, strategy, ("grey",))
    return Answers(dataset, strategy, embeddings, {})


def test_only_the_dust_changes():
    """Without dust a scene is the same picture, with more it gets darker."""
    scene = dose._make_scene(1, (0.0, 2.0, 8.0))
    again = dose._make_scene(1, (0.0, 4.0))
    assert np.array_equal(scene[0], again[0])
    means = [picture.mean() for picture in scene]
    assert means[0] > means[1] > means[2]


def test_response_has_a_row_for_every_question(answers, fake_backbone):
    """Each head is asked about each scene, dose and colour; P(dark) is one."""
    table = dose.measure_dose_response(
        {"plain": answers}, fake_backbone, n_scenes=3, a_v=(0.0, 4.0)
    )
    assert len(table) == 3 * 2 * 2
    assert table["p_dark"].between(0, 1).all()
    assert set(table["colour"]) == {"as it is", "grey"}
