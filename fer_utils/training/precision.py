"""The arithmetic that a network is trained in: float32, or 16 bits where that was measured to be faster."""

from pathlib import Path

import yaml

from fer_utils.errors import ConfigError
from fer_utils.training import machine

#: What `auto` means; see the file.
TABLE = Path(__file__).with_name("precision.yaml")

PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")

#: Processor flags of instructions that multiply bfloat16; without one, TensorFlow emulates them slowly.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def choose(asked, notebook, device):
    """Return the Keras dtype policy to train with.

    Parameters
    ----------
    asked : {"auto", "float32", "mixed_bfloat16", "mixed_float16"}
        The notebook's parameter. On a CPU mixed_float16 works, several times more slowly than float32.
    notebook : str
        File name, by which the table of `auto` knows the network.
    device : {"CPU", "GPU"}
        What is trained on.

    Returns
    -------
    {"float32", "mixed_bfloat16", "mixed_float16"}

    Raises
    ------
    ConfigError
        If there is no such precision.
    """
    if asked not in PRECISIONS:
        raise ConfigError(f"precision is {asked!r}; expected one of {', '.join(PRECISIONS)}")
    if asked != "auto":
        return asked
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return table.get(notebook, {}).get(kind_of_device(device), {"used": "float32"})["used"]


def kind_of_device(device, cpuinfo=machine.CPUINFO):
    """Return the table's name of a device: ``GPU``, ``CPU with bfloat16`` or ``CPU``.

    Parameters
    ----------
    device : {"CPU", "GPU"}
        What is trained on.
    cpuinfo : Path
        Where Linux lists the processor's flags. Elsewhere a processor counts as one without bfloat16.
    """
    if device != "CPU":
        return device
    return "CPU with bfloat16" if machine.cpu_flags(cpuinfo) & BFLOAT16_FLAGS else "CPU"
