"""A folder that is good, and a copy of it to spoil."""

import shutil

import pytest

from tests.speculation.engines.stock_graphs import export_folder


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return export_folder(tmp_path_factory.mktemp("good"))


@pytest.fixture
def path(good, tmp_path):
    return shutil.copytree(good, tmp_path / "model")
