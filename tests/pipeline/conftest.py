"""One clone of the project for all tests of the pipeline."""

import pytest

from support.clone import Clone, clone_project


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return clone_project(tmp_path_factory.mktemp("clone") / "project")
