"""Describe a built Keras network as plain data, and draw it from that description.

A model notebook calls :func:`architecture` once and saves the result as JSON; everything else here works on
that JSON, so a report draws the diagrams without TensorFlow. The drawings stand for the thesis's Figures 3.13,
3.14, 3.16, 3.17 and 3.19. They are made with matplotlib because Keras's ``plot_model`` needs the Graphviz
program.
"""

import math
import os
import re
from unittest.mock import patch

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyBboxPatch, Patch, Polygon, Rectangle

from fer_utils.errors import FerError

#: What a reader wants to know of a layer; a setting that a layer lacks is left out.
SETTINGS = (
    "filters", "kernel_size", "strides", "padding", "units", "pool_size", "rate", "activation", "use_bias",
    "scale", "offset", "depth_multiplier", "dilation_rate", "groups", "negative_slope", "max_value", "axis",
)  # fmt: skip

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

#: Fill (Okabe-Ito, lightened) and hatch of each kind of box, so that the kinds also differ in greyscale.
STYLES = {
    "input": ("#f2f2f2", ""),
    "convolution": ("#a9d3ee", ""),
    "residual block": ("#8fd4be", "//"),
    "depthwise block": ("#f7d98b", "--"),
    "pooling": ("#f0b58d", "\\\\"),
    "dense": ("#e3b7d2", "xx"),
    "other": ("#ffffff", ""),
}

_INK = "#222222"


# --- from a model to data -----------------------------------------------------------------------------------


def architecture(model) -> dict:
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


# --- from data to facts -------------------------------------------------------------------------------------


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
    return kind if kind in STYLES else "other"


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


# --- from facts to pictures ---------------------------------------------------------------------------------
# All lengths below are inches on the page, so that text and boxes keep their proportions in every network.

_TEXT = 8.5
_MARGIN_LEFT, _LANE, _BOXES_LEFT, _BOXES_RIGHT, _PAGE = 0.35, 1.9, 2.1, 7.1, 9.2
_GAP, _LINE = 0.5, 0.17


def draw(architecture: dict, view: str = "flow") -> Figure:
    """Draw a network; see :func:`draw_flow` and :func:`draw_blocks`, the two values of `view`."""
    views = {"flow": draw_flow, "blocks": draw_blocks}
    if view not in views:
        raise FerError(f"no view {view!r} of a network; use one of {', '.join(views)}")
    return views[view](architecture)


def draw_flow(architecture: dict) -> Figure:
    """Draw the flowchart of a network: a row a stage, residual connections above their blocks.

    Parameters
    ----------
    architecture : dict
        From :func:`architecture`.

    Returns
    -------
    matplotlib.figure.Figure
        One page, 9.2 inches wide, as high as the network needs. Not registered with pyplot.
    """
    network = stages(architecture)
    rows = [_row_lines(stage["blocks"]) for stage in network]
    heights = [max(sum(_line_height(line) for line in lines), 0.62) for lines in rows]
    top = sum(heights) + 0.45
    figure, ax = _page(_PAGE, top + 0.35)
    _title(ax, architecture, top + 0.18)
    y = top
    leave = None
    for index, (stage, lines, height) in enumerate(zip(network, rows, heights, strict=True)):
        if index % 2 == 0:
            ax.add_patch(Rectangle((_MARGIN_LEFT, y - height), _PAGE - _MARGIN_LEFT, height, color="#f6f6f6"))
        _stage_text(ax, stage, y - height / 2)
        line_top = y - (height - sum(map(_line_height, lines))) / 2
        for line in lines:
            leave = _draw_line(ax, line, line_top, leave)
            line_top -= _line_height(line)
        y -= height
    _parts(ax, network, heights, top)
    _legend(ax, network, with_shortcuts=True)
    return figure


def draw_blocks(architecture: dict) -> Figure:
    """Draw the feature maps of a network as boxes: height for resolution, width for channels.

    Height goes with the square root of the map's side and width with the logarithm of its channels, since the
    largest map here has 48 times the side of the smallest. Dense layers are bars, as high as their width.

    Parameters
    ----------
    architecture : dict
        From :func:`architecture`.

    Returns
    -------
    matplotlib.figure.Figure
        About 10 inches wide and 4.4 high. Not registered with pyplot.
    """
    network = stages(architecture)
    columns, x = [], 0.55
    for stage in network:
        boxes = [box for block in stage["blocks"] for box in _cuboids(block)]
        inner = sum(width for _, width, _, _ in boxes) + 0.06 * (len(boxes) - 1) + 0.15
        column = max([inner, 0.98] + [0.073 * len(text) for text, _ in _column_text(stage)])
        columns.append((x, column, inner, boxes))
        x += column + 0.14
    figure, ax = _page(max(x + 0.2, 8.5), 4.7)
    _title(ax, architecture, 4.5)
    for stage, (left, column, inner, boxes) in zip(network, columns, strict=True):
        centre, at = left + column / 2, left + (column - inner) / 2
        for kind, width, height, text in boxes:
            _cuboid(ax, at, 2.75 - height / 2, width, height, kind)
            if text:
                ax.text(
                    at + width / 2, 2.75, text, ha="center", va="center", size=_TEXT, weight="bold", color="white",
                    bbox={"boxstyle": "round,pad=0.18", "fc": _INK, "ec": "none"},
                )  # fmt: skip
            at += width + 0.06
        for row, (text, weight) in enumerate(_column_text(stage)):
            ax.text(centre, 1.3 - row * 0.18, text, ha="center", size=_TEXT - 0.7, weight=weight, color=_INK)
    for start, end, label in _runs_of_parts(network):
        left, right = columns[start][0], columns[end][0] + columns[end][1]
        ax.plot([left, left, right, right], [4.12, 4.18, 4.18, 4.12], color=_INK, lw=0.8)
        ax.text((left + right) / 2, 4.22, label, ha="center", size=_TEXT, style="italic", color=_INK)
    _legend(ax, network, with_shortcuts=False)
    return figure


def _page(width: float, height: float) -> tuple:
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return figure, ax


def _title(ax, architecture: dict, y: float) -> None:
    size, layers = architecture["parameters"], architecture["counts"]["weight_layers"]
    text = f"{architecture['name']}: {size['total']:,} parameters ({size['trainable']:,} trainable), "
    text += f"{layers} weight layers on the main path"
    ax.text(_MARGIN_LEFT, y, text, size=_TEXT + 1, weight="bold", va="center", color=_INK)


def _box_width(block: dict) -> float:
    return 0.075 * max(map(len, block["lines"])) + 0.16


def _row_lines(blocks: list[dict]) -> list[list[dict]]:
    """Break a stage's boxes into lines that fit between the columns of text."""
    lines, x = [[]], _BOXES_LEFT
    for block in blocks:
        if lines[-1] and x + _box_width(block) > _BOXES_RIGHT:
            lines.append([])
            x = _BOXES_LEFT
        lines[-1].append(block)
        x += _box_width(block) + _gap_after(block)
    return lines


def _gap_after(block: dict) -> float:
    return _GAP if block["shortcut"] else _GAP / 2


def _line_height(line: list[dict]) -> float:
    arch = 0.16 if any(block["shortcut"] for block in line) else 0
    return _LINE * max(len(block["lines"]) for block in line) + 0.42 + arch


def _draw_line(ax, line: list[dict], top: float, leave: tuple | None) -> tuple:
    """Draw one line of boxes, entered from point `leave` above; return the point where the flow leaves it."""
    arch = 0.16 if any(block["shortcut"] for block in line) else 0
    middle = top - arch - (_line_height(line) - arch) / 2
    x, before = _BOXES_LEFT, None
    for block in line:
        width, height = _box_width(block), _LINE * len(block["lines"]) + 0.13
        if before is not None:
            _arrow(ax, [(before, middle), (x, middle)])
        elif leave is not None:
            bend = top + 0.02
            _arrow(ax, [leave, (leave[0], bend), (_LANE, bend), (_LANE, middle), (x, middle)])
        fill, _ = STYLES[block["kind"]]
        ax.add_patch(
            FancyBboxPatch((x, middle - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.05",
                           facecolor=fill, edgecolor=_INK, lw=0.8, zorder=3)
        )  # fmt: skip
        ax.text(x + width / 2, middle, "\n".join(block["lines"]), ha="center", va="center", size=_TEXT,
                linespacing=1.3, color=_INK, zorder=4)  # fmt: skip
        if block["repeats"] > 1:
            ax.text(x + width - 0.14, middle - height / 2 - 0.04, f"×{block['repeats']}", ha="center", va="center",
                    size=_TEXT, weight="bold", color="white", zorder=5,
                    bbox={"boxstyle": "round,pad=0.18", "fc": _INK, "ec": "none"})  # fmt: skip
        before = x + width
        leave = (x + width / 2, middle - height / 2)
        if block["shortcut"]:
            before = _draw_shortcut(ax, x, width, middle, height, block["shortcut"])
            leave = (before - 0.08, middle - 0.08)
        x += width + _gap_after(block)
    return leave


def _draw_shortcut(ax, x: float, width: float, middle: float, height: float, kind: str) -> float:
    """Draw the way around a block and the addition after it; return the addition's right edge."""
    start, plus, above = x - 0.1, x + width + 0.2, middle + height / 2 + 0.1
    style = "--" if kind == "projection" else "-"
    ax.plot([start, start, plus, plus], [middle, above, above, middle + 0.08], style, color=_INK, lw=1, zorder=2)
    if kind == "projection":
        ax.text(x + width / 2, above, " 1×1 conv ", ha="center", va="center", size=_TEXT - 1.5, color=_INK,
                bbox={"boxstyle": "square,pad=0", "fc": "white", "ec": "none"}, zorder=3)  # fmt: skip
    ax.plot([x + width, plus - 0.08], [middle, middle], color=_INK, lw=1, zorder=2)
    ax.add_patch(Circle((plus, middle), 0.08, facecolor="white", edgecolor=_INK, lw=1, zorder=4))
    ax.plot([plus - 0.05, plus + 0.05], [middle, middle], color=_INK, lw=1, zorder=5)
    ax.plot([plus, plus], [middle - 0.05, middle + 0.05], color=_INK, lw=1, zorder=5)
    return plus + 0.08


def _arrow(ax, points: list[tuple[float, float]]) -> None:
    *way, last = points
    ax.plot(*zip(*way, last, strict=True), color=_INK, lw=1, zorder=2, solid_joinstyle="round")
    ax.annotate("", last, way[-1], arrowprops={"arrowstyle": "-|>", "color": _INK, "lw": 1, "shrinkA": 0,
                                               "shrinkB": 0, "mutation_scale": 9}, zorder=2)  # fmt: skip


def _stage_text(ax, stage: dict, y: float) -> None:
    ax.text(_MARGIN_LEFT + 0.1, y + 0.1, stage["name"], size=_TEXT, weight="bold", va="center", color=_INK)
    shape = "×".join(map(str, stage["output_shape"]))
    ax.text(_MARGIN_LEFT + 0.1, y - 0.1, f"→ {shape}", size=_TEXT, va="center", color=_INK)
    if not stage["parameters"]:
        return
    layers = stage["weight_layers"]
    facts = [f"{stage['parameters']:,} parameters", f"{layers} weight layer{'s' if layers != 1 else ''}"]
    notes = stage["notes"] + (["frozen"] if _trained(stage) == "frozen" else [])
    facts += [", ".join(notes)] if notes else []
    ax.text(_BOXES_RIGHT + 0.3, y, "\n".join(facts), size=_TEXT - 0.7, va="center", linespacing=1.3, color=_INK)


def _runs_of_parts(network: list[dict]) -> list[tuple[int, int, str]]:
    """Return (first stage, last stage, label) of each nested model."""
    runs = []
    for part in dict.fromkeys(stage["part"] for stage in network if stage["part"]):
        inside = [i for i, stage in enumerate(network) if stage["part"] == part]
        states = {_trained(network[i]) for i in inside} - {""}
        state = states.pop() if len(states) == 1 else "partly trained"
        runs.append((inside[0], inside[-1], f"{part} ({state})"))
    return runs


def _trained(stage: dict) -> str:
    if not stage["parameters"]:
        return ""
    return "trained" if stage["trainable_parameters"] else "frozen"


def _parts(ax, network: list[dict], heights: list[float], top: float) -> None:
    for start, end, label in _runs_of_parts(network):
        high, low = top - sum(heights[:start]), top - sum(heights[: end + 1])
        ax.plot([0.3, 0.25, 0.25, 0.3], [high, high, low, low], color=_INK, lw=0.8)
        ax.text(0.14, (high + low) / 2, label, rotation=90, ha="center", va="center", size=_TEXT, style="italic",
                color=_INK)  # fmt: skip


def _cuboids(block: dict) -> list[tuple[str, float, float, str]]:
    """Return kind, width, height and text of each box that stands for a block."""
    shape = block["output_shape"]
    if len(shape) == 1:
        if block["kind"] != "dense":
            return []
        return [("dense", 0.09, 0.2 * math.log2(shape[0]), "")] * block["repeats"]
    if block["kind"] == "other":
        return []
    height = 2.2 * math.sqrt(max(shape[0], 1) / 48)
    width = 0.03 * math.log2(max(shape[-1], 2)) + 0.02
    if block["kind"] in ("residual block", "depthwise block"):
        # One wide box for a run of equal blocks keeps a deep network on the page.
        many = f"×{block['repeats']}" if block["repeats"] > 1 else ""
        return [(block["kind"], max(width, 0.36) if many else width, height, many)]
    return [(block["kind"], width, height, "")] * block["repeats"]


def _cuboid(ax, x: float, y: float, width: float, height: float, kind: str) -> None:
    fill, hatch = STYLES[kind]
    slant = min(0.12 * height, 0.14) if kind != "dense" else 0
    faces = [
        [(x, y), (x + width, y), (x + width, y + height), (x, y + height)],
        [(x, y + height), (x + width, y + height), (x + width + slant, y + height + slant),
         (x + slant, y + height + slant)],
        [(x + width, y), (x + width + slant, y + slant), (x + width + slant, y + height + slant),
         (x + width, y + height)],
    ]  # fmt: skip
    for face, shade in zip(faces, (0.0, 0.25, -0.12), strict=True):
        ax.add_patch(Polygon(face, facecolor=_shaded(fill, shade), edgecolor=_INK, lw=0.6))
    # A hatch takes its patch's edge colour, and in the ink it would drown the box.
    ax.add_patch(Polygon(faces[0], facecolor="none", edgecolor="#00000050", lw=0, hatch=hatch))


def _shaded(color: str, share: float) -> tuple[float, ...]:
    """Return `color` mixed with white (share > 0) or black (share < 0)."""
    rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return tuple(c + (1 - c) * share if share > 0 else c * (1 + share) for c in rgb)


def _column_text(stage: dict) -> list[tuple[str, str]]:
    texts = [(stage["name"], "bold"), ("×".join(map(str, stage["output_shape"])), "normal")]
    blocks = {}
    for block in stage["blocks"]:
        blocks[block["kind"]] = blocks.get(block["kind"], 0) + block["repeats"]
    for kind in ("residual block", "depthwise block", "convolution", "dense"):
        if n := blocks.get(kind):
            name = {"depthwise block": "depthw. block", "residual block": "resid. block",
                    "convolution": "conv", "dense": "dense"}[kind]  # fmt: skip
            texts.append((f"{n} {name}{'s' if n > 1 and 'block' in name else ''}", "normal"))
    if stage["kernel_sizes"]:
        texts.append((" ".join(f"{k}×{k}" for k in dict.fromkeys(stage["kernel_sizes"])), "normal"))
    return texts + ([(f"{stage['parameters']:,} params", "normal")] if stage["parameters"] else [])


def _legend(ax, network: list[dict], with_shortcuts: bool) -> None:
    used = {block["kind"] for stage in network for block in stage["blocks"]}
    handles = [
        Patch(facecolor=fill, edgecolor="#777777", hatch="" if with_shortcuts else hatch, label=kind)
        for kind, (fill, hatch) in STYLES.items()
        if kind in used and (with_shortcuts or kind != "other")
    ]
    kinds = {block["shortcut"] for stage in network for block in stage["blocks"]} - {None}
    if with_shortcuts:
        handles += [
            Line2D([], [], color=_INK, lw=1, ls="-" if kind == "identity" else "--", label=f"{kind} shortcut")
            for kind in sorted(kinds)
        ]
    ax.legend(
        handles=handles,
        loc="lower center",
        ncol=min(len(handles), 8),
        columnspacing=1.3,
        handlelength=1.8,
        fontsize=_TEXT - 0.7,
        frameon=False,
    )
