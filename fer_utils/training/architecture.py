"""A built Keras network as plain data, from which diagrams are drawn and claims judged without TensorFlow."""

import math
import os
from unittest.mock import patch

from fer_utils.errors import TrainingError

#: What is kept of a layer's configuration; a setting that a layer lacks is left out.
SETTINGS = (
    "activation", "filters", "kernel_size", "strides", "units", "pool_size", "rate", "max_value", "use_bias",
)  # fmt: skip


def describe(network):
    """Describe a built Keras network as data that JSON can hold (``architecture.json``).

    Parameters
    ----------
    network : keras.Model
        A built Sequential or functional model; models nested in it are described in turn. A layer without a known
        output shape, as in a subclassed model, has an empty one.

    Returns
    -------
    dict
        ``name``, ``class``, ``input_shape`` and ``output_shape`` (without the batch axis), ``parameters`` (``total``,
        ``trainable``, ``non_trainable``) and ``layers``: a list in the order of computation of ``name``, ``class``,
        ``output_shape``, ``parameters``, ``trainable_parameters``, ``settings`` (those of `SETTINGS` that the layer
        has) and, for a nested model, its own ``layers``.

    Raises
    ------
    TrainingError
        If the network is not built, so that its parameters cannot be counted.
    """
    if not getattr(network, "built", False) or not hasattr(network, "layers"):
        raise TrainingError(f"{network!r} is not a built Keras model; give it an Input, or call its build(), first")
    total, trainable = network.count_params(), count_values(network.trainable_weights)
    return {
        "name": network.name,
        "class": type(network).__name__,
        "input_shape": without_batch(getattr(network, "input_shape", ())),
        "output_shape": without_batch(getattr(network, "output_shape", ())),
        "parameters": {"total": total, "trainable": trainable, "non_trainable": total - trainable},
        "layers": [describe_layer(layer) for layer in network.layers],
    }


def describe_layer(layer):
    """One entry of ``layers``; see `describe`."""
    settings = {name: plain(getattr(layer, name, None)) for name in SETTINGS}
    described = {
        "name": layer.name,
        "class": type(layer).__name__,
        "output_shape": without_batch(getattr(getattr(layer, "output", None), "shape", ())),
        "parameters": layer.count_params(),
        "trainable_parameters": count_values(layer.trainable_weights),
        "settings": {name: value for name, value in settings.items() if value is not None},
    }
    if hasattr(layer, "layers"):
        described["layers"] = [describe_layer(inner) for inner in layer.layers]
    return described


def without_batch(shape):
    """Return a shape as a list without the batch axis; of several inputs or outputs, that of the first."""
    return list(shape[0] if shape and isinstance(shape[0], list | tuple) else shape)[1:]


def count_values(weights):
    """Count the numbers in a list of weights."""
    return sum(math.prod(weight.shape) for weight in weights)


def plain(value):
    """Return a setting as JSON can hold it: a function by its name, a tuple as a list."""
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return list(value) if isinstance(value, tuple) else value


def summary_text(network, width=100):
    """Return what ``network.summary()`` prints, nested models expanded, in `width` columns."""
    lines = []
    # Keras prints through rich, which cuts the table to the terminal's width, whatever line_length says.
    with patch.dict(os.environ, {"COLUMNS": str(width), "JUPYTER_COLUMNS": str(width)}):
        network.summary(line_length=width, print_fn=lines.append, expand_nested=True)
    return "\n".join(line.rstrip() for line in "\n".join(lines).splitlines())
