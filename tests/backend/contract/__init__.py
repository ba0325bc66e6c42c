"""The checks of `test_tinygrad_seam.py`, and a command that runs them with another tinygrad."""

import pytest

# A check that fails says what was found, as tests do.
pytest.register_assert_rewrite(
    *(f"{__name__}.{name}" for name in ("memory", "programs", "devices"))
)
