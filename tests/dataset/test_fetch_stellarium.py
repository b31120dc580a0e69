"""Finding and fetching Stellarium's textures, with programs that only pretend."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from nebula_utils.dataset import stellarium
from nebula_utils.errors import CacheError, SourceError

APT_GET = """#!/bin/sh
echo "apt-get $*" >> "$CALLS"
case "$1" in
download) sleep ${SLEEP:-0}; echo deb > stellarium-data_0.22.2-1_all.deb ;;
update) touch "$LISTS" ;;
esac
"""
APT_CACHE = """#!/bin/sh
[ -e "$LISTS" ] && echo "  Candidate: 0.22.2-1" || echo "  Candidate: (none)"
"""
DPKG_DEB = """#!/bin/sh
echo "dpkg-deb $1" >> "$CALLS"
share="$3/usr/share/stellarium"
mkdir -p "$share/nebulae/default" "$share/stars" "$share/landscapes/zero"
mkdir -p "$3/usr/share/doc/stellarium-data"
echo credits > "$3/usr/share/doc/stellarium-data/CREDITS.md.gz"
echo '{}' > "$share/nebulae/default/textures.json"
[ -e "$BROKEN" ] && { echo "dpkg-deb: error: disk gone" >&2; exit 2; }
echo png > "$share/nebulae/default/m1.png"
"""


@pytest.fixture
def nothing(tmp_path, tmp_cache, monkeypatch):
    """Make a machine without Stellarium and without apt and git: an empty PATH."""
    programs_folder = tmp_path / "bin"
    programs_folder.mkdir()
    monkeypatch.delenv("STELLARIUM_DATA", raising=False)
    monkeypatch.setenv("PATH", str(programs_folder))
    monkeypatch.setattr(stellarium, "list_places", lambda: [])
    return programs_folder


@pytest.fixture
def debian(nothing, tmp_path, monkeypatch):
    """Add programs that act as apt-get, apt-cache and dpkg-deb do."""
    if sys.platform == "win32":
        pytest.skip("needs a POSIX shell")
    fakes = {"apt-get": APT_GET, "apt-cache": APT_CACHE, "dpkg-deb": DPKG_DEB}
    for name, text in fakes.items():
        (nothing / name).write_text(text)
        (nothing / name).chmod(0o755)
    for name in ("calls", "lists", "broken"):
        monkeypatch.setenv(name.upper(), str(tmp_path / name))
    monkeypatch.setenv("PATH", f"{nothing}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(stellarium, "REPOSITORY_URL", str(tmp_path / "no-repository"))
    (tmp_path / "lists").touch()
    return tmp_path


def make_share(folder):
    """Make the least that counts as a Stellarium; give its stellarium."""
    default = folder / "nebulae" / "default"
    default.mkdir(parents=True)
    (default / "textures.json").write_text("{}")
    (default / "m1.png").write_bytes(b"png")
    return default


def calls(tmp_path):
    """Give program and first argument of each call of a fake."""
    return [line.split()[:2] for line in (tmp_path / "calls").open()]


@pytest.mark.parametrize("inside", ["", "nebulae/default"])
def test_chosen_folder_comes_first(inside, nothing, tmp_path, monkeypatch):
    """$STELLARIUM_DATA wins over an installed one, whichever folder it names."""
    chosen = make_share(tmp_path / "chosen")
    installed = make_share(tmp_path / "installed")
    monkeypatch.setattr(stellarium, "list_places", lambda: [tmp_path / "installed"])
    assert stellarium.fetch_textures() == installed
    monkeypatch.setenv("STELLARIUM_DATA", str(tmp_path / "chosen" / inside))
    assert stellarium.fetch_textures() == chosen


def test_wrong_chosen_folder_is_an_error(nothing, tmp_path, monkeypatch):
    """A mistyped $STELLARIUM_DATA is said, not passed over for a download."""
    monkeypatch.setenv("STELLARIUM_DATA", str(tmp_path / "typo"))
    with pytest.raises(SourceError, match=r"STELLARIUM_DATA=.*typo holds no"):
        stellarium.fetch_textures()


def test_installed_places_cover_the_systems(monkeypatch):
    """Linux, Flatpak, macOS and Windows are all looked at."""
    monkeypatch.setenv("ProgramFiles", "/C/Programs")
    places = " ".join(path.as_posix() for path in stellarium.list_places())
    for part in ("/usr/share/stellarium", "flatpak", "Stellarium.app", "/C/Programs"):
        assert part in places


def test_error_names_three_ways(nothing):
    """Without any way the message names all three, with the reason of each."""
    with pytest.raises(SourceError) as caught:
        stellarium.fetch_textures()
    message = str(caught.value)
    assert "STELLARIUM_DATA is not set" in message
    assert "no apt-get and no dpkg-deb on this machine" in message
    assert "no git on this machine" in message


def test_package_is_fetched_once(debian, tmp_cache):
    """What is needed of the package stays in the cache, the rest goes."""
    found = stellarium.fetch_textures()
    assert found == tmp_cache / "stellarium/share/nebulae/default"
    assert sorted(path.name for path in (tmp_cache / "stellarium").iterdir()) == [
        ".lock",
        "share",
    ]
    kept = sorted(path.name for path in (tmp_cache / "stellarium/share").iterdir())
    assert kept == ["CREDITS.md.gz", "landscapes", "nebulae"]
    assert stellarium.fetch_textures() == found
    assert calls(debian) == [["apt-get", "download"], ["dpkg-deb", "-x"]]


def test_interrupted_unpacking_is_redone(debian, tmp_cache):
    """A failed unpacking leaves nothing that looks finished; the next run mends it."""
    (debian / "broken").touch()
    with pytest.raises(SourceError, match="disk gone"):
        stellarium.fetch_textures()
    assert not (tmp_cache / "stellarium/share").exists()
    # What a killed process leaves: half a folder under the temporary names.
    for name in ("unpacked", "new"):
        make_share(tmp_cache / "stellarium" / name)
    (debian / "broken").unlink()
    found = stellarium.fetch_textures()
    assert sorted(path.name for path in found.iterdir()) == ["m1.png", "textures.json"]


def test_missing_lists_are_updated_if_allowed(debian, monkeypatch):
    """Where apt knows no package, root updates the lists first."""
    (debian / "lists").unlink()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    stellarium.fetch_textures()
    assert calls(debian)[:2] == [["apt-get", "update"], ["apt-get", "download"]]


def test_sudo_is_told_and_never_run(debian, nothing, monkeypatch):
    """Who may not update the lists is told the command, even if sudo would work."""
    (debian / "lists").unlink()
    (nothing / "sudo").write_text('#!/bin/sh\necho "sudo $*" >> "$CALLS"\n')
    (nothing / "sudo").chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SourceError, match="run 'sudo apt-get update'"):
        stellarium.fetch_textures()
    assert not (debian / "calls").exists()


def test_two_at_once_fetch_once(debian, monkeypatch):
    """The second waits for the first, then uses what it fetched."""
    monkeypatch.setenv("SLEEP", "1")
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(stellarium.fetch_textures()))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found) == 2
    assert calls(debian).count(["apt-get", "download"]) == 1


def run_git(*words, cwd):
    """Run git with an identity of its own."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, *words], cwd=cwd, check=True, capture_output=True)


def test_git_is_the_last_way(nothing, tmp_path, tmp_cache, monkeypatch, caplog):
    """Without apt a sparse clone of the tag gives textures, landscapes and credits."""
    git = shutil.which("git", path=os.defpath)
    if git is None:
        pytest.skip("needs git")
    work = tmp_path / "work"
    make_share(work)
    for name in ("landscapes/zero/a.txt", "stars/big.cat", "CREDITS.md"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text("x")
    monkeypatch.setenv("PATH", os.defpath)
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"], ["tag", "v1"]):
        run_git(*words, cwd=work)
    run_git("clone", "-q", "--bare", str(work), "bare.git", cwd=tmp_path)
    run_git("config", "uploadpack.allowFilter", "true", cwd=tmp_path / "bare.git")
    monkeypatch.setattr(stellarium, "REPOSITORY_URL", (tmp_path / "bare.git").as_uri())
    monkeypatch.setattr(stellarium, "TAG", "v1")
    only_git = {"git": git}.get
    monkeypatch.setattr(stellarium.shutil, "which", only_git)
    with caplog.at_level(logging.WARNING):
        found = stellarium.fetch_textures()
    assert found == tmp_cache / "stellarium/share/nebulae/default"
    assert "no apt-get" in caplog.text
    kept = sorted(path.name for path in (tmp_cache / "stellarium/share").iterdir())
    assert kept == ["CREDITS.md", "landscapes", "nebulae"]


def test_unwritable_cache_is_said(nothing, tmp_path, monkeypatch):
    """A cache that is a file gives advice, not a traceback."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("NEBULA_CACHE", str(tmp_path / "file"))
    with pytest.raises(CacheError, match="NEBULA_CACHE"):
        stellarium.fetch_textures()


def test_program_is_ended_with_its_caller(tmp_path):
    """Ctrl-C during a download leaves no program behind."""
    sign = tmp_path / "alive"
    child = f"import time; open({str(sign)!r}, 'w').close(); time.sleep(60)"
    script = (
        "import sys\n"
        "from nebula_utils.dataset import stellarium\n"
        f"stellarium._run([sys.executable, '-c', {child!r}])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 60
    while not sign.exists() and time.monotonic() < end:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children()
    assert len(children) == 1
    process.send_signal(signal.SIGINT)
    process.wait(30)
    gone, alive = psutil.wait_procs(children, timeout=5)
    assert gone and not alive
