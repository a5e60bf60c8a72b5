"""The choice of a device."""

import pytest

from jstar.errors import JstarError
from jstar.torch_device import default_device


def test_a_device_that_is_not_here_is_one_sentence():
    assert default_device("cpu").type == "cpu"
    assert default_device().type in ("cpu", "cuda")
    for name in ("cuda:99", "gpu"):
        with pytest.raises(JstarError, match=f"^device: '{name}' is not on this machine, .* cpu"):
            default_device(name)
