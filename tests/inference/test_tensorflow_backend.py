"""Functions are traced as they are written."""

from __future__ import annotations

import pytest


def test_no_source_is_rewritten_for_a_branch_on_a_tensor():
    import tensorflow as tf

    from repix.inference.tensorflow_backend import compile_function

    with pytest.raises(TypeError, match="symbolic"):
        compile_function(lambda x: x if x > 0 else -x)(tf.constant(1.0))
