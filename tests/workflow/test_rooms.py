"""The rooms: their names, what each offers, and the map that tells of them."""

import importlib
import re
import subprocess
import sys

import pytest

from nebula_utils.config import REPOSITORY
from nebula_utils.files import PACKAGE

ORDER = [
    "images",
    "counterfactuals",
    "catalogue",
    "dataset",
    "features",
    "training",
    "bias",
    "report",
    "classifier",
    "workflow",
]
CONTRIBUTING = REPOSITORY / "CONTRIBUTING.md"


def read_first_line(room):
    """Return the first line of a room's docstring."""
    doc = importlib.import_module(f"nebula_utils.{room}").__doc__
    return doc.splitlines()[0]


def run_python(code):
    """Run code in a process of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_rooms_are_those_of_the_map():
    """A new folder must be put into the order, and into the map."""
    assert sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")) == sorted(
        ORDER
    )


def test_the_map_has_each_rooms_own_words():
    """To renew it: copy what the failing comparison shows."""
    rows = [f"| `{room}/` | {read_first_line(room)} |" for room in ORDER]
    text = "\n".join(["| room | what it is for |", "|---|---|", *rows])
    found = re.search(
        r"<!-- rooms:begin -->\n(.*?)\n<!-- rooms:end -->",
        CONTRIBUTING.read_text("utf-8"),
        re.S,
    )
    assert found and found[1] == text


def test_modules_that_the_texts_name_exist():
    """CONTRIBUTING once named a module that was not there."""
    named = re.findall(
        r"`(\w+)/(\w+)`", CONTRIBUTING.read_text("utf-8") + "`workflow/cli`"
    )
    named = [(room, module) for room, module in named if room in ORDER]
    gone = [name for name in named if not (PACKAGE / f"{'/'.join(name)}.py").is_file()]
    assert len(named) > 10 and gone == []


@pytest.mark.parametrize("room", ORDER)
def test_a_room_has_what_it_offers(room):
    """Names are loaded when they are asked for; a stale one would fail only then."""
    module = importlib.import_module(f"nebula_utils.{room}")
    for name in getattr(module, "__all__", []):
        assert getattr(module, name) is not None


def test_a_room_loads_nothing_by_itself():
    """`from nebula_utils import training` takes no second."""
    rooms = ", ".join(ORDER)
    code = f"import sys; from nebula_utils import {rooms}\nprint(*sys.modules)"
    heavy = {"tensorflow", "pandas", "sklearn", "matplotlib", "scipy", "astropy"}
    assert heavy & set(run_python(code).split()) == set()


def test_the_classifier_loads_without_heavy_packages():
    """A page that answers needs neither TensorFlow nor tables."""
    names = [path.stem for path in (PACKAGE / "classifier").glob("[!_]*.py")]
    code = "import sys\n"
    code += "".join(f"import nebula_utils.classifier.{name}\n" for name in names)
    heavy = {"tensorflow", "pandas", "sklearn", "matplotlib"}
    assert heavy & set(run_python(code + "print(*sys.modules)").split()) == set()


def test_importing_changes_neither_umask_nor_warnings():
    """Both belong to the program that imports us."""
    code = """
import importlib, os, pkgutil, sys, warnings
before, callers = os.umask(0o027), set()
def note(*args, **options):  # other packages do as they like
    callers.add(sys._getframe(1).f_globals["__name__"])
warnings.filterwarnings = warnings.simplefilter = note
import nebula_utils
for found in pkgutil.walk_packages(nebula_utils.__path__, "nebula_utils."):
    if found.name != "nebula_utils.__main__":
        importlib.import_module(found.name)
ours = [name for name in callers if name.startswith("nebula_utils")]
print(oct(os.umask(before)), ours)
"""
    assert run_python(code).endswith("0o27 []")
