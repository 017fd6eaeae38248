"""Which precision is chosen: by the setting, else by the hardware, and float32 where an older CPU is emulated."""

from functools import partial

import pytest
import torch

from hkd_core.common.errors import UserError
from hkd_core.common.parallel import side_by_side
from hkd_core.common.precision import fast_dtype


@pytest.fixture
def with_units(monkeypatch):
    """A CPU with bf16 units, nothing set."""
    for name in ("HKD_PRECISION", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    return monkeypatch


def test_without_a_setting_the_hardware_decides(with_units):
    assert fast_dtype("cpu") == torch.bfloat16
    for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        with_units.setattr(torch.cpu, check, lambda: False)
    assert fast_dtype("cpu") == torch.float32


@pytest.mark.parametrize(("word", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16), ("auto", torch.bfloat16)])
def test_the_setting_decides_before_the_hardware(with_units, word, dtype):
    with_units.setenv("HKD_PRECISION", word)
    assert fast_dtype("cpu") == dtype


@pytest.mark.parametrize(
    ("name", "value", "dtype"),
    [
        ("ATEN_CPU_CAPABILITY", "default", torch.float32),
        ("ATEN_CPU_CAPABILITY", "avx2", torch.float32),
        ("ATEN_CPU_CAPABILITY", "avx512", torch.bfloat16),
        ("ONEDNN_MAX_CPU_ISA", "AVX2", torch.float32),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE", torch.float32),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", torch.bfloat16),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX", torch.bfloat16),
    ],
)
def test_emulating_a_cpu_without_bf16_units_means_float32_unless_bf16_is_forced(with_units, name, value, dtype):
    with_units.setenv(name, value)
    assert fast_dtype("cpu") == dtype
    with_units.setenv("HKD_PRECISION", "bf16")
    assert fast_dtype("cpu") == torch.bfloat16


def test_an_unknown_word_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("HKD_PRECISION", "half")
    with pytest.raises(UserError) as caught:
        fast_dtype("cpu")
    assert str(caught.value) == 'HKD_PRECISION: expected float32, bf16 or auto, got "half"'


def test_processes_side_by_side_inherit_the_choice_also_one_changed_after_they_started(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for word, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32)):
            monkeypatch.setenv("HKD_PRECISION", word)
            assert side_by_side([partial(fast_dtype, "cpu")] * 2) == [dtype] * 2
    finally:
        torch.set_num_threads(before)
