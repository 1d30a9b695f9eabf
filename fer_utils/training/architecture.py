"""A built Keras network as plain data, and what can be read off it.

A model's notebook calls `describe` once and the result is saved as JSON; everything else here and in
`fer_utils.findings.diagrams` works on that JSON, so that the findings need no TensorFlow.
"""

import math
import os
import re
from unittest.mock import patch

from fer_utils.errors import FerError

#: What a reader wants to know of a layer; a setting that a layer lacks is left out.
SETTINGS = (
    "filters", "kernel_size", "strides", "padding", "units", "pool_size", "rate", "activation", "use_bias",
    "scale", "offset", "depth_multiplier", "dilation_rate", "groups", "negative_slope", "max_value", "axis",
)  # fmt: skip


#: Kinds of boxes that a stage is made of, each drawn in a way of its own; the rest are "other".
BOXES = ("input", "convolution", "residual block", "depthwise block", "pooling", "dense")

KINDS = {
    "InputLayer": "input",
    "Conv2D": "convolution",
    "DepthwiseConv2D": "depthwise",
    "Dense": "dense",
    "MaxPooling2D": "pooling",
    "AveragePooling2D": "pooling",
    "GlobalAveragePooling2D": "global pooling",
    "GlobalMaxPooling2D": "global pooling",
    "Flatten": "flatten",
    "Dropout": "dropout",
    "SpatialDropout2D": "dropout",
    "ZeroPadding2D": "padding",
    "BatchNormalization": "normalisation",
    "LayerNormalization": "normalisation",
    "Activation": "activation",
    "ReLU": "activation",
    "LeakyReLU": "activation",
    "Softmax": "activation",
    "Add": "addition",
}


def describe(model) -> dict:
    """Describe a built Keras model as JSON-able data.

    Parameters
    ----------
    model : keras.Model
        A built Sequential or functional model; models nested in it are described in turn.

    Returns
    -------
    dict
        ``name``, ``class``, ``input_shape`` and ``output_shape`` (without the batch), ``parameters``
        (``total``, ``trainable``, ``non_trainable``), ``counts`` (see :func:`count_layers`) and ``layers``: a
        list in the order of computation of ``name``, ``class`` (a bare operation such as ``x + 3`` is
        ``ops.Add``), ``output_shape``, ``parameters``, ``trainable_parameters``, ``settings``, ``inbound``
        (names of the layers it reads) and, for a nested model, its own ``layers``.

    Raises
    ------
    FerError
        If the model is not built, or is subclassed and so has no graph of layers.
    """
    import keras

    if not isinstance(model, keras.Sequential | keras.Model) or not model.built:
        raise FerError(f"{model!r} is not a built Keras model; call its build() or give it an Input first")
    graph = _graph(model)
    description = {
        "name": model.name,
        "class": type(model).__name__,
        "input_shape": _shape(model.input_shape),
        "output_shape": _shape(model.output_shape),
        "parameters": {
            "total": int(model.count_params()),
            "trainable": _size(model.trainable_weights),
            "non_trainable": _size(model.non_trainable_weights),
        },
        "layers": [_describe(layer, inbound) for layer, inbound in graph],
    }
    description["counts"] = count_layers(description)
    return description


def summary_text(model, width: int = 100) -> str:
    """Return what ``model.summary()`` prints, nested models expanded, as text of `width` columns.

    Parameters
    ----------
    model : keras.Model
        A built model.
    width : int
        Characters a line.

    Returns
    -------
    str
        The table, lines separated by newlines.
    """
    lines: list[str] = []
    # Keras prints through rich, which cuts the table to the terminal's width, whatever line_length says.
    with patch.dict(os.environ, {"COLUMNS": str(width), "JUPYTER_COLUMNS": str(width)}):
        model.summary(line_length=width, print_fn=lines.append, expand_nested=True)
    return "\n".join(line.rstrip() for line in "\n".join(lines).splitlines())


def _graph(model) -> list[tuple]:
    """Return (layer or operation, names it reads) in the order of computation."""
    import keras

    if isinstance(model, keras.Sequential):
        names = [None] + [layer.name for layer in model.layers]
        return [(layer, [before] if before else []) for layer, before in zip(model.layers, names[:-1], strict=True)]
    config = model.get_config()
    if "layers" not in config:
        raise FerError(f"model {model.name!r} is subclassed; give it as a Sequential or functional model")
    inbound = {layer["name"]: _histories(layer["inbound_nodes"]) for layer in config["layers"]}
    # `operations` also lists bare arithmetic between layers, as MobileNet-V3 has it; `layers` leaves it out.
    return [(operation, inbound[operation.name]) for operation in model.operations]


def _histories(node) -> list[str]:
    """Collect the layers' names in a serialised list of inbound tensors, in order and without repeats."""
    if isinstance(node, dict):
        if "keras_history" in node:
            return [node["keras_history"][0]]
        node = list(node.values())
    if isinstance(node, list | tuple):
        return list(dict.fromkeys(name for part in node for name in _histories(part)))
    return []


def _describe(layer, inbound: list[str]) -> dict:
    import keras

    is_layer = isinstance(layer, keras.layers.Layer)
    settings = {name: _plain(getattr(layer, name)) for name in SETTINGS if is_layer and hasattr(layer, name)}
    described = {
        "name": layer.name,
        "class": type(layer).__name__ if is_layer else f"ops.{type(layer).__name__}",
        "output_shape": _shape(layer.output.shape),
        "parameters": int(layer.count_params()) if is_layer else 0,
        "trainable_parameters": _size(layer.trainable_weights) if is_layer else 0,
        "settings": {name: value for name, value in settings.items() if value is not None},
        "inbound": inbound,
    }
    if isinstance(layer, keras.Model):
        described["layers"] = [_describe(inner, names) for inner, names in _graph(layer)]
    return described


def _plain(value):
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str) else None


def _shape(shape) -> list[int | None]:
    shape = shape[0] if isinstance(shape, list) else shape
    return list(shape[1:])


def _size(weights) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


def base_of(architecture: dict) -> dict | None:
    """Return the description of the largest model nested in `architecture`, or None if there is none."""
    nested = [layer for layer in architecture["layers"] if "layers" in layer]
    return max(nested, key=lambda layer: layer["parameters"], default=None)


def count_layers(architecture: dict) -> dict[str, int]:
    """Count the layers that hold weights, as network names such as ResNet-50 and VGG-16 count them.

    Such names count the convolutions and dense layers on the main path. Batch normalisation, the 1x1
    convolutions on shortcuts (Keras names them ``..._0_conv``) and those of squeeze-and-excitation branches
    stand apart.

    Parameters
    ----------
    architecture : dict
        From :func:`architecture`, or a nested model in it (:func:`base_of`).

    Returns
    -------
    dict of int
        ``convolution`` (main path, without depthwise), ``depthwise``, ``dense``, ``weight_layers`` (the sum
        of these three), and beside them ``projection`` and ``squeeze_excite``.
    """
    counts = dict.fromkeys(("convolution", "depthwise", "dense"), 0)
    aside = {"projection": 0, "squeeze_excite": 0}
    for layer in _flat(architecture):
        if _is_projection(layer):
            aside["projection"] += 1
        elif "squeeze_excite" in layer["name"]:
            aside["squeeze_excite"] += layer["class"] == "Conv2D"
        elif _kind(layer) in counts:
            counts[_kind(layer)] += 1
    return counts | {"weight_layers": sum(counts.values())} | aside


def stages(architecture: dict) -> list[dict]:
    """Group a network's layers into the stages and blocks that a diagram shows.

    Blocks are told by Keras's names (``conv2_block1_``, ``expanded_conv_1_``, ``conv_dw_3``, ``block1_``);
    layers without such a name form a stage that ends with a pooling layer or with a change of image size.
    Dense layers and what flattens the image for them form the stage "classifier".

    Parameters
    ----------
    architecture : dict
        From :func:`architecture`, or a nested model in it (:func:`base_of`).

    Returns
    -------
    list of dict
        A stage has ``name``, ``part`` (the nested model that it belongs to, or ""), ``output_shape``,
        ``parameters``, ``trainable_parameters``, ``weight_layers`` (:func:`count_layers`' sum),
        ``kernel_sizes`` (main-path convolutions of its first block), ``notes`` (normalisation and
        activations) and ``blocks``. A block has ``name``, ``kind`` (a key of ``STYLES``), ``lines`` (what is
        in it), ``repeats``, ``shortcut`` (None, "identity" or "projection") and ``output_shape``.
    """
    result = []
    for segment in _segments(architecture):
        block_like = _kind_of_block(segment["layers"]) in ("residual block", "depthwise block")
        family = re.sub(r"_block\d+$|_\d+$", "", segment["name"])
        shape = segment["layers"][-1]["output_shape"]
        key = (segment["part"], family, tuple(shape[:-1])) if block_like else None
        if not (result and key and result[-1]["key"] == key):
            result.append({"key": key, "family": family, "part": segment["part"], "segments": []})
        result[-1]["segments"].append(segment)
    described = [_stage(group) for group in result]
    unnamed = [stage for stage in described if stage["name"] == "convolution"]
    for number, stage in enumerate(unnamed, 1):
        stage["name"] += f" {number}" if len(unnamed) > 1 else ""
    return described


def _flat(architecture: dict, part: str = "") -> list[dict]:
    """Return all layers in order, nested ones in their model's place, each with the `part` it belongs to."""
    layers = []
    for layer in architecture["layers"]:
        if "layers" in layer:
            layers += [inner for inner in _flat(layer, layer["name"]) if inner["class"] != "InputLayer"]
        else:
            layers.append(layer | {"part": part})
    return layers


def _kind(layer: dict) -> str:
    return KINDS.get(layer["class"], "other")


def _is_projection(layer: dict) -> bool:
    return layer["class"] == "Conv2D" and layer["name"].endswith("_0_conv")


def _on_main_path(layer: dict) -> bool:
    return not _is_projection(layer) and "squeeze_excite" not in layer["name"]


def _block_name(name: str) -> str | None:
    """Return the block that a layer's name says it belongs to, if it says so."""
    if found := re.match(r"conv_(?:dw|pw|pad)_(\d+)", name):
        return f"separable_{found[1]}"
    found = re.match(r"(.*?block_?\d+)_|(expanded_conv(?:_\d+)?)_", name)
    return found and (found[1] or found[2])


def _segments(architecture: dict) -> list[dict]:
    """Cut the list of layers into blocks, plain convolution stages and the classifier."""
    shape = architecture.get("input_shape") or architecture["layers"][0]["output_shape"]
    start = {"name": "input", "class": "InputLayer", "output_shape": shape, "parameters": 0,
             "trainable_parameters": 0, "settings": {}, "inbound": [], "part": ""}  # fmt: skip
    segments = [{"name": "input", "part": "", "layers": [start], "closed": False}]
    padding = []
    for layer in _flat(architecture):
        kind, block, now = _kind(layer), _block_name(layer["name"]), segments[-1]
        if kind == "input":
            continue
        if block:
            wanted = block
        elif kind == "padding":
            padding.append(layer)
            continue
        elif kind == "convolution" or kind == "depthwise":
            same_size = now["layers"][-1]["output_shape"][:-1] == layer["output_shape"][:-1]
            goes_on = now["name"] == "convolution" and same_size and not now["closed"]
            wanted = "convolution" if goes_on else None
        elif kind == "pooling":
            wanted = "convolution" if now["name"] == "convolution" else None
        elif kind in ("dense", "flatten", "global pooling"):
            wanted = "classifier"
        else:
            wanted = now["name"]
        if wanted != now["name"] or layer["part"] != now["part"] and kind in ("convolution", "depthwise"):
            name = wanted or "convolution"
            segments.append({"name": name, "part": layer["part"], "layers": [], "closed": False})
        segments[-1]["layers"] += [*padding, layer]
        segments[-1]["closed"] |= kind == "pooling"
        padding = []
    return segments


def _kind_of_block(layers: list[dict]) -> str:
    kinds = [_kind(layer) for layer in layers]
    if _shortcut(layers) and "depthwise" not in kinds:
        return "residual block"
    if "depthwise" in kinds:
        return "depthwise block"
    known = ("convolution", "dense", "pooling", "input")
    return next((kind for kind in known if kind in kinds), "other")


def _shortcut(layers: list[dict]) -> str | None:
    """Return how a block's input reaches the addition at its end, if it does."""
    inside = {layer["name"] for layer in layers}
    additions = [layer for layer in layers if _kind(layer) == "addition" and len(layer["inbound"]) > 1]
    if not additions:
        return None
    return "identity" if set(additions[-1]["inbound"]) - inside else "projection"


def _stage(group: dict) -> dict:
    layers = [layer for segment in group["segments"] for layer in segment["layers"]]
    kernels = [
        layer["settings"]["kernel_size"][0]
        for layer in group["segments"][0]["layers"]
        if _kind(layer) in ("convolution", "depthwise") and _on_main_path(layer)
    ]
    return {
        "name": _stage_name(group["family"], group["segments"]),
        "part": group["part"],
        "output_shape": layers[-1]["output_shape"],
        "parameters": sum(layer["parameters"] for layer in layers),
        "trainable_parameters": sum(layer["trainable_parameters"] for layer in layers),
        "weight_layers": count_layers({"layers": layers})["weight_layers"],
        "kernel_sizes": kernels,
        "notes": _notes(layers),
        "blocks": _blocks(group["segments"]),
    }


def _stage_name(family: str, segments: list[dict]) -> str:
    names = [segment["name"] for segment in segments]
    if family == "convolution":
        convolution = next((layer["name"] for layer in segments[0]["layers"] if _kind(layer) == "convolution"), "")
        named = re.fullmatch(r"(conv\d+)(?:_conv)?|(conv(?:_\d+)?)", convolution)
        return (named[1] or named[2]).replace("_", " ") if named else "convolution"
    numbers = [re.sub(r".*\D", "", name) or "0" for name in (names[0], names[-1])]
    if family in ("expanded_conv", "separable"):
        return f"{family.replace('_', ' ')} {'–'.join(dict.fromkeys(numbers))}"
    return family


def _notes(layers: list[dict]) -> list[str]:
    """Name the normalisation and the activations of a stage's main path."""
    notes = ["batch norm"] if any(layer["class"] == "BatchNormalization" for layer in layers) else []
    # A ReLU that reads bare arithmetic is half of a hard sigmoid, not an activation layer of its own.
    arithmetic = {layer["name"] for layer in layers if layer["class"].startswith("ops.")}
    for layer in layers:
        if _on_main_path(layer) and not arithmetic & set(layer["inbound"]):
            notes.append(_activation(layer))
    return [note for note in dict.fromkeys(notes) if note]


def _activation(layer: dict) -> str:
    if layer["class"] == "ReLU":
        return "ReLU6" if layer["settings"].get("max_value") == 6 else "ReLU"
    name = layer["settings"].get("activation") or (layer["class"] if _kind(layer) == "activation" else "")
    return {"linear": "", "relu": "ReLU", "hard_silu": "hard swish"}.get(name, name)


def _blocks(segments: list[dict]) -> list[dict]:
    """Return what a stage's boxes show; equal neighbours become one box with a number of repeats."""
    blocks = []
    for segment in segments:
        kind = _kind_of_block(segment["layers"])
        if kind in ("residual block", "depthwise block"):
            parts = [(kind, _block_lines(segment["layers"]), segment["layers"][-1]["output_shape"])]
        else:
            shown = [layer for layer in segment["layers"] if _label(layer)]
            parts = [(_box_kind(layer), [_label(layer)], layer["output_shape"]) for layer in shown]
        for part_kind, lines, shape in parts:
            block = {
                "name": segment["name"],
                "kind": part_kind,
                "lines": lines,
                "repeats": 1,
                "shortcut": _shortcut(segment["layers"]) if part_kind == kind else None,
                "output_shape": shape,
            }
            alike = blocks and blocks[-1] | {"name": "", "repeats": 1} == block | {"name": ""}
            if alike and part_kind != "other":
                blocks[-1]["repeats"] += 1
            else:
                blocks.append(block)
    return blocks


def _box_kind(layer: dict) -> str:
    kind = {"global pooling": "pooling", "depthwise": "depthwise block"}.get(_kind(layer), _kind(layer))
    return kind if kind in BOXES else "other"


def _block_lines(layers: list[dict]) -> list[str]:
    lines = []
    for layer in layers:
        if "squeeze_excite" in layer["name"]:
            lines.append("squeeze-excite")
        elif _kind(layer) in ("convolution", "depthwise", "pooling") and not _is_projection(layer):
            lines.append(_label(layer))
    return list(dict.fromkeys(lines)) if "squeeze-excite" in lines else lines


def _label(layer: dict) -> str:
    """Return one line that says what a layer does, or "" if it is not worth a box of its own."""
    kind, settings, shape = _kind(layer), layer["settings"], layer["output_shape"]
    size = settings.get("kernel_size") or settings.get("pool_size") or [0]
    stride = settings.get("strides") or [1]
    step = f" /{stride[0]}" if stride[0] > 1 else ""
    pooled = "max" if "Max" in layer["class"] else "average"
    return {
        "input": "×".join(map(str, shape)),
        "convolution": f"{size[0]}×{size[0]} conv {shape[-1]}{step}",
        "depthwise": f"{size[0]}×{size[0]} depthwise{step}",
        "pooling": f"{size[0]}×{size[0]} {pooled} pool{step}",
        "global pooling": f"global {pooled} pool",
        "flatten": "flatten",
        "dropout": f"dropout {settings.get('rate', 0):g}",
        "dense": f"dense {shape[-1]} {_activation(layer)}".strip(),
        "other": "" if layer["class"].startswith("ops.") else _own_name(layer),
    }.get(kind, "")


def _own_name(layer: dict) -> str:
    """Return the name that a person gave the layer, or its class where Keras named it."""
    given = re.sub(r"_\d+$", "", layer["name"])
    return layer["class"] if given.replace("_", "") == layer["class"].lower() else layer["name"].replace("_", " ")
