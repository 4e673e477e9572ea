"""Tables of data/: read where they apply, computed where they do not, and written on demand."""

import json

import numpy as np
import pandas as pd
import pytest

from fixlip.data import measured as module
from fixlip.data.measured import measured

TABLE = pd.DataFrame(
    {
        "id": ["a", "b"],
        "masks": [64, 128],
        "error": [1 / 3, np.nan],
        "of": ["shapley", 0.3],
        "curve": [[1 / 7, 2.0], [3.0]],
    }
)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout whose outputs go elsewhere, and a count of how often the table was computed."""
    monkeypatch.setattr(module, "root", lambda: tmp_path / "clone")
    monkeypatch.setenv("FIXLIP_OUTPUT", str(tmp_path / "out"))
    calls = []

    def ask(*, seed=0, recompute=False):
        def compute():
            calls.append(seed)
            return TABLE

        settings = {"seed": seed, "ranks": (0, 50)}
        return measured("t", compute, settings=settings, command="none", recompute=recompute)

    return tmp_path, ask, calls


def same(a, b):
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_a_table_is_computed_once_and_then_read(checkout):
    folder, ask, calls = checkout
    live = ask()
    assert calls == [0] and not (folder / "out").exists()
    kept = ask(recompute=True)
    same(kept, live)
    (folder / "clone").mkdir()
    (folder / "out/data").rename(folder / "clone/data")
    same(ask(), live)
    assert calls == [0, 0]  # read
    ask(seed=1)
    assert calls == [0, 0, 1]  # other settings


def test_cells_keep_their_kind_and_five_digits(checkout):
    folder, ask, _ = checkout
    ask(recompute=True)
    content = json.loads((folder / "out/data/t.json").read_text())
    assert content["command"] == "none" and content["settings"] == {"seed": 0, "ranks": [0, 50]}
    assert content["rows"] == [
        ["a", 64, 0.33333, "shapley", [0.14286, 2.0]],
        ["b", 128, None, 0.3, [3.0]],
    ]
    table = ask()
    assert table.masks.dtype == np.int64 and table.error.dtype == np.float64
    assert np.isnan(table.error[1]) and table.of.tolist() == ["shapley", 0.3]
