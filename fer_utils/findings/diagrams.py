"""A network drawn stage by stage from ``architecture.json`` (see `fer_utils.training.architecture.describe`).

Keras's ``plot_model`` needs the Graphviz program, which pip does not install, and draws every layer; visualkeras needs
the network itself and does not read Keras 3. Nothing here needs TensorFlow.
"""

import math
import re
import textwrap
from itertools import groupby

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon, Rectangle

from fer_utils.findings.figures import INK

#: Fill and hatch of each kind of box; the kinds differ in greyscale too.
KINDS = {
    "input": ("#e8e8e8", ""),
    "convolution": ("#a9d3ee", ""),
    "residual block": ("#8fd4be", "//"),
    "depthwise block": ("#f7d98b", "--"),
    "pooling": ("#f0b58d", "\\\\"),
    "dense": ("#e3b7d2", "xx"),
    "other": ("#ffffff", ""),
}
MAPS = ("convolution", "residual block", "depthwise block")
#: Layers in which paths meet.
JOINTS = ("Add", "Average", "Concatenate", "Dot", "Maximum", "Minimum", "Multiply", "Subtract")
UNNAMED = ("InputLayer", "ZeroPadding2D", "Activation", "Dropout")
NAMES = {"relu": "ReLU", "linear": "", "hard_silu": "hard swish", "silu": "swish", "LeakyReLU": "leaky ReLU"}
WIDTH, COLUMNS, ROW = 10.0, 9, 4.1  # inches of the page, stages side by side, inches of a row of stages
MOST = 6  # lines that say what a stage is made of
TEXT = {"ha": "center", "va": "top", "size": 8.0, "color": INK}


def flat_layers(architecture, part=""):
    """List all layers in order, nested ones in their model's place, with the nested model they belong to: ``part``."""
    layers = []
    for layer in architecture.get("layers", ()):
        if "layers" in layer:
            layers += [inner for inner in flat_layers(layer, part or layer["name"]) if inner["class"] != "InputLayer"]
        elif not layer["class"].startswith("ops."):  # bare arithmetic, which older files list
            layers.append(layer | {"part": part})
    return layers


def kind_of(layer):
    """Return what a layer is in the drawing; "" if it has no weights, or normalises only."""
    name = layer["class"]
    if "Conv" in name:
        return "depthwise" if name.startswith("Depthwise") else "convolution"
    if "Pooling" in name or name in ("Dense", "Add"):
        return "pooling" if "Pooling" in name else name.lower()
    return "other" if layer["parameters"] and "Normalization" not in name else ""


def aside(layer):
    """Whether a layer is off the main path: on a shortcut, or in a squeeze-and-excitation branch."""
    return bool(re.search(r"_0_conv$|squeeze|_se_", layer["name"]))


def count_weight_layers(layers):
    """Count layers as names such as ResNet-50 and VGG-16 do: convolutions and dense layers on the main path."""
    return sum(kind_of(layer) in ("convolution", "depthwise", "dense") and not aside(layer) for layer in layers)


def block_of(layer):
    """Return the block that a layer is named after: ``conv2_block1_1_conv``, ``expanded_conv_4_add``, ``conv_dw_3``."""
    found = re.match(r"(.*?block_?\d+[a-z]?|expanded_conv(?:_\d+)?)_|conv_(?:dw|pw|pad)(_\d+)", layer["name"])
    return found and (found[1] or found[2])


def units(layers):
    """Group layers into residual and depthwise blocks, as (kind, layers); any other layer is a unit of its own."""
    blocks, now = [], None
    for layer in layers:
        # MobileNet-V3 leaves activations and multiplications inside its blocks unnamed.
        inside = kind_of(layer) == "" and layer["class"] != "Flatten" and now and now[0] == layer["part"]
        now = (layer["part"], block_of(layer)) if block_of(layer) else now if inside else None
        blocks.append(now)
    for block, group in groupby(zip(blocks, layers, strict=True), lambda pair: pair[0]):
        group = [layer for _, layer in group]
        kinds = {kind_of(layer) for layer in group} if block else set()
        if kinds & {"depthwise", "add"}:
            yield ("depthwise block" if "depthwise" in kinds else "residual block"), group
        else:
            yield from ((kind_of(layer).replace("depthwise", "depthwise block"), [layer]) for layer in group)


def has_branches(architecture):
    """Whether paths with convolutions run side by side outside of the blocks of `units`: they are drawn in a row."""
    found = list(units(flat_layers(architecture)))
    first = next((place for place, (kind, _) in enumerate(found) if kind in MAPS), len(found))
    return any(len(layers) == 1 and layers[0]["class"] in JOINTS for _, layers in found[first:])


def stages(architecture):
    """Group a network into stages: runs of blocks and layers whose feature maps have the same height and width.

    A pooling layer ends its stage. Dense layers, and the flattening or global pooling before them, are the stage
    "classifier"; what precedes the first convolution belongs to the input.

    A stage is a dict: ``name``, ``part`` (the nested model, or ""), ``shape`` (height, width, channels, before the
    pooling), ``layers`` (all of them) and ``boxes`` ((kind, layers) of each block and each layer that is drawn).
    """
    found, closed = [], True

    def start(name, part, shape):
        found.append({"name": name, "part": part, "shape": shape, "layers": [], "boxes": []})

    start("input", "", architecture.get("input_shape", []))
    for kind, layers in units(flat_layers(architecture)):
        now, shape, part = found[-1], layers[-1]["output_shape"], layers[0]["part"]
        flat = layers[0]["class"] == "Flatten" or (kind in ("pooling", "dense") and len(shape) < 2)
        if flat and now["name"] != "classifier":
            start("classifier", part, shape)
        elif kind in MAPS and (closed or part != now["part"] or shape[:-1] != now["shape"][:-1]):
            start("", part, shape)
        if flat or kind in MAPS:
            found[-1]["shape"], closed = shape, flat
        found[-1]["layers"] += layers
        found[-1]["boxes"] += [(kind, layers)] if kind in KINDS else []
        closed |= kind == "pooling"
    for number, stage in enumerate(found):
        # Keras's applications name layers after their stage: conv4_block1_1_conv, block4_conv1. (conv2d is a class.)
        names = [re.match(r"((?:conv|block)\d+)(?!d)[a-z]?_", layer["name"]) for layer in stage["layers"]]
        names = {match[1] for match in names if match}
        stage["name"] = stage["name"] or (names.pop() if len(names) == 1 else f"stage {number}")
    return found


def describe_stage(stage):
    """Row of the table that `draw` returns; ``weight_layers`` are those on the main path."""
    layers = stage["layers"]
    shapes = [layer["output_shape"] for layer in layers if layer["class"] != "ZeroPadding2D"]
    return {
        "stage": stage["name"],
        "part": stage["part"],
        "blocks": "; ".join(contents(stage)),
        "layers": len(layers),
        "weight_layers": count_weight_layers(layers),
        "output_shape": times(shapes[-1] if shapes else stage["shape"]),
        "parameters": sum(layer["parameters"] for layer in layers),
        "trainable": sum(layer["trainable_parameters"] for layer in layers),
    }


def contents(stage):
    """Return lines of text that say what a stage is made of."""
    before = [layer for layer in stage["layers"] if stage["name"] == "input" and layer["class"] not in UNNAMED]
    lines = [re.sub(r"_\d+$", "", layer["name"]).replace("_", " ") for layer in before if kind_of(layer) == ""]
    for kind, group in groupby(stage["boxes"], lambda box: box[0]):
        group = [layers for _, layers in group]
        first = group[0][0]
        if kind in MAPS[1:]:
            path = [layer for layer in group[-1] if "conv" in layer["class"].lower() and not aside(layer)]
            lines += [f"{len(group)} {kind}{'s' if len(group) > 1 else ''}", f"of {', '.join(map(kernel, path))}"]
            lines += ["squeeze-excite"] * any(re.search("squeeze|_se_", layer["name"]) for layer in group[-1])
        elif kind == "convolution":
            lines.append(f"{len(group)} conv {', '.join(dict.fromkeys(kernel(layers[0]) for layers in group))}")
        elif kind == "pooling":
            which = "max" if "Max" in first["class"] else "average"
            lines.append(f"global {which} pool" if "Global" in first["class"] else f"{which} pool {kernel(first)}")
        else:
            lines += [" ".join(map(str, [layer["class"].lower(), *layer["output_shape"][-1:]])) for (layer,) in group]
    inner = [1, 1] if stage["shape"][:-1] != [1, 1] else None  # squeeze-and-excitation
    notes = ["batch norm"] * any(layer["class"] == "BatchNormalization" for layer in stage["layers"])
    notes += [activation(layer) for layer in stage["layers"] if layer["output_shape"][:-1] != inner]
    rates = {layer["settings"].get("rate") for layer in stage["layers"] if layer["class"] == "Dropout"}
    notes = [", ".join(dict.fromkeys(filter(None, notes)))]
    return lines + [line for line in [*notes, f"dropout {min(rates):g}" if rates else ""] if line]


def times(shape):
    """Write a shape as ``48×48×1``."""
    return "×".join(map(str, shape))


def kernel(layer):
    """Size of a kernel or of a pooling window, as ``3×3``."""
    size = layer["settings"].get("kernel_size") or layer["settings"].get("pool_size") or ""
    return times(size if isinstance(size, list) else [size])


def activation(layer):
    """Name of the activation that a layer applies, or ""."""
    own = layer["class"] if layer["class"] in ("ReLU", "LeakyReLU", "Softmax") else ""
    name = layer["settings"].get("activation", own)
    return "ReLU6" if layer["settings"].get("max_value") == 6 else NAMES.get(name, name)


def draw(architecture):
    """Draw a network's feature maps stage by stage (thesis, Figures 3.5, 3.13, 3.14, 3.16, 3.17 and 3.19).

    A box is a block or a layer; its height grows with the side of the feature map (square root), its width with the
    channels (logarithm). Dense layers are bars. `architecture` is ``architecture.json``. Returns the figure, 10 inches
    wide, and a DataFrame with one row per stage (see `describe_stage`).
    """
    network = stages(architecture)
    data = pd.DataFrame([describe_stage(stage) for stage in network])
    side = max([stage["shape"][0] for stage in network if len(stage["shape"]) == 3], default=1)
    columns = min(len(network), COLUMNS)
    width, height = WIDTH / columns, ROW * -(-len(network) // columns) + 0.3
    figure = Figure(figsize=(WIDTH, height))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, height))
    ax.set_axis_off()
    for number, (stage, row) in enumerate(zip(network, data.itertuples(), strict=True)):
        x, top = (number % columns + 0.5) * width, height - ROW * (number // columns)
        draw_boxes(ax, stage, x, top - 1.5, width - 0.15, side)
        lines = [part for line in contents(stage) for part in textwrap.wrap(line, 19)]
        lines = [times(stage["shape"]), *lines[:MOST], *["…"] * (len(lines) > MOST)]
        lines += [f"{short(row.parameters)} params"] * bool(row.parameters)
        ax.text(x, top - 2.7, row.stage, weight="bold", **TEXT)
        ax.text(x, top - 2.86, "\n".join(lines), linespacing=1.4, **TEXT)
    for (part, line), rows in data.groupby(["part", data.index // columns]):
        if part:
            left, right = (rows.index[[0, -1]] % columns + [0.05, 0.95]) * width
            top = height - ROW * line
            ax.plot([left, left, right, right], top - np.array([0.28, 0.22, 0.22, 0.28]), color=INK, linewidth=0.8)
            text = f"{part} ({state([stage for stage in network if stage['part'] == part])})"
            ax.text((left + right) / 2, top - 0.05, text, style="italic", **TEXT)
    drawn = {"input", *(kind for stage in network for kind, _ in stage["boxes"])}
    looks = {kind: look for kind, look in KINDS.items() if kind in drawn}
    handles = [Patch(fc=fill, hatch=hatch, ec="#777777", label=kind) for kind, (fill, hatch) in looks.items()]
    ax.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=TEXT["size"], frameon=False)
    return figure, data


def state(network):
    """Say whether stages are trained, frozen or partly trained."""
    states = {bool(layer["trainable_parameters"]) for s in network for layer in s["layers"] if layer["parameters"]}
    return "partly trained" if len(states) > 1 else "trained" if True in states else "frozen"


def short(number):
    """Write a number of parameters in few characters: 920, 9.7k, 1.23M."""
    return str(number) if number < 1000 else f"{number / 1e3:.1f}k" if number < 1e5 else f"{number / 1e6:.2f}M"


def draw_boxes(ax, stage, x, middle, room, side):
    """Draw a stage's boxes side by side around `x`; one with a number where there are too many of a kind."""
    boxes = [(kind, *box_size(layers[-1]["output_shape"], side), 1) for kind, layers in stage["boxes"]]
    boxes = boxes or [("input", *box_size(stage["shape"], side), 1)]
    if len(boxes) > 7:
        runs = [list(run) for _, run in groupby(boxes, lambda box: box[0])]
        boxes = [(*run[-1][:3], len(run)) for run in runs]
    gap = 0.05
    fit = min(1, (room - 0.1 - gap * len(boxes)) / sum(box[1] for box in boxes))
    x -= (sum(box[1] * fit + gap for box in boxes) + 0.05) / 2
    for kind, width, height, repeats in boxes:
        (fill, hatch), width = KINDS[kind], width * fit
        right, bottom, top, back = x + width, middle - height / 2, middle + height / 2, 0.05 + 0.04 * height
        outline = [(x, bottom), (right, bottom), (right + back, bottom + back), (right + back, top + back)]
        outline += [(x + back, top + back), (x, top)]
        look = {"facecolor": fill, "edgecolor": INK, "linewidth": 0.6}
        ax.add_patch(Polygon(outline, **look))
        ax.add_patch(Polygon(outline, facecolor="white", alpha=0.4))
        ax.add_patch(Rectangle((x, bottom), width, height, hatch=hatch, hatchcolor="#00000055", **look))
        ax.plot([right, right + back], [top, top + back], color=INK, linewidth=0.6)
        if repeats > 1:
            badge = {"color": "white", "bbox": {"boxstyle": "round,pad=0.15", "facecolor": INK, "edgecolor": "none"}}
            ax.text(x + width / 2, middle + 0.05, f"×{repeats}", **TEXT | badge)
        x += width + gap


def box_size(shape, side):
    """Width and height in inches of the box of a feature map, or of a vector of units."""
    if len(shape) == 3:
        return 0.02 + 0.025 * math.log2(max(shape[-1], 1) + 1), 1.9 * math.sqrt(max(shape[0], 1) / side)
    return 0.08, 0.15 * math.log2(max(shape[-1] if shape else 1, 1) + 1)
