"""Networks are built under the same threads and determinism as in training."""

import pytest

from repix.libraries import import_keras


@pytest.fixture(autouse=True, scope="session")
def backend():
    import_keras()
    from repix.training.backend import step_module

    return step_module()
