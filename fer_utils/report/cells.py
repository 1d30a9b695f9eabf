"""A notebook's cells as the report shows them: code folded and joined, printed text joined, prose told once."""

import re
from dataclasses import dataclass, field
from itertools import groupby

from nbformat.v4 import new_output

#: Cells with this tag are for readers of the notebook alone. The template knows the other tags.
LEAVE_OUT = "not-in-report"

#: A line that another one overwrote, and a terminal's colours.
OVERWRITTEN, COLOUR = re.compile(r"[^\n]*\r(?!\n)"), re.compile(r"\x1b\[[0-9;]*m")

#: What TensorFlow says of an attribute that its own Keras sets; it means nothing and stands in every log.
NOISE = re.compile(r"^.*NodeDef mentions attribute use_unbounded_threadpool.*\n?", re.MULTILINE)


@dataclass
class Block:
    """A piece of prose (`text`), or code cells up to the first that shows something, with what it shows."""

    text: str = ""
    sources: list = field(default_factory=list)
    places: list = field(default_factory=list)  # of the cells of code in the notebook, from 1
    tags: set = field(default_factory=set)
    outputs: list = field(default_factory=list)
    messages: str = ""  # on the error stream

    @property
    def title(self):
        """What the fold of its code is called; "" if there is neither code nor a message."""
        if not self.sources:
            return "Messages on the error stream" if self.messages else ""
        first, last = self.places[0], self.places[-1]
        parameters = "injected-parameters" in self.tags
        cells = f"cell {first}" if first == last else f"cells {first} to {last}"
        title = f"Parameters of this run: {cells}" if parameters else f"Code of {cells}"
        return title + (", and messages" if self.messages else "")


def blocks(cells, told=None, name=""):
    """Arrange a notebook's cells in a list of `Block`.

    `told` holds the sections that other notebooks told before, source to a link to that notebook: these become a
    reference, and those of this notebook, which `name` links to, are added.
    """
    found, pending = [], None
    for place, cell in enumerate(cells, 1):
        tags = set(cell.metadata.get("tags", ()))
        if LEAVE_OUT in tags:
            continue
        if cell.cell_type == "markdown":
            found += [pending] if pending else []
            pending, text = None, cell.source
            if told is not None and text.startswith("## ") and "\n" in text:
                if text in told:
                    text = f"{text.partition(chr(10))[0]}\n\nAs for {told[text]}."
                else:
                    told[text] = name
            found.append(Block(text=text))
        elif cell.cell_type == "code":
            pending = pending or Block()
            pending.tags |= tags
            if cell.source.strip():
                pending.sources.append(cell.source)
                pending.places.append(place)
            outputs, messages = shown(cell.outputs)
            pending.messages += messages
            if outputs:
                pending.outputs = outputs
                found.append(pending)
                pending = None
    return [*found, pending] if pending else found


def shown(outputs):
    """Return the outputs that show something, printed text in one piece, and what went to the error stream."""
    found, messages = [], ""
    for kind, group in groupby(outputs, lambda output: output.get("name") if output.output_type == "stream" else ""):
        group = list(group)
        if not kind:
            found += [output for output in group if output.output_type == "error" or output.get("data")]
            continue
        text = OVERWRITTEN.sub("", "".join(output.text for output in group))
        if kind == "stderr":
            messages += NOISE.sub("", text)
        elif COLOUR.sub("", text).strip():
            if found and found[-1].output_type == "stream":
                found[-1].text += text
            else:
                found.append(new_output("stream", name="stdout", text=text))
    return found, messages
