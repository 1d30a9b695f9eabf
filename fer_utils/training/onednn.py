"""oneDNN, Intel's kernels, by which TensorFlow computes faster on an x86 processor."""

import os
import platform

#: What TensorFlow reads once, when it is first imported.
VARIABLE = "TF_ENABLE_ONEDNN_OPTS"

#: Whether the processor is of the kind that this is about.
X86 = platform.machine() == "x86_64"


def switch_on():
    """Switch oneDNN on for a TensorFlow that is imported later, unless someone has set the variable.

    TensorFlow does so by itself only on processors with instructions for neural networks, which many laptops lack.
    """
    if X86:
        os.environ.setdefault(VARIABLE, "1")


def in_use():
    """Return whether TensorFlow uses oneDNN; None where this package does not care."""
    # Nothing public tells.
    from tensorflow.python.util import _pywrap_util_port

    return _pywrap_util_port.IsMklEnabled() if X86 else None


def came_too_late():
    """Return whether TensorFlow was imported before `switch_on` was called, and does without."""
    return in_use() is False and os.environ.get(VARIABLE) == "1"
