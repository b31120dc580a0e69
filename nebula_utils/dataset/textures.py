"""Find or fetch the folder of Stellarium's textures; nothing of it is read here.

In this order: `$STELLARIUM_DATA`, an installed Stellarium, the cache; then into the
cache Debian's package, as an ordinary user, or a sparse clone of the public repository.
"""

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from nebula_utils.config import cache_dir
from nebula_utils.errors import CacheError, SourceError
from nebula_utils.programs import ProgramError, run_program, wait_for_lock

PACKAGE = "stellarium-data"
PACKAGE_BYTES = 246_289_432  # of 0.22.2-1; only for the progress bar
REPOSITORY_URL = "https://github.com/Stellarium/stellarium.git"
TAG = "v0.22.2"  # the release that data/stellarium.csv describes
VARIABLE = "STELLARIUM_DATA"
TEXTURES = Path("nebulae", "default")
_LANDSCAPES = "landscapes"

_log = logging.getLogger(__name__)


def fetch_textures() -> Path:
    """Find Stellarium's textures, or fetch them into the cache (about 246 MB, once).

    Returns
    -------
    Path
        The folder with the PNG files and ``textures.json``.

    Raises
    ------
    SourceError
        If ``$STELLARIUM_DATA`` names no such folder, or no way leads to the
        textures; the message has the reason why each of them failed.
    CacheError
        If the cache can't be written.
    """
    found = _find_chosen() or _find_installed() or _check(_cached_share())
    if found:
        return found
    root = cache_dir() / "stellarium"
    try:
        with wait_for_lock(root):
            # Another process may have fetched them while this one waited.
            return _check(_cached_share()) or _fetch(root)
    except OSError as error:
        raise CacheError(
            f"can't write {root} ({error.strerror or error}): make room or make it "
            "writable, or set NEBULA_CACHE to another folder"
        ) from error


def fetch_landscapes() -> Path | None:
    """Give Stellarium's landscapes (everyday horizons), fetched as the textures are.

    Returns
    -------
    Path or None
        The folder ``landscapes`` of the same Stellarium, None if it has none.

    Raises
    ------
    SourceError, CacheError
        As `fetch_textures`.
    """
    folder = fetch_textures().parent.parent / _LANDSCAPES
    return folder if folder.is_dir() else None


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
    for place in list_places():
        found = _check(place)
        if found:
            _log.info("using the installed Stellarium in %s", found)
            return found
    return None


def list_places() -> list[Path]:
    """List where a Stellarium may be installed: Linux, Flatpak, snap, macOS, Windows.

    Returns
    -------
    list of Path
        Folders that may hold ``nebulae/default``; most of them won't exist.
    """
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


def _check(folder: Path) -> Path | None:
    for textures in (folder / TEXTURES, folder):
        if (textures / "textures.json").is_file() and any(textures.glob("*.png")):
            return textures.resolve()
    return None


def _cached_share() -> Path:
    return cache_dir() / "stellarium" / "share"


def _fetch(root: Path) -> Path:
    reasons = []
    for name, way in {"Debian's package": _fetch_debian, "git": _fetch_git}.items():
        try:
            way(root)
        except ProgramError as error:
            _log.warning("%s gives no textures: %s", name, error)
            reasons.append(str(error))
            continue
        found = _check(_cached_share())
        if found:
            return found
        reasons.append("what came holds no textures")
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
    folder = root / "download"  # kept after a failure: apt resumes what it finds
    folder.mkdir(exist_ok=True)
    updated = False
    if not _has_candidate():
        _update_lists()
        updated = True
    _log.info("getting Debian's package %s (246 MB)", PACKAGE)
    try:
        _download_package(folder)
    except ProgramError as error:
        if updated:
            raise
        _log.info("%s; updating apt's lists, which may be too old", error)
        try:
            _update_lists()
        except ProgramError as second:
            raise ProgramError(f"{error}; {second}") from error
        _download_package(folder)
    with _empty_folder(root / "unpacked") as unpacked:
        package = _find_package(folder)
        try:
            run_program(["dpkg-deb", "-x", str(package), str(unpacked)])
        except ProgramError:
            package.unlink(missing_ok=True)  # damaged, perhaps: get it anew next time
            raise
        documents = unpacked / "usr/share/doc" / PACKAGE
        _keep(unpacked / "usr/share/stellarium", documents)
    shutil.rmtree(folder)


def _has_candidate() -> bool:
    if not shutil.which("apt-cache"):
        return False
    policy = run_program(["apt-cache", "policy", PACKAGE])
    found = re.search(r"Candidate:\s*(\S+)", policy)
    return bool(found) and found[1] != "(none)"  # type: ignore[index]


def _update_lists() -> None:
    command = ["apt-get", "update", "-q"]
    if getattr(os, "geteuid", lambda: 0)() != 0:
        try:
            run_program(["sudo", "-n", "true"])
        except ProgramError as error:
            raise ProgramError(
                f"apt's lists don't have {PACKAGE}, and only root may update them: "
                "run 'sudo apt-get update'"
            ) from error
        command = ["sudo", "-n", *command]
    _log.info("updating apt's package lists")
    try:
        run_program(command)
    except ProgramError as error:
        # One dead address among many fails it all; the package may be there still.
        _log.warning("%s", error)
    if not _has_candidate():
        raise ProgramError(f"apt's sources don't have {PACKAGE}")


def _download_package(folder: Path) -> None:
    if os.access(folder, os.W_OK) and hasattr(os, "geteuid") and os.geteuid() == 0:
        sandbox = ["-o", "APT::Sandbox::User=root"]  # _apt can't write into the cache
    else:
        sandbox = []
    command = ["apt-get", "download", "-q", *sandbox, PACKAGE]
    run_program(command, cwd=folder, watch=folder, total=PACKAGE_BYTES)
    _find_package(folder)


def _find_package(folder: Path) -> Path:
    packages = sorted(folder.glob("*.deb"), key=lambda path: path.stat().st_mtime)
    if not packages:
        raise ProgramError("apt-get download ended well but left no package")
    return packages[-1]


def _fetch_git(root: Path) -> None:
    if not shutil.which("git"):
        raise ProgramError("no git on this machine")
    _log.info("cloning the textures from %s", REPOSITORY_URL)
    with _empty_folder(root / "clone") as clone:
        # A dead line ends by itself after a minute below 1 kB/s.
        slow = ["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60"]
        sparse = ["--depth", "1", "--filter=blob:none", "--sparse"]
        run_program(
            ["git", *slow, "clone", "-q", *sparse, "--branch", TAG]
            + [REPOSITORY_URL, str(clone)],
            watch=clone,
        )
        # Files at the top, CREDITS.md among them, come with every sparse checkout.
        wanted = [TEXTURES.as_posix(), _LANDSCAPES]
        run_program(
            ["git", *slow, "-C", str(clone), "sparse-checkout", "set", *wanted],
            watch=clone,
        )
        _keep(clone, clone)


def _keep(share: Path, documents: Path) -> None:
    """Move what is needed into the cache, in one step: it is whole or absent."""
    if _check(share) is None:
        raise ProgramError(f"what came holds no {TEXTURES.as_posix()}")
    final = _cached_share()
    with _empty_folder(final.with_name("new")) as new:
        for part in (TEXTURES, Path(_LANDSCAPES)):
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
