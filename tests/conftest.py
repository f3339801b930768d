"""Give every test the option --slow."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_history(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep profiles that tests take out of the user's history."""
    path = tmp_path_factory.mktemp("history") / "history.sqlite"
    os.environ["TINYDEPLOY_HISTORY"] = str(path)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the long sweeps as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="a long sweep; give --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)
