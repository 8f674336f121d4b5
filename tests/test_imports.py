"""What importing costs: what only some runs use is imported by the functions that use it."""

import subprocess
import sys
from pathlib import Path

HEAVY = ("ott", "diffrax", "tensorflow_datasets", "sklearn", "matplotlib", "tensorflow", "torch", "tensorboardX")
PROGRAM = f"""
import importlib, pkgutil, sys
import flowmaps
assert "jax" not in sys.modules
for module in pkgutil.walk_packages(flowmaps.__path__, "flowmaps."):
    importlib.import_module(module.name)
assert "flowmaps.train" in sys.modules and "flowmaps.data.tfds" in sys.modules
print(*(name for name in {HEAVY} if name in sys.modules))
"""


def test_no_module_imports_what_few_runs_use():
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
