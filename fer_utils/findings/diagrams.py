"""Draw a network from its description (see `fer_utils.training.architecture`).

The drawings stand for the thesis's Figures 3.13, 3.14, 3.16, 3.17 and 3.19. They are made with matplotlib because
Keras's ``plot_model`` needs the Graphviz program, which pip does not install.
"""

import math

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyBboxPatch, Patch, Polygon, Rectangle

from fer_utils.errors import FerError
from fer_utils.training.architecture import stages

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

# All lengths are inches on the page, so that text and boxes keep their proportions in every network.
_TEXT = 8.5
_MARGIN_LEFT, _LANE, _BOXES_LEFT, _BOXES_RIGHT, _PAGE = 0.35, 1.9, 2.1, 7.1, 9.2
_GAP, _LINE = 0.5, 0.17


_GAP, _LINE = 0.5, 0.17


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
