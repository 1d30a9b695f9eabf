"""What `precision: auto` stands for."""

import pytest
import yaml
from scipy.stats import ttest_ind

from fer_utils.errors import ConfigError
from fer_utils.paths import project_root
from fer_utils.training import precision


def test_auto_follows_the_table_and_is_float32_elsewhere(monkeypatch):
    table = yaml.safe_load(precision.TABLE.read_text())
    for notebook, devices in table.items():
        assert (project_root() / "notebooks" / notebook).is_file()
        for kind, entry in devices.items():
            monkeypatch.setattr(precision, "kind_of_device", lambda device, kind=kind: kind)
            assert precision.choose("auto", notebook, "CPU") == entry["used"]
            assert entry["used"] in precision.PRECISIONS[1:]
    monkeypatch.setattr(precision, "kind_of_device", lambda device: "CPU")
    assert precision.choose("auto", "03_resnet50.ipynb", "CPU") == "float32"
    assert precision.choose("auto", "of_a_user.ipynb", "CPU") == "float32"
    assert precision.choose("mixed_bfloat16", "of_a_user.ipynb", "CPU") == "mixed_bfloat16"


def test_16_bits_are_used_where_they_are_faster_and_learn_no_worse():
    for notebook, devices in yaml.safe_load(precision.TABLE.read_text()).items():
        for kind, entry in devices.items():
            median, low, high = entry["ratio"]
            assert low <= median <= high
            assert (low > 1) == (entry["used"] == "mixed_bfloat16"), (notebook, kind)
            if entry["used"] != "float32":
                used, float32 = entry["accuracy"]["used"], entry["accuracy"]["float32"]
                assert len(used) == len(float32) >= 3
                # Welch: worse by more than the seeds explain?
                assert ttest_ind(used, float32, equal_var=False, alternative="less").pvalue > 0.05, (notebook, kind)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16\n", "CPU with bfloat16"),
        ("processor : 0\nFeatures\t: fp asimd bf16\n", "CPU with bfloat16"),
        # A part of a flag's name, and a flag elsewhere, say nothing.
        ("model name : avx512_bf16\nflags : fpu avx512_bf16x\n", "CPU"),
        (None, "CPU"),
    ],
)
def test_a_cpu_counts_by_its_flags(tmp_path, text, kind):
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    assert precision.kind_of_device("CPU", path) == kind
    assert precision.kind_of_device("GPU", path) == "GPU"


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="'half'; expected one of auto"):
        precision.choose("half", "03_resnet50.ipynb", "CPU")
