"""The benchmarks' short forms: every fast path against its plain form, in values and gradients. Nothing is timed."""
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent/"benchmarks"


@pytest.mark.parametrize("name", ["plane_sweep", "training_step", "systems", "data_loading"])
def test_correct(name):
    rows = runpy.run_path(str(FOLDER/f"{name}.py"))["main"](short=True)
    assert rows and all(r["value"] is None or r["target"] is None or r["value"] <= r["target"] for r in rows)
