"""Build the site: README, notebooks as committed, guides, reference, cards.

    python scripts/build_docs.py [FOLDER]

Sphinx wants its sources in one folder, so what a reader of the repository finds there
is copied into one, at the same places, so that links between the pages hold.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from nebula_utils.config import REPORTS, REPOSITORY

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CITATION.cff",
    "LICENSE",
    "docs",
    "notebooks",
    "data",
    "reports/figures",
    "reports/metrics.json",
    "reports/model/MODEL_CARD.md",
    "tests/metrics_tolerance.py",
)
PACKAGE = REPOSITORY / "nebula_utils"
MODULE = """\
{title}

.. automodule:: {name}
   :members:
"""


def collect_pages(source: Path) -> None:
    """Copy the pages and what they show or link to."""
    reports = [f"reports/{path.name}" for path in REPORTS.glob("*.md")]
    for name in [*PAGES, *reports]:
        place = source / name
        place.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, place)
    readme = source / "README.md"  # its link to the code leads to the reference
    text = readme.read_text("utf-8").replace("](nebula_utils)", "](docs/api/index.rst)")
    readme.write_text(text, encoding="utf-8")


def write_reference(folder: Path) -> None:
    """Write a page for each room: what it is for, then its modules."""
    folder.mkdir(parents=True)
    rooms = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    for room in rooms:
        parts = [MODULE.format(title=underline(room, "="), name=f"nebula_utils.{room}")]
        for path in sorted((PACKAGE / room).glob("[!_]*.py")):
            name = f"nebula_utils.{room}.{path.stem}"
            parts.append(MODULE.format(title=underline(path.stem, "-"), name=name))
        (folder / f"{room}.rst").write_text("\n".join(parts), encoding="utf-8")
    ground = [path.stem for path in sorted(PACKAGE.glob("[!_]*.py"))]
    parts = [underline("Ground floor", "=")]
    for name in ground:
        title = underline(name, "-")
        parts.append(MODULE.format(title=title, name=f"nebula_utils.{name}"))
    (folder / "ground.rst").write_text("\n".join(parts), encoding="utf-8")
    lines = [underline("Reference", "="), "", ".. toctree::", ""]
    lines += [f"   {room}" for room in ["ground", *rooms]]
    (folder / "index.rst").write_text("\n".join(lines) + "\n", encoding="utf-8")


def underline(title: str, sign: str) -> str:
    """Return a heading in reStructuredText."""
    return f"{title}\n{sign * len(title)}\n"


def main() -> int:
    """Build the site into the folder; fail on any warning."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else REPOSITORY / "build" / "docs")
    source = out / "source"
    shutil.rmtree(source, ignore_errors=True)
    collect_pages(source)
    write_reference(source / "docs" / "api")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
    command += ["-c", str(REPOSITORY / "docs"), str(source), str(out / "html")]
    status = subprocess.run(command).returncode
    if status == 0:
        print(f"the site: {out / 'html' / 'docs' / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
