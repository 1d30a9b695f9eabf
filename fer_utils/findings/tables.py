"""How tables and sentences are saved and shown."""

import html
import re

from fer_utils.findings.figures import Displayable, caption_html, identifier, save, to_csv


def table_html(table, *, formats=None, caption="", id=""):
    """Write a table as HTML, headers with their scope, everything escaped but the caption.

    A named index gives the row headers; else the first column does. `formats` maps a column to a format such as
    ``".3f"`` or a function from value to text; floats have three decimals otherwise, and a missing value is a dash.
    """
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    formats = {
        name: form if callable(form) else f"{{:{form}}}" for name, form in (formats or {}).items() if name in table
    }
    styler = table.style.format(formats, precision=3, na_rep="–", escape="html").format_index(escape="html", axis=1)
    markup = styler.hide(axis="index").set_caption(caption).to_html(exclude_styles=True)
    markup = re.sub(r">\s*\n\s*<", "><", markup).replace("<td >", "<td>").replace("<th >", '<th scope="col">')
    markup = re.sub(r"<tr><td>(.*?)</td>", r'<tr><th scope="row">\1</th>', markup, flags=re.DOTALL)
    markup = markup.replace("<table>", f'<table id="{html.escape(id)}">' if id else "<table>", 1)
    return f'<div class="fer-table" style="overflow-x:auto">{markup}</div>'


def publish_table(table, *, number, slug, title, caption, folder, formats=None, data=None, fold=False):
    """Save a table as CSV, unrounded, and return what a notebook shows of it, a ``Displayable``.

    Parameters
    ----------
    table, formats
        As in `table_html`.
    data : DataFrame, optional
        What the CSV holds, where the table shows texts such as intervals; the table itself otherwise.
    fold : bool
        Show it folded: for one whose figure says enough.
    number, slug, title, caption, folder
        As in `publish`; the file is ``table-5.1-slug.csv``.
    """
    save(folder, f"table-{number}-{slug}.csv", to_csv(table if data is None else data))
    head = caption_html("Table", number, title, caption)
    markup = table_html(table, formats=formats, caption=head, id=identifier("table", number))
    if fold:
        markup = f"<details><summary>Table {html.escape(number)}. {html.escape(title)}</summary>{markup}</details>"
    return Displayable(markup, f"Table {number}. {title}. {caption}\n{table.to_string()}")


def heading(text):
    """Show a heading of the second rank, for a section that not every run has."""
    return Displayable(f"<h2>{html.escape(text)}</h2>", text)


def paragraph(text):
    """Show a computed sentence as a paragraph."""
    return Displayable(f"<p>{html.escape(text)}</p>", text)


def command_lines(commands):
    """Show commands to type, one per line."""
    style = 'class="fer-command" style="white-space:pre-wrap"'
    return Displayable(f"<pre {style}><code>{html.escape(commands)}</code></pre>", commands)
