"""The source `stellarium`: real photographs that come with the planetarium program.

The textures are looked for in this order: `$STELLARIUM_DATA`, an installed Stellarium,
the cache; then Debian's package, as an ordinary user, or a sparse clone of the public
repository is fetched into the cache. data/stellarium.csv, in git, says what each shows.
"""

import contextlib
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from nebula_utils import config
from nebula_utils.dataset import screening
from nebula_utils.dataset.photos import make_manifest, read_rows
from nebula_utils.errors import CacheError, ImageError, SourceError
from nebula_utils.files import explain_write_error, hold_lock, load_or_compute
from nebula_utils.images import reading

PACKAGE = "stellarium-data"
REPOSITORY_URL = "https://github.com/Stellarium/stellarium.git"
TAG = "v0.22.2"  # the release that data/stellarium.csv describes
VARIABLE = "STELLARIUM_DATA"
TEXTURES = Path("nebulae", "default")
LANDSCAPES = "landscapes"

TABLE = config.DATA / "stellarium.csv"
PERCEPTUAL = "phash:"  # begins the hash of a picture that is known from a copy only
_N_THREADS = 4  # decoding PNG lets go of Python's lock

_log = logging.getLogger(__name__)


class ProgramError(Exception):
    """A program can't be run or failed; the text is its reason, for a message."""


def load_stellarium(
    folder: Path | str | None = None, newer: bool = False
) -> pd.DataFrame:
    """List the usable textures with what they show.

    Textures that are missing, or have other pixels than those that were labelled
    (other releases reuse a name for another picture), are left out with a warning.

    Parameters
    ----------
    folder : Path or str, optional
        A folder with Stellarium's textures; by default they are looked for, and
        fetched if need be.
    newer : bool
        Only the textures that Stellarium 26.3 has and 0.22.2 hasn't; they are named
        ``stellarium-newer/…``.

    Returns
    -------
    DataFrame
        The manifest: one row a picture, sorted by ``image_id``.

    Raises
    ------
    SourceError
        If there are no textures and they can't be fetched, or none is known.
    """
    folder = (Path(folder) if folder else fetch_textures()).resolve()
    use = "newer" if newer else "yes"
    rows = [row for row in read_rows(TABLE) if row["use"] == use]
    rows.sort(key=lambda row: row["file"])
    there = [row for row in rows if (folder / row["file"]).is_file()]
    paths = [folder / row["file"] for row in there]
    same = _check_pixels(paths, [row["pixel_sha256"] for row in there])
    known = [row for row, sound in zip(there, same, strict=True) if sound]
    missing, other = len(rows) - len(there), len(there) - len(known)
    if missing:
        _log.warning("%d textures are missing in %s and left out", missing, folder)
    if other:
        text = "%d textures are not the labelled pictures in %s and left out"
        _log.warning(text, other, folder)
    if not known:
        wanted = "26.3" if newer else f"{TAG.removeprefix('v')} to 24.3"
        raise SourceError(
            f"{folder} holds none of the textures that {TABLE.name} describes: use "
            f"Stellarium {wanted}, or unset STELLARIUM_DATA to have them looked for "
            "or fetched"
        )
    return make_manifest(known, folder, "stellarium-newer" if newer else "stellarium")


def fetch_textures() -> Path:
    """Find Stellarium's textures, or fetch them into the cache (about 246 MB, once).

    Returns the folder with the PNG files and ``textures.json``.

    Raises
    ------
    SourceError
        If ``$STELLARIUM_DATA`` names no such folder, or no way leads to the
        textures; the message has the reason why each of them failed.
    CacheError
        If the cache can't be written.
    """
    found = find_textures()
    if found:
        return found
    root = config.cache_dir() / "stellarium"
    with hold_lock(root):
        try:
            # Another process may have fetched them while this one waited.
            return _check(_cached_share()) or _fetch(root)
        except OSError as error:
            raise CacheError(explain_write_error(error, root)) from error


def find_textures() -> Path | None:
    """Return the folder of Stellarium's textures if they are here already."""
    return _find_chosen() or _find_installed() or _check(_cached_share())


def list_places() -> list[Path]:
    """List where Linux, Flatpak, snap, macOS and Windows may have a Stellarium."""
    app = "flatpak/app/org.stellarium.Stellarium/current/active/files"
    share = ["/usr/local", "/usr", f"/var/lib/{app}", f"~/.local/share/{app}"]
    places = [Path(prefix).expanduser() / "share/stellarium" for prefix in share]
    for inside in ("usr/share/stellarium", "share/stellarium"):
        places += sorted(Path("/snap").glob(f"stellarium*/current/{inside}"))
    bundle = "Applications/Stellarium.app/Contents/Resources"
    places += [Path("/", bundle), Path("~", bundle).expanduser()]
    for variable in ("ProgramFiles", "ProgramW6432", "ProgramFiles(x86)"):
        if os.environ.get(variable):
            places.append(Path(os.environ[variable], "Stellarium"))
    return places


def _check_pixels(paths: list[Path], expected: list[str]) -> np.ndarray:
    """Tell which files are the labelled pictures, shape (n,), bool; cached."""
    states = [(str(path), path.stat()) for path in paths]
    stamps = [(name, state.st_size, state.st_mtime_ns) for name, state in states]

    def compute() -> dict[str, np.ndarray]:
        with ThreadPoolExecutor(_N_THREADS) as pool:
            found = pool.map(_is_labelled, paths, expected)
            bar = tqdm(found, "checking the textures", len(paths), disable=None)
            return {"same": np.array(list(bar), bool)}

    parts = (stamps, expected, reading, screening)
    return load_or_compute("textures", parts, compute)["same"]


def _is_labelled(path: Path, expected: str) -> bool:
    try:
        image = reading.read_image(path)
    except ImageError as error:
        _log.warning("%s can't be used: %s", path, error)
        return False
    if not expected.startswith(PERCEPTUAL):
        return reading.compute_pixel_hash(image) == expected
    known = expected.removeprefix(PERCEPTUAL)
    return screening.measure_difference(image, known) <= screening.MAX_DIFFERENCE


def _find_chosen() -> Path | None:
    chosen = os.environ.get(VARIABLE)
    if not chosen:
        return None
    found = _check(Path(chosen).expanduser())
    if found is None:
        raise SourceError(
            f"{VARIABLE}={chosen} holds no Stellarium textures: set it to the folder "
            "share/stellarium of a Stellarium (or its nebulae/default), or unset it to "
            "use an installed Stellarium, Debian's package or git"
        )
    return found


def _find_installed() -> Path | None:
    found = next(filter(None, map(_check, list_places())), None)
    if found:
        _log.info("using the installed Stellarium in %s", found)
    return found


def _check(folder: Path) -> Path | None:
    for textures in (folder / TEXTURES, folder):
        if (textures / "textures.json").is_file() and any(textures.glob("*.png")):
            return textures.resolve()
    return None


def _cached_share() -> Path:
    return config.cache_dir() / "stellarium" / "share"


def _fetch(root: Path) -> Path:
    reasons = []
    for name, way in {"Debian's package": _fetch_debian, "git": _fetch_git}.items():
        try:
            way(root)
            return _cached_share() / TEXTURES
        except ProgramError as error:
            _log.warning("%s gives no textures: %s", name, error)
            reasons.append(str(error))
    raise SourceError(
        "Stellarium's textures are needed, and no way leads to them:\n"
        f"1. {VARIABLE} is not set, and no Stellarium is installed: install it, or "
        "copy the folder share/stellarium of another machine and set "
        f"{VARIABLE} to it;\n"
        f"2. Debian's package {PACKAGE} by apt-get: {reasons[0]};\n"
        f"3. git clone of {REPOSITORY_URL}: {reasons[1]}"
    )


def _fetch_debian(root: Path) -> None:
    missing = [name for name in ("apt-get", "dpkg-deb") if not shutil.which(name)]
    if missing:
        raise ProgramError(f"no {' and no '.join(missing)} on this machine")
    if not _has_candidate():
        _update_lists()
    folder = root / "download"  # kept after a failure: apt resumes what it finds
    folder.mkdir(exist_ok=True)
    try:
        _download(folder)
    except ProgramError as error:
        _log.info("%s; apt's lists may be too old", error)
        _update_lists()
        _download(folder)
    packages = sorted(folder.glob("*.deb"), key=lambda path: path.stat().st_mtime)
    if not packages:
        raise ProgramError("apt-get download ended well but left no package")
    with _empty_folder(root / "unpacked") as unpacked:
        try:
            _run(["dpkg-deb", "-x", str(packages[-1]), str(unpacked)])
        except ProgramError:
            packages[-1].unlink(missing_ok=True)  # damaged, perhaps: get it anew
            raise
        documents = unpacked / "usr/share/doc" / PACKAGE
        _keep(unpacked / "usr/share/stellarium", documents)
    shutil.rmtree(folder)


def _download(folder: Path) -> None:
    _log.info("getting Debian's package %s (246 MB)", PACKAGE)
    # As root, apt would download as another user, who can't write into the cache.
    sandbox = ["-o", "APT::Sandbox::User=root"] if _is_root() else []
    _run(["apt-get", "download", *sandbox, PACKAGE], folder, shown=True)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _has_candidate() -> bool:
    if not shutil.which("apt-cache"):
        return False
    policy = _run(["apt-cache", "policy", PACKAGE])
    found = re.search(r"Candidate:\s*(\S+)", policy)
    return found is not None and found[1] != "(none)"


def _update_lists() -> None:
    if not _is_root():
        raise ProgramError(
            f"apt's lists don't have {PACKAGE} or are too old, and only root may "
            "update them: run 'sudo apt-get update'"
        )
    _log.info("updating apt's package lists")
    try:
        _run(["apt-get", "update", "-q"])
    except ProgramError as error:
        # One dead address among many fails it all; the package may be there still.
        _log.warning("%s", error)
    if not _has_candidate():
        raise ProgramError(f"apt's sources don't have {PACKAGE}")


def _fetch_git(root: Path) -> None:
    if not shutil.which("git"):
        raise ProgramError("no git on this machine")
    _log.info("cloning the textures from %s", REPOSITORY_URL)
    with _empty_folder(root / "clone") as clone:
        # A dead line ends by itself after a minute below 1 kB/s.
        git = ["git", "-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60"]
        sparse = ["--depth", "1", "--filter=blob:none", "--sparse", "--branch", TAG]
        _run([*git, "clone", *sparse, REPOSITORY_URL, "."], clone, shown=True)
        # Files at the top, CREDITS.md among them, come with every sparse checkout.
        wanted = [TEXTURES.as_posix(), LANDSCAPES]
        _run([*git, "sparse-checkout", "set", *wanted], clone, shown=True)
        _keep(clone, clone)


def _keep(share: Path, documents: Path) -> None:
    """Move what is needed into the cache, in one step: it is whole or absent."""
    if _check(share) is None:
        raise ProgramError(f"what came holds no {TEXTURES.as_posix()}")
    final = _cached_share()
    with _empty_folder(final.with_name("new")) as new:
        for part in (TEXTURES, Path(LANDSCAPES)):
            if (share / part).is_dir():
                (new / part).parent.mkdir(exist_ok=True)
                os.replace(share / part, new / part)
        for document in documents.glob("CREDITS*"):
            os.replace(document, new / document.name)
        if final.exists():  # a damaged one: a whole one would have been used
            shutil.rmtree(final)
        os.replace(new, final)


@contextlib.contextmanager
def _empty_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder, whatever an interrupted run left; remove it at the end."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[str], folder: Path | None = None, shown: bool = False) -> str:
    """Run a program and return what it wrote; its own progress is for terminals."""
    shown = shown and sys.stderr.isatty()
    environment = os.environ | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, text=True,
            stdout=sys.stderr if shown else subprocess.PIPE, errors="replace",
            stderr=None if shown else subprocess.STDOUT,
        )  # fmt: skip
    except OSError as error:
        raise ProgramError(f"{command[0]}: {error.strerror}") from error
    said = done.stdout or ""
    if done.returncode:
        lines = said.strip().splitlines()
        told = [line for line in lines if line.startswith(("E:", "fatal:", "error:"))]
        reason = (told or lines or [f"exit status {done.returncode}"])[-2:]
        raise ProgramError(f"{command[0]}: {' '.join(reason).strip()}")
    return said
