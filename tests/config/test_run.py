"""The grid, its cells, and the names that cells may have."""

from __future__ import annotations

import pytest

from repix.config.reader import parse
from repix.config.run import Grid
from repix.errors import UserError

GRID = {"datasets": ["a", "b"], "models": ["m"], "seeds": [0, 7]}


def test_the_grid_in_order():
    names = [cell.name for cell in parse(GRID, Grid, "run").cells()]
    assert names == ["a-m-0", "a-m-7", "b-m-0", "b-m-7"]
    assert parse(GRID, Grid, "run").profile == "auto"
    assert parse(GRID | {"profile": "jax-8"}, Grid, "run").profile == "jax-8"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"datasets": []}, "run.datasets: []: list should have at least 1 item, not 0"),
        ({"datasets": "sample"}, "run.datasets: 'sample': input should be a list"),
        ({"datasets": ["a-b"]}, "'a-b': names are letters, digits and underscores"),
        ({"models": ["../m"]}, "'../m': names are letters, digits and underscores"),
        ({"models": ["m\n"]}, "names are letters, digits and underscores"),
        ({"datasets": ["a", "a"]}, "'a' is given twice"),
        ({"seeds": [1, 1]}, "1 is given twice"),
        ({"seeds": [-1]}, "seeds are whole numbers from 0 to 2147483647"),
        ({"seeds": [2**31]}, "seeds are whole numbers from 0 to 2147483647"),
        ({"seeds": 0}, "run.seeds: 0: input should be a list"),
        ({"seeds": [0.5]}, "run.seeds.0: 0.5: input should be a valid integer"),
        ({"seeds": [True]}, "run.seeds: [True]: true and false have no meaning here"),
        (
            {"profile": "fats"},
            "run.profile: 'fats' is not one of 'auto', 'portable', 'fast', 'jax' or 'jax-4' (for so many devices); "
            "did you mean 'fast'?",
        ),
        ({"profile": "jax-0"}, "run.profile: 'jax-0' is not one of 'auto', 'portable'"),
        ({"profile": 4}, "run.profile: 4: input should be a valid string"),
        ({"seed": [0]}, "run.seed: unknown key; did you mean 'seeds'?"),
    ],
)
def test_a_wrong_grid_is_one_line(change, said):
    with pytest.raises(UserError) as caught:
        parse(GRID | change, Grid, "run")
    assert said in str(caught.value) and "\n" not in str(caught.value)
