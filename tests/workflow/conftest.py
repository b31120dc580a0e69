"""What the tests of the command line share."""

import sys
import types

import pytest


@pytest.fixture
def fake_module(monkeypatch):
    """Give a function that puts a module with these functions in a module's place."""

    def replace(name, **functions):
        module = types.ModuleType(f"nebula_utils.{name}")
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, f"nebula_utils.{name}", module)
        monkeypatch.setattr(f"nebula_utils.{name}", module, raising=False)

    return replace
