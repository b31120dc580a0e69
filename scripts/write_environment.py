"""Bring environment.yml's pins up to requirements.lock (`make lock` calls this).

The comments of what we need ourselves are written by hand and kept; those of what
these need in turn are taken from the lock.
"""

import re
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PIN = re.compile(r"^([a-z0-9.-]+)==([^ \\]+)(?: ; (.*?))? \\$")
LINE = re.compile(r'^ +- "?([a-z0-9.-]+)==([^" ]+)(?: ; ([^"]*))?"? +# (.+)$')
HEADER = """\
# For conda users; everybody else: `make` builds .venv from requirements.lock.
#
#   PIP_NO_DEPS=1 conda env create -f environment.yml
#   conda activate nebula && pip install --no-deps --no-build-isolation -e .
#
# Without PIP_NO_DEPS=1 pip would follow tf-keras to a second TensorFlow, a 572 MB
# CUDA build beside tensorflow-cpu. So all pins are here, those of requirements.lock;
# `make lock` renews the versions and a test compares them.
name: nebula
channels:
  - conda-forge
dependencies:
  - python=3.11  # what the lock was resolved for; 3.12 works too
  - pip  # installs all that follows
  - pip:
      # What this project imports or runs, and why.
"""
MIDDLE = "      # What these need in turn.\n"


def normalise(name: str) -> str:
    """Return a package name as the lock spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(text: str) -> list[tuple[str, str, str, list[str]]]:
    """Return (name, version, marker, who needs it) of each pin of a lock."""
    pins: list[tuple[str, str, str, list[str]]] = []
    for line in text.splitlines():
        if match := PIN.match(line):
            name, version, marker = match.groups()
            pins.append((name, version, marker or "", []))
        elif line.startswith("    #") and pins:
            parent = line.removeprefix("    #").replace("via", "").strip()
            pins[-1][3].extend([parent] if parent else [])
    return pins


def read_reasons(text: str) -> dict[str, str]:
    """Return the comment of each pin of an environment.yml."""
    return {m[1]: m[4] for line in text.splitlines() if (m := LINE.match(line))}


def list_direct(project: dict) -> set[str]:
    """Return the names that pyproject.toml itself asks for."""
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = [item for group in groups for item in group]
    return {normalise(re.split(r"[<>=!~; \[]", item)[0]) for item in wanted}


def render(pins: list, direct: set[str], reasons: dict[str, str]) -> str:
    """Return the text of environment.yml."""
    ours, theirs = "", ""
    for name, version, marker, parents in pins:
        pin = f'"{name}=={version} ; {marker}"' if marker else f"{name}=={version}"
        if name in direct:
            ours += f"      - {pin}  # {reasons[name]}\n"
        else:
            needing = [name for name in parents if not name.startswith("-")]
            theirs += f"      - {pin}  # for {', '.join(needing)}\n"
    return HEADER + ours + MIDDLE + theirs


def main() -> int:
    """Rewrite the file; complain of direct dependencies without a reason."""
    path = REPOSITORY / "environment.yml"
    pins = read_lock((REPOSITORY / "requirements.lock").read_text("utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    direct = list_direct(project["project"])
    reasons = read_reasons(path.read_text("utf-8")) if path.exists() else {}
    for name in sorted(direct - reasons.keys()):
        print(f"environment.yml: say why {name} is needed", file=sys.stderr)
        reasons[name] = "TODO who needs it, and why"
    path.write_text(render(pins, direct, reasons), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
