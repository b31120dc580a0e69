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


def test_data_hashes_follow_the_content(tmp_path):
    """The hash of one byte, by file name."""
    (tmp_path / "a.csv").write_bytes(b"a")
    (tmp_path / "notes.md").write_bytes(b"b")
    digest = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert provenance.hash_data(tmp_path) == {"a.csv": digest}


def test_provenance_is_written_as_json(tmp_path):
    """With seeds picked out of the parameters, and package versions."""
    parameters = {"04_training": {"RANDOM_STATE": 0, "SEEDLING": 1, "K": 5}}
    seconds = {"04_training": 1.234}
    provenance.write_provenance(tmp_path, parameters, seconds, {"n": "0"})
    assert provenance.is_told(tmp_path, seconds)
    assert not provenance.is_told(tmp_path, {"04_training": 1.3})
    read = json.loads((tmp_path / "provenance.json").read_text("utf-8"))
    assert read["parameters"] == parameters
    assert read["seeds"] == {"04_training.RANDOM_STATE": 0}
    assert read["wall_seconds"] == {"04_training": 1.23}
    assert "tensorflow-hub" in read["packages"]
