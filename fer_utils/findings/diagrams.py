"""A network drawn stage by stage from ``architecture.json`` (see `fer_utils.training.architecture.describe`).

Keras's ``plot_model`` needs the Graphviz program, which pip does not install, and draws every layer; visualkeras needs
the network itself and does not read Keras 3. Nothing here needs TensorFlow.
"""

import math
import re
import textwrap
from itertools import groupby

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon

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
NAMES = {"relu": "ReLU", "linear": "", "hard_silu": "hard swish", "silu": "swish", "LeakyReLU": "leaky ReLU"}
WIDTH, COLUMNS, ROW = 10.0, 9, 4.1  # inches of the page, stages side by side, inches of a row of stages
SIZE, LINE, MOST = 8.0, 0.16, 8  # points of the text, inches from line to line, lines under a stage


def flat_layers(architecture, part=""):
    """List all layers in order, nested ones in their model's place, with the nested model they belong to: ``part``."""
    layers = []
    for layer in architecture.get("layers", ()):
        if "layers" in layer:
            layers += [inner for inner in flat_layers(layer, layer["name"]) if inner["class"] != "InputLayer"]
        elif not layer["class"].startswith("ops."):  # bare arithmetic, which older files list
            layers.append(layer | {"part": part})
    return layers


def base_of(architecture):
    """Return the largest model nested in a network, such as ResNet-50 under a classifier; None if there is none."""
    nested = [layer for layer in architecture.get("layers", ()) if "layers" in layer]
    return max(nested, key=lambda layer: layer["parameters"], default=None)


def count_layers(architecture):
    """Count layers with weights as names such as ResNet-50 and VGG-16 do.

    Parameters
    ----------
    architecture : dict
        ``architecture.json``, or a nested model in it (`base_of`).

    Returns
    -------
    dict of str to int
        ``convolution`` (main path, without depthwise), ``depthwise``, ``dense``, ``weight_layers`` (their sum), and,
        not in the sum, ``projection`` (1x1 convolutions on shortcuts, ``..._0_conv``) and ``squeeze_excite``.
    """
    counts = dict.fromkeys(("convolution", "depthwise", "dense", "weight_layers", "projection", "squeeze_excite"), 0)
    for layer in flat_layers(architecture):
        kind = kind_of(layer)
        if kind == "convolution" and aside(layer):
            counts["projection" if layer["name"].endswith("_0_conv") else "squeeze_excite"] += 1
        elif kind in ("convolution", "depthwise", "dense"):
            counts[kind] += 1
            counts["weight_layers"] += 1
    return counts


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


def stages(architecture):
    """Group a network into stages: runs of blocks and layers whose feature maps have the same height and width.

    A pooling layer ends its stage. Dense layers, and the flattening or global pooling before them, are the stage
    "classifier"; what precedes the first convolution belongs to the input.

    Returns
    -------
    list of dict
        ``name``, ``part`` (the nested model, or ""), ``shape`` (height, width, channels, before the pooling),
        ``layers`` (all of them) and ``boxes`` ((kind, layers) of each block and each layer that is drawn).
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
        stage["parameters"], stage["trainable"] = (
            sum(layer[key] for layer in stage["layers"]) for key in ("parameters", "trainable_parameters")
        )
    return found


def contents(stage):
    """Return lines of text that say what a stage is made of."""
    lines = []
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


def kernel(layer):
    """Size of a kernel or of a pooling window, as ``3×3``."""
    size = layer["settings"].get("kernel_size") or layer["settings"].get("pool_size") or ""
    return "×".join(map(str, size)) if isinstance(size, list) else str(size)


def activation(layer):
    """Name of the activation that a layer applies, or ""."""
    own = layer["class"] if layer["class"] in ("ReLU", "LeakyReLU", "Softmax") else ""
    name = layer["settings"].get("activation", own)
    return "ReLU6" if layer["settings"].get("max_value") == 6 else NAMES.get(name, name)


def draw(architecture):
    """Draw a network's feature maps stage by stage (thesis, Figures 3.5, 3.13, 3.14, 3.16, 3.17 and 3.19).

    A box is a block or a layer; its height grows with the side of the feature map (square root), its width with the
    channels (logarithm). Dense layers are bars.

    Parameters
    ----------
    architecture : dict
        ``architecture.json``.

    Returns
    -------
    figure : Figure
        10 inches wide, at most `COLUMNS` stages in a row.
    data : DataFrame
        One row per stage: ``stage``, ``part``, ``blocks``, ``layers``, ``output_shape``, ``parameters``, ``trainable``.
    """
    network = stages(architecture)
    side = max([stage["shape"][0] for stage in network if len(stage["shape"]) == 3], default=1)
    columns = min(len(network), COLUMNS)
    rows = -(-len(network) // columns)
    width, height = WIDTH / columns, ROW * rows + 0.3
    figure = Figure(figsize=(WIDTH, height))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, height))
    ax.set_axis_off()
    for number, stage in enumerate(network):
        row, column = divmod(number, columns)
        x, top = (column + 0.5) * width, height - ROW * row
        draw_boxes(ax, stage, x, top - 1.5, width - 0.15, side)
        size = [f"{short(stage['parameters'])} params"] * bool(stage["parameters"])
        lines = ["×".join(map(str, stage["shape"])), *contents(stage)]
        lines = [part for line in lines for part in textwrap.wrap(line, 19) or [""]]
        lines = lines[: MOST - 1] + ["…"] * (len(lines) >= MOST) + size
        style = {"ha": "center", "va": "top", "size": SIZE, "color": INK}
        ax.text(x, top - 2.7, stage["name"], weight="bold", **style)
        ax.text(x, top - 2.7 - LINE, "\n".join(lines), linespacing=1.4, **style)
        if stage["part"] and (column == 0 or network[number - 1]["part"] != stage["part"]):
            same = [other["part"] == stage["part"] for other in network[number : number - column + columns]]
            end = x + width * ((same + [False]).index(False) - 0.55)
            ax.plot(
                [x - 0.45 * width] * 2 + [end] * 2, [top - 0.28, top - 0.22, top - 0.22, top - 0.28], color=INK, lw=0.8
            )
            label = f"{stage['part']} ({state([s for s in network if s['part'] == stage['part']])})"
            label = label[: int((end - x + 0.45 * width) / 0.06)]
            ax.text((x - 0.45 * width + end) / 2, top - 0.05, label, style="italic", **style)
    drawn = {kind for stage in network for kind, _ in stage["boxes"]} | {"input"}
    looks = {kind: look for kind, look in KINDS.items() if kind in drawn}
    handles = [Patch(fc=fill, hatch=hatch, ec="#777777", label=kind) for kind, (fill, hatch) in looks.items()]
    ax.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=SIZE, frameon=False)
    data = pd.DataFrame(network).rename(columns={"name": "stage"})
    data["blocks"] = ["; ".join(contents(stage)) for stage in network]
    data["layers"] = data["layers"].map(len)
    data["output_shape"] = [
        "×".join(map(str, (s["layers"] or [{"output_shape": s["shape"]}])[-1]["output_shape"])) for s in network
    ]
    return figure, data[["stage", "part", "blocks", "layers", "output_shape", "parameters", "trainable"]]


def state(network):
    """Say whether stages are "trained", "frozen" or "partly trained"."""
    states = {bool(layer["trainable_parameters"]) for s in network for layer in s["layers"] if layer["parameters"]}
    return {(True,): "trained", (False,): "frozen"}.get(tuple(states), "partly trained")


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
        bottom, top, slant = middle - height / 2, middle + height / 2, 0.05 + 0.04 * height
        front = [(x, bottom), (x + width, bottom), (x + width, top), (x, top)]
        back = [(a + slant, b + slant) for a, b in front]
        for face, shade in (
            (front, 0),
            ([front[3], front[2], back[2], back[3]], 0.4),
            ([*front[1:3], back[2], back[1]], 0.15),
        ):
            ax.add_patch(Polygon(face, facecolor=fill, edgecolor=INK, lw=0.6))
            ax.add_patch(Polygon(face, facecolor="white", alpha=shade, lw=0))
        ax.add_patch(Polygon(front, facecolor="none", edgecolor="#00000055", lw=0, hatch=hatch))
        if repeats > 1:
            badge = {"boxstyle": "round,pad=0.15", "facecolor": INK, "edgecolor": "none"}
            ax.text(
                x + width / 2, middle, f"×{repeats}", ha="center", va="center", size=SIZE, color="white", bbox=badge
            )
        x += width + gap


def box_size(shape, side):
    """Width and height in inches of the box of a feature map, or of a vector of units."""
    if len(shape) == 3:
        return 0.02 + 0.025 * math.log2(max(shape[-1], 1) + 1), 1.9 * math.sqrt(max(shape[0], 1) / side)
    return 0.08, 0.15 * math.log2(max(shape[-1] if shape else 1, 1) + 1)
