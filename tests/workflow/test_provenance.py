"""A run's numbers can be traced to code, packages, data and parameters."""

import json
import subprocess

from nebula_utils.workflow import provenance


def _git(folder, *words):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *identity, "-C", str(folder), *words], check=True)


def test_git_tells_revision_and_changes(tmp_path):
    """What a run itself rewrites in reports/ does not count as a change."""
    _git(tmp_path, "init", "-q")
    (tmp_path / "reports").mkdir()
    for name in ("code.py", "reports/metrics.json"):
        (tmp_path / name).write_text("1")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-qm", "x")
    (tmp_path / "reports" / "metrics.json").write_text("2")
    state = provenance.describe_git(tmp_path)
    assert len(state["revision"]) == 40 and state["dirty"] is False
    (tmp_path / "code.py").write_text("2")
    assert provenance.describe_git(tmp_path)["dirty"] is True


def test_outside_git_nothing_is_claimed(tmp_path):
    """A downloaded archive has no revision."""
    state = provenance.describe_git(tmp_path)
    assert state == {"revision": None, "dirty": None}


def test_provenance_is_written_as_json(tmp_path, monkeypatch):
    """With seeds picked out, hashes of the data, versions; earlier notebooks stay."""
    (tmp_path / "a.csv").write_bytes(b"a")
    monkeypatch.setattr(provenance.config, "DATA", tmp_path)
    out = tmp_path / "out"
    first = {"03_features": {"SEED": 3}}
    provenance.write_provenance(out, first, {"03_features": 1.0}, {})
    parameters = {"04_training": {"RANDOM_STATE": 0, "SEEDLING": 1, "K": 5}}
    provenance.write_provenance(out, parameters, {"04_training": 1.234}, {"n": "0"})
    read = json.loads((out / "provenance.json").read_text("utf-8"))
    assert read["parameters"] == first | parameters
    assert read["seeds"] == {"03_features.SEED": 3, "04_training.RANDOM_STATE": 0}
    assert read["wall_seconds"] == {"03_features": 1.0, "04_training": 1.23}
    digest = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert read["data_sha256"] == {"a.csv": digest}
    assert read["weights_sha256"] == {"n": "0"}
    assert "tensorflow-hub" in read["packages"]


def test_what_is_told_already_is_not_written_again(tmp_path):
    """A run that keeps everything leaves the date of the numbers as it is."""
    path = tmp_path / "provenance.json"
    provenance.write_provenance(tmp_path, {"01_a": {}}, {"01_a": 1.0}, {})
    before = path.read_bytes()
    provenance.write_provenance(tmp_path, {"01_a": {}}, {"01_a": 1.001}, {})
    assert path.read_bytes() == before
    provenance.write_provenance(tmp_path, {"01_a": {}}, {"01_a": 2.0}, {})
    assert path.read_bytes() != before
