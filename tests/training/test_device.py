"""The machine: dtype policy by kind of processor, names, oneDNN, versions, memory."""

import os
import subprocess
import sys

import pytest
import yaml
from scipy.stats import ttest_ind

from fer_utils.errors import ConfigError
from fer_utils.paths import project_root
from fer_utils.training import device

AMD = "vendor_id : AuthenticAMD\nmodel name : AMD EPYC\nflags : avx avx2 avx512f avx512_bf16 avx512_vnni\n"
INTEL = (
    AMD.replace("AuthenticAMD", "GenuineIntel")
    .replace("AMD EPYC", "Xeon")
    .replace("avx512_bf16", "avx512_bf16 amx_bf16")
)


@pytest.fixture
def cpuinfo(tmp_path):
    def write(text):
        path = tmp_path / "cpuinfo"
        path.write_text(text)
        return path

    return write


def test_auto_takes_16_bits_only_on_the_kinds_of_processor_that_were_measured(cpuinfo, tmp_path):
    table = yaml.safe_load(device.PRECISION_TABLE.read_text())
    for notebook, found in table.items():
        assert (project_root() / "notebooks" / notebook).is_file()
        assert set(found["kinds"]) == {"AMD with avx512_bf16", "Intel with amx_bf16"}
        for text, kind in ((AMD, "AMD with avx512_bf16"), (INTEL, "Intel with amx_bf16")):
            assert device.choose_precision("auto", notebook, "CPU", cpuinfo(text)) == found["kinds"][kind]["used"]
        # The same flag on an Intel without the matrix unit, no flag, no description, a GPU, another notebook.
        assert device.choose_precision("auto", notebook, "CPU", cpuinfo(INTEL.replace("amx", ""))) == "float32"
        assert device.choose_precision("auto", notebook, "CPU", cpuinfo(AMD.replace("_bf16", "x"))) == "float32"
        assert device.choose_precision("auto", notebook, "CPU", tmp_path / "none") == "float32"
        assert device.choose_precision("auto", notebook, "GPU", cpuinfo(AMD)) == "float32"
    assert device.choose_precision("auto", "of_a_user.ipynb", "CPU", cpuinfo(AMD)) == "float32"
    assert device.choose_precision("mixed_bfloat16", "of_a_user.ipynb", "CPU", cpuinfo(INTEL)) == "mixed_bfloat16"
    with pytest.raises(ConfigError, match="'half'; expected one of auto"):
        device.choose_precision("half", "03_resnet50.ipynb", "CPU")


def test_16_bits_are_used_where_they_are_faster_and_learn_no_worse():
    for notebook, found in yaml.safe_load(device.PRECISION_TABLE.read_text()).items():
        for kind, entry in found["kinds"].items():
            median, low, high = entry["ratio"]
            assert low <= median <= high
            assert (low > 1) == (entry["used"] == "mixed_bfloat16"), (notebook, kind)
        if any(entry["used"] != "float32" for entry in found["kinds"].values()):
            used, float32 = found["accuracy"]["mixed_bfloat16"], found["accuracy"]["float32"]
            assert len(used) == len(float32) >= 3
            # Welch: worse by more than the seeds explain?
            assert ttest_ind(used, float32, equal_var=False, alternative="less").pvalue > 0.05, notebook


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("model name : AMD EPYC\nflags : fpu avx avx2 fma\n", "AMD EPYC with avx2"),
        (AMD, "AMD EPYC with avx512_bf16"),
        ("processor : 0\nmodel name : Arm\nFeatures : fp asimd bf16\n", "Arm with bf16"),
        # A flag's name inside another's, and no flags at all.
        ("model name : Old\nflags : fpu avx2x\n", "Old"),
        ("model name : Old\n", "Old"),
    ],
)
def test_a_processor_is_named_with_its_widest_instructions(cpuinfo, text, name):
    assert device.cpu_name(cpuinfo(text)) == name


def test_a_processor_that_the_system_does_not_describe_still_has_a_name(tmp_path):
    assert device.cpu_name(tmp_path / "none") and device.cpu_flags(tmp_path / "none") == set()


CODE = (
    "from fer_utils.training import device; print(device.prepare(1, 0, False)['name'], device.onednn_came_too_late())"
)


@pytest.mark.skipif(device.onednn_in_use() is None, reason="not an x86 processor")
def test_onednn_is_used_unless_someone_says_otherwise():
    variable = "TF_ENABLE_ONEDNN_OPTS"
    if os.environ.get(variable) != "0":  # this very process
        assert device.onednn_in_use() and not device.onednn_came_too_late()
    # TensorFlow read the variable, or read it before this package set it.
    for code, expected in ((CODE, "False"), (f"import tensorflow, os; del os.environ['{variable}']; {CODE}", "True")):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=os.environ | {variable: "0"}, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1].endswith(f", without oneDNN {expected}")


def test_versions_name_tensorflow_under_either_name():
    import keras
    import tensorflow

    found = device.versions()
    assert (found["tensorflow"], found["keras"]) == (tensorflow.__version__, keras.__version__)


def test_memory_is_in_mebibytes():
    block = bytearray(200 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    assert 200 < device.peak_memory_mb() < 20_000
