"""What `test_tinygrad_seam.py` checks of tinygrad, and the command that checks another one."""

import pytest

# A check that fails says what was found, as tests do.
pytest.register_assert_rewrite(
    *(f"{__name__}.{name}" for name in ("memory", "programs", "devices"))
)
