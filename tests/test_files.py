"""The one cache: its key is everything that goes in, and the code that makes it."""

import dataclasses
import os
import sys
import threading
import types

import numpy as np
import pandas as pd
import pytest

from nebula_utils import files
from nebula_utils.dataset import screening
from nebula_utils.errors import CacheError


@dataclasses.dataclass
class Setting:
    """A setting with one field."""

    size: int = 1


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep each test's results apart."""
    monkeypatch.setenv("NEBULA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


DIFFERENT = [
    (1,),
    (1.0,),
    ("1",),
    (True,),
    (None,),
    ((1, 2), 3),
    (1, (2, 3)),
    (np.array([1, 2]),),
    (np.array([[1, 2]]),),
    (np.array([1, 2], np.int32),),
    ({"a": 1},),
    ({"a": 2},),
    (Setting(1),),
    (Setting(2),),
    (pd.DataFrame({"a": [1, 2]}),),
    (pd.DataFrame({"a": [1, 3]}),),
    (np.array(["dark", "other"]),),
    (np.array(["dark", "othe", "r"]),),
    (files,),
    (screening,),
]


def test_different_parts_have_different_keys():
    """Neither a type, a shape, nor where one part ends is lost."""
    keys = [files.make_key(*parts) for parts in DIFFERENT]
    assert len(set(keys)) == len(DIFFERENT)
    assert keys == [files.make_key(*parts) for parts in DIFFERENT]


def test_order_of_a_mapping_does_not_count():
    """Two equal settings are one."""
    assert files.make_key({"a": 1, "b": 2}) == files.make_key({"b": 2, "a": 1})


def test_unknown_parts_are_refused():
    """Rather than a key that leaves out what their text does not say."""
    with pytest.raises(TypeError, match="can't tell what decides"):
        files.make_key(object())


def test_a_file_counts_by_its_content(tmp_path):
    """A renamed copy is the same input, an edited file is another."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("x")
    two.write_text("x")
    assert files.make_key(one) == files.make_key(two)
    two.write_text("y")
    assert files.make_key(one) != files.make_key(two)


def test_code_counts_with_all_that_it_imports(tmp_path, monkeypatch):
    """Also inside functions, and through others: no list that a person must keep."""
    package = tmp_path / "pack"
    (package / "room").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "room" / "__init__.py").touch()
    (package / "first.py").write_text("def f():\n    from pack.room import second\n")
    (package / "room" / "second.py").write_text("from pack.third import x\n")
    (package / "third.py").write_text("x = 1\n")
    monkeypatch.setattr(files, "PACKAGE", package)
    module = types.ModuleType("pack.first")
    module.__file__ = str(package / "first.py")

    def key():
        files._hash_code.cache_clear()
        return files.make_key(module)

    before = key()
    assert key() == before
    (package / "third.py").write_text("x = 2\n")
    assert key() != before
    files._hash_code.cache_clear()


def test_screening_depends_on_the_catalogue():
    """Groups go by its places, so a mended name must not meet a stale group."""
    ours, others = files.list_code(files.PACKAGE / "dataset" / "screening.py")
    assert {"table", "names", "reading"} <= {path.stem for path in ours}
    assert "numpy" in others


def test_computed_and_read_are_equal(cache):
    """The second time nothing is computed, and not a bit differs."""
    calls = []

    def compute():
        calls.append(1)
        return {"x": np.linspace(0, 1, 7, dtype=np.float32), "n": np.array(["a", "bc"])}

    one = files.load_or_compute("made", (1, "a"), compute)
    two = files.load_or_compute("made", (1, "a"), compute)
    files.load_or_compute("made", (2, "a"), compute)
    assert len(calls) == 2
    assert all(one[k].tobytes() == two[k].tobytes() for k in one)


def test_damage_is_noticed_and_mended(cache, caplog):
    """A flipped byte costs time, never a wrong result."""
    x = np.arange(1000.0)
    files.load_or_compute("made", (1,), lambda: {"x": x})
    (path,) = cache.rglob("*.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = files.load_or_compute("made", (1,), lambda: {"x": x})
    np.testing.assert_array_equal(found["x"], x)
    assert "damaged" in caplog.text


def test_an_interrupted_computation_leaves_nothing(cache):
    """So that the next run can't read half of it."""
    with pytest.raises(KeyboardInterrupt):
        files.load_or_compute("made", (1,), _interrupt)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def _interrupt():
    raise KeyboardInterrupt


def test_written_files_have_the_mode_that_open_gives(tmp_path):
    """Others may read what this user's umask lets them, and the umask stays."""
    mask = os.umask(0o027)
    try:
        with files.write_atomic(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")
        assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640
    finally:
        assert os.umask(mask) == 0o027


@pytest.mark.skipif(sys.platform == "win32", reason="fork-free check of two holders")
def test_a_lock_keeps_a_second_holder_waiting(tmp_path):
    """The second comes in when the first has left, not before."""
    order = []
    inside = threading.Event()

    def second():
        inside.wait(5)
        with files.hold_lock(tmp_path / "place"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with files.hold_lock(tmp_path / "place"):
        inside.set()
        thread.join(0.3)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_a_lock_in_a_place_that_can_not_be_made_says_so(tmp_path):
    """A message for people, not a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(CacheError), files.hold_lock(tmp_path / "file" / "place"):
        raise AssertionError("must not come in")
