"""Commands that get, compute and serve: what they print and hand on."""

import json

import pandas as pd
import pytest

from nebula_utils.workflow import cli, commands


def test_backbone_prints_its_folder_alone(fake_module, capsys, tmp_path):
    """So that $(nebula backbone) works in a script."""
    fake_module("features.backbone", prepare_backbone=lambda name: tmp_path / name)
    assert cli.main(["backbone", "net"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'net'}\n"


def test_extract_lists_what_it_left_out(fake_module, capsys, tmp_path):
    """On stderr, with status 1."""
    calls = []

    def extract(*given):
        calls.append(given)
        return [("bad.jpg", "truncated")]

    fake_module("features.survey", extract_to_npz=extract)
    out = tmp_path / "f.npz"
    words = ["extract", str(tmp_path), "--out", str(out), "--engine", "fast"]
    assert cli.main(words) == 1
    shown = capsys.readouterr()
    assert shown.out == f"{out}\n"
    assert shown.err == "left out: bad.jpg: truncated\n"
    assert calls == [(tmp_path, out, "mobilenet_v1_100_224", "fast", None, None, None)]


def test_extract_of_nothing_is_status_2(capsys, tmp_path):
    """The folder's name is in the message."""
    words = ["extract", str(tmp_path / "gone"), "--out", "f.npz"]
    assert cli.main(words) == 2
    assert "gone does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["fetch"], ["fetch", "stellarium"]])
def test_fetch_takes_stellarium_by_default(words, fake_module, capsys, tmp_path):
    """And prints the folder."""
    fake_module("dataset.stellarium", fetch_textures=lambda: tmp_path)
    assert cli.main(words) == 0
    assert capsys.readouterr().out == f"{tmp_path}\n"


def test_fetch_photos_counts_pictures_and_nebulae(fake_module, capsys):
    """A quick check of one's own class folders."""
    manifest = pd.DataFrame({"label": ["dark"] * 3, "nebula": ["B 33", "B 33", "B 68"]})
    fake_module("dataset.photos", load_photos=lambda folder: manifest)
    assert cli.main(["fetch", "photos", "mine"]) == 0
    assert capsys.readouterr().out == "dark: 3 images of 2 nebulae\n"


def test_fetch_photos_of_nothing_is_status_2(fake_module, capsys):
    """An empty folder is no success."""
    empty = pd.DataFrame({"label": [], "nebula": []})
    fake_module("dataset.photos", load_photos=lambda folder: empty)
    assert cli.main(["fetch", "photos", "mine"]) == 2


def test_fetch_hips_hands_its_options_on(fake_module):
    """The module defines them; its status is ours."""
    fake_module(
        "dataset.hips",
        add_arguments=lambda parser: parser.add_argument("--dry-run", type=int),
        run=lambda args: args.dry_run,
    )
    assert cli.main(["fetch", "hips", "--dry-run", "1"]) == 1


def test_app_without_a_model_says_what_to_do(monkeypatch, capsys, tmp_path):
    """Rather than serving a page that fails."""
    (tmp_path / "06_classifier.ipynb").touch()
    monkeypatch.setattr(commands.config, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(commands.config, "MODEL", tmp_path)
    assert cli.main(["app"]) == 2
    assert "make reproduce" in capsys.readouterr().err


def test_run_writes_provenance_and_prints_the_report(
    monkeypatch, fake_module, capsys, tmp_path
):
    """What is known of notebooks that did not run is kept."""
    from nebula_utils.workflow import pipeline

    step = pipeline.Step(tmp_path / "05_x.ipynb", {}, {"SEED": 3, "BACKBONE": "net"})
    run = pipeline.Run("05_x", 1.25, skipped=False)
    monkeypatch.setattr(pipeline, "plan_run", lambda *_: [step])
    monkeypatch.setattr(pipeline, "run_steps", lambda *_, force: [run])
    fake_module(
        "features.backbone",
        resolve_backbone=lambda name: tmp_path / name,
        compute_weights_sha256=lambda folder: f"hash of {folder.name}",
    )
    score = {"value": 0.71, "low": 0.66, "high": 0.76, "n_nebulae": 9}
    heads = {"robust": {"balanced_accuracy": score}}
    (tmp_path / "metrics.json").write_text(json.dumps({"heads": heads}))
    earlier = {"parameters": {"04_y": {"K": 5}}, "wall_seconds": {"04_y": 2.0}}
    (tmp_path / "provenance.json").write_text(json.dumps(earlier))
    assert cli.main(["run", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"report: {tmp_path / 'runs'}" in shown
    assert "0.71 [0.66, 0.76]" in shown
    written = json.loads((tmp_path / "provenance.json").read_text("utf-8"))
    assert written["wall_seconds"] == {"04_y": 2.0, "05_x": 1.25}
    assert written["parameters"]["04_y"] == {"K": 5}
    assert written["seeds"] == {"05_x.SEED": 3}
    # Without the notebook that writes it, metrics.json is another run's.
    step = pipeline.Step(tmp_path / "04_x.ipynb", {}, {"BACKBONE": "net"})
    assert cli.main(["run", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "0.71" not in shown and "notebook 05" in shown
    assert written["weights_sha256"] == {"net": "hash of net"}


def test_slow_arguments_are_only_listed_when_asked_for(fake_module):
    """`nebula classify` need not import what `fetch hips` takes."""
    fake_module("dataset.hips")  # without add_arguments
    cli.build_parser(["classify", "a.jpg"])
    with pytest.raises(AttributeError):
        cli.build_parser(["fetch", "hips"])
