"""The lock, pyproject.toml and environment.yml name the same environment."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib

import pytest
import yaml

from nebula_utils.config import REPOSITORY

LOCK = (REPOSITORY / "requirements.lock").read_text("utf-8")
ENVIRONMENT = (REPOSITORY / "environment.yml").read_text("utf-8")
PIN = re.compile(r"^([a-z0-9.-]+)==([^ \\]+)(?: ; (.*?))? \\$", re.MULTILINE)


def _read_lock() -> set[tuple[str, str, str]]:
    return set(PIN.findall(LOCK))


def _read_direct() -> list[str]:
    text = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    project = tomllib.loads(text)["project"]
    return project["dependencies"] + sum(project["optional-dependencies"].values(), [])


def _split(requirement: str) -> tuple[str, str, str]:
    pin, _, marker = requirement.partition(" ; ")
    name, _, version = pin.partition("==")
    return re.sub(r"[-_.]+", "-", name).lower(), version, marker


def _names_on(platform: str, machine: str) -> set[str]:
    """Names that the lock installs on a platform, Python 3.11."""
    packaging_markers = pytest.importorskip("packaging.markers")
    values = {
        "sys_platform": platform,
        "platform_machine": machine,
        "python_full_version": "3.11.7",
        "python_version": "3.11",
    }
    return {
        name
        for name, _, marker in _read_lock()
        if not marker or packaging_markers.Marker(marker).evaluate(values)
    }


def test_every_pin_of_pyproject_is_in_the_lock():
    """A changed dependency without `make lock` is noticed."""
    locked = {(name, version) for name, version, _ in _read_lock()}
    names = {name for name, _ in locked}
    for requirement in _read_direct():
        name, version, _ = _split(re.sub(r"(\[.*?\]|>=.*)", "", requirement))
        assert name in names
        assert not version or (name, version) in locked


def test_environment_has_the_lock_s_pins():
    """Conda users get the very same versions, under the same conditions."""
    (pip_section,) = [
        item["pip"]
        for item in yaml.safe_load(ENVIRONMENT)["dependencies"]
        if isinstance(item, dict)
    ]
    assert {_split(line) for line in pip_section} == _read_lock()


def test_environment_says_why_each_pin_is_there():
    """One pin a line, each with a comment."""
    pins = [line for line in ENVIRONMENT.splitlines() if "==" in line]
    assert pins
    for line in pins:
        assert re.search(r"  # \w.{4,}", line), line
        assert "TODO" not in line


def test_conda_gives_python_and_pip_only():
    """Everything but the two comes from the lock."""
    items = yaml.safe_load(ENVIRONMENT)["dependencies"]
    names = [item.split("=")[0] for item in items if isinstance(item, str)]
    assert names == ["python", "pip"]


@pytest.mark.parametrize(
    ("platform", "machine", "build"),
    [
        ("linux", "x86_64", "tensorflow-cpu"),
        ("linux", "aarch64", "tensorflow"),
        ("darwin", "arm64", "tensorflow"),
        ("win32", "AMD64", "tensorflow"),
    ],
)
def test_there_is_one_tensorflow(platform, machine, build):
    """The cpu build on Linux x86-64, plain TensorFlow elsewhere, never two."""
    builds = {"tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tf-nightly"}
    assert _names_on(platform, machine) & builds == {build}


def test_the_lock_has_hashes_and_no_address():
    """Any machine can install it from its own index, and gets the same files."""
    for address in ("://", "--index-url", "--extra-index-url", "--find-links"):
        assert address not in LOCK
    for block in re.split(r"\n(?=[a-z0-9])", LOCK)[1:]:
        assert "--hash=sha256:" in block, block[:60]


def test_setuptools_still_has_pkg_resources():
    """tensorflow-hub imports it; setuptools 82 dropped it."""
    (version,) = [version for name, version, _ in _read_lock() if name == "setuptools"]
    assert tuple(map(int, version.split(".")[:2])) < (80, 9)


@pytest.fixture
def bare_path(tmp_path):
    """Give a PATH without a browser, where `apt-get` and `sudo` only note calls."""
    for name in ("sh", "id"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    for name in ("apt-get", "sudo"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/called\n')
        program.chmod(0o755)
    return tmp_path


def _install_chromium(path, **environment):
    script = str(REPOSITORY / "scripts" / "install_chromium.sh")
    done = subprocess.run(
        [str(path / "sh"), script],
        env={"PATH": str(path), **environment},
        capture_output=True,
        text=True,
    )
    called = path / "called"
    return done, called.read_text() if called.exists() else ""


def test_nothing_is_installed_unasked(bare_path):
    """Also as root, a person is told the command; the browser tests are skipped."""
    done, called = _install_chromium(bare_path)
    assert (done.returncode, called) == (0, "")
    assert "apt-get install chromium" in done.stderr


def test_in_ci_the_browser_must_be_there(bare_path):
    """Root installs it, anybody else fails; sudo is never called."""
    done, called = _install_chromium(bare_path, CI="true")
    assert "sudo" not in called
    if os.getuid() == 0:
        assert done.returncode == 0 and called.endswith(" install chromium\n")
    else:
        assert (done.returncode, called) == (1, "")


def test_no_program_of_ours_calls_sudo():
    """Nothing is done as root that a person did not start as root."""
    files = [*REPOSITORY.glob("scripts/*"), *REPOSITORY.glob("nebula_utils/**/*.py")]
    files += [REPOSITORY / "Makefile", REPOSITORY / ".ci" / "run"]
    call = re.compile(r"""sudo -|["']sudo["']|exec sudo|^\s*@?sudo """, re.M)
    found = [path for path in files if path.is_file() and call.search(path.read_text())]
    assert found == []


def test_compiled_packages_are_locked_for_every_python():
    """A lock made where one wheel lay in a local folder would fit one Python only."""
    blocks = re.split(r"\n(?=[a-z0-9])", LOCK)[1:]
    hashes = {block.split("==")[0]: block.count("--hash=") for block in blocks}
    for found in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        if "Root-Is-Purelib: false" in (found.read_text("WHEEL") or ""):
            assert hashes.get(name, 3) >= 3, name
