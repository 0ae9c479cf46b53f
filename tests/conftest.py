"""How tests run: in which order, which of them at the same time, and with how little garbage collection."""

import gc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.phases import PhaseLocks, phase_of

PHASE_FILE = "phase_file"
"""Key by which pytest-xdist's controller tells the processes where the file of `PhaseLocks` is."""
_PHASE_LOCKS = pytest.StashKey[PhaseLocks]()
_PHASE_FILE_PATH = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the fixtures in each process that runs tests, and take part in the phases if there are several.

    pytest-xdist's controller, which starts these processes, runs no tests and does not need the fixtures, which
    import the whole application.
    """
    if hasattr(config, "workerinput"):
        config.stash[_PHASE_LOCKS] = PhaseLocks(Path(config.workerinput[PHASE_FILE]))
    elif config.getoption("dist", "no") != "no":
        directory = TemporaryDirectory()
        config.add_cleanup(directory.cleanup)
        config.stash[_PHASE_FILE_PATH] = str(Path(directory.name, "phases"))
        return
    config.pluginmanager.import_plugin("tests.fixtures")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_configure_node(node: Any) -> None:
    """Tell a process where the file is with which it takes part in the phases."""
    node.workerinput[PHASE_FILE] = node.config.stash[_PHASE_FILE_PATH]


def pytest_collection() -> None:
    """Collect no garbage while tests are imported: it takes a third of the time, and there is hardly any garbage."""
    gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests by phase, and put those first that take longest, so that the last processes finish together."""
    items.sort(key=lambda item: (phase_of(item), item.get_closest_marker("long") is None))


def pytest_collection_finish() -> None:
    """Exclude the imported modules from garbage collection, and make collections rare, as the service does."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 50)
    gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    """Run a test when its phase has begun in all processes."""
    if _PHASE_LOCKS not in item.config.stash:
        return (yield)
    with item.config.stash[_PHASE_LOCKS].running(phase_of(item)):
        return (yield)
