"""Makes the failures of the contract's checks as telling as those of a test file."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("providers.contract")
