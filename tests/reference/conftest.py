"""The modules that import a reference package are for tests to import, which they then skip.

pytest would import them itself to look for doctests, and keep what a skip left of them.
"""

from __future__ import annotations

collect_ignore = ["families", "onnx_cases.py", "stored", "torch_models.py", "variants"]
