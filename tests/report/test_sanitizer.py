"""Planted markup does nothing in the report: in what is parsed, and in a browser where there is one."""

import base64
import json
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat import v4
from planted import planted_record

from fer_utils.report import page as report
from fer_utils.report.sanitizer import clean_output, clean_page, clean_style

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

#: What a planted script does where one runs: the page's title says so, and the stand-in server is asked.
RUN = "document.title='RAN';new Image().src='ADDRESS/ran'"

#: What loads, runs, sends, covers or moves something. ADDRESS is a server's.
LIVE = [
    f"<script>{RUN}</script>",
    "<script src='ADDRESS/x.js'></script>",
    f'<img src=x onerror="{RUN}">',
    f'<svg onload="{RUN}"></svg>',
    f"<svg><script>{RUN}</script></svg>",
    f'<svg><foreignObject><body onload="{RUN}"><img src=x onerror="{RUN}"></foreignObject></svg>',
    "<svg><image xlink:href='ADDRESS/image'/><use href='ADDRESS/use#x'/></svg>",
    f'<svg><a><animate attributeName="href" values="javascript:{RUN}"/><text>x</text></a></svg>',
    f"<svg><set attributeName='onmouseover' to=\"{RUN}\"/></svg>",
    f'<math><mtext><a xlink:href="javascript:{RUN}">x</a></mtext></math>',
    f'<iframe srcdoc="<script>parent.{RUN}</script>"></iframe>',
    "<iframe src='ADDRESS/frame'></iframe><object data='ADDRESS/object'></object><embed src='ADDRESS/embed'>",
    "<meta http-equiv='refresh' content='0;url=ADDRESS/refresh'>",
    "<link rel='stylesheet' href='ADDRESS/sheet.css'><link rel='prefetch' href='ADDRESS/prefetch'>",
    "<style>@import 'ADDRESS/import.css'; body {background: url(ADDRESS/background)} .page {display: none}</style>",
    "<p style='background:url(ADDRESS/style);background-image:image-set(\"ADDRESS/set\" 1x)'>x</p>",
    "<p style='background:u\\72 l(ADDRESS/escaped);list-style-image:url(ADDRESS/list)'>x</p>",
    "<img src='ADDRESS/picture' srcset='ADDRESS/srcset 2x'><picture><source srcset='ADDRESS/source'></picture>",
    "<video poster='ADDRESS/poster' src='ADDRESS/video' autoplay></video><audio src='ADDRESS/audio' autoplay></audio>",
    "<body background='ADDRESS/body'><table background='ADDRESS/table'><tr><td>x</table>",
    f'<form action="ADDRESS/form"><input name=q autofocus onfocus="{RUN}"><button formaction="ADDRESS/f">x</button>',
    f'<details open ontoggle="{RUN}"><summary>x</summary></details>',
    f'<marquee onstart="{RUN}">x</marquee><select autofocus onfocus="{RUN}"></select>',
    f'<a href="javascript:{RUN}">x</a><a href="java&#10;script:{RUN}">x</a><a href=" &#1;javascript:{RUN}">x</a>',
    f'<a href="data:text/html,<script>{RUN}</script>">x</a><a href="//ADDRESS/share">x</a><a href="file:///etc">x</a>',
    f'<a href="vbscript:x" ping="ADDRESS/ping" target="_blank">x</a><a href="x" onclick="{RUN}">x</a>',
    f'<template><img src=x onerror="{RUN}"></template><noscript><p title="</noscript><img src=x onerror={RUN!r}>">',
    # Samples of the kind that change when they are parsed a second time.
    f'<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror={RUN!r}&gt;">',
    f'<svg></p><style><a id="</style><img src=1 onerror={RUN!r}>">',
    f'<form><math><mtext></form><form><mglyph><style></math><img src onerror="{RUN}">',
    f'<noembed><img title="</noembed><img src onerror={RUN!r}>"></noembed>',
    f'<textarea><img title="</textarea><img src onerror={RUN!r}>"></textarea>',
    f'<title><img title="</title><img src onerror={RUN!r}>"></title>',
    f'<xmp><img title="</xmp><img src onerror={RUN!r}>"></xmp>',
    f'<!--><img src=x onerror="{RUN}">--><!--!><img src=x onerror="{RUN}"><![CDATA[<img src=x onerror="{RUN}">]]>',
    f'<a title="`<img src=x onerror={RUN!r}>`">x</a><p/onclick="{RUN}"/id=x>x</p>',
    f"<scr<script>ipt>{RUN}</scr</script>ipt><img/src='x'/onerror=\"{RUN}\">",
    # Not live, but in the way: over the page, or in the place of its own notices.
    "<div style='position:fixed;top:0;left:0;width:100%;height:100%;z-index:9;background:#fff'>covered</div>",
    "<div style='margin-top:-900px;margin:-.5em;transform:scale(9);float:left'>moved</div>",
    "<div class='bar'>VERIFIED</div><div class='banner danger fer-x'>VERIFIED</div><header role='banner'>x</header>",
    "<div tabindex='5' role='alert' contenteditable>x</div><dialog open>x</dialog>",
    "{{ 7 * 7 }}{% raw %}{% include '/etc/passwd' %}{{ self.__init__.__globals__ }}",
]
#: All but the refresh, which no policy in a page can forbid: it would lead away from the page.
STAYING = [markup for markup in LIVE if "refresh" not in markup]

#: Left open: what follows must not end up inside. The last one can't be closed at all.
OPEN = [
    "</div></div></section></main><div class='x'>",
    "<details><summary>swallowed</summary><div hidden style='display:none'>",
    "<table><tr><td><a href='#x'><b><p title='",
    "<!-- <p>",
    "<style> p {",
    "<script>",
    "<textarea>",
    "<title>",
    "<svg>",
    "<plaintext>",
]

# fmt: off
#: Typed from the HTML standard and not taken from the package: what can't load, run or send.
HARMLESS = {
    "a", "abbr", "b", "blockquote", "br", "caption", "cite", "code", "col", "colgroup", "dd", "del", "details", "dfn",
    "div", "dl", "dt", "em", "fieldset", "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img",
    "input", "ins", "kbd", "label", "legend", "li", "mark", "ol", "p", "pre", "q", "s", "samp", "section", "small",
    "span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "time", "tr", "u", "ul",
    "var", "wbr",
}
NAMES = {
    "abbr", "align", "alt", "checked", "class", "colspan", "datetime", "dir", "disabled", "for", "headers", "height",
    "href", "id", "lang", "name", "open", "reversed", "role", "rowspan", "scope", "span", "src", "start", "style",
    "tabindex", "title", "type", "valign", "value", "width",
}
# fmt: on


def assert_inert(soup, also=()):
    """Every element and attribute is one that can do nothing."""
    for element in soup.find_all(True):
        assert element.name in HARMLESS or element.name in also, element
        for name, value in element.attrs.items():
            assert name in NAMES or name.startswith(("aria-", "data-")), (name, element)
            if name == "src":
                assert value.startswith("data:image/"), element
            if name == "href":
                assert re.match(r"https?:|mailto:|#|[\w.%/-]*$", value) and not value.startswith("//"), element
            if name == "style":
                assert not re.search(r"url|\\|position|z-index|transform|float|:\s*-|@|image", value), element


@pytest.mark.parametrize("markup", LIVE + OPEN)
def test_planted_markup_is_inert(markup):
    for once in (clean_output(markup), clean_page(markup)):
        assert_inert(BeautifulSoup(clean_page(once), "html.parser"))
    # What a second reading makes of it is what the first made.
    assert clean_page(clean_page(markup)) == clean_page(markup)


def test_what_outputs_are_made_of_is_kept():
    pixel = "data:image/png;base64,iVBORw0KGgo="
    kept = (
        f'<figure class="fer-figure" id="fig-5-1" style="margin:1em 0"><img alt="bars" src="{pixel}" '
        'style="max-width:100%;height:auto"><figcaption><b>Figure 5.1.</b> T</figcaption></figure>',
        '<div class="fer-table" style="overflow-x:auto"><table id="t"><caption>c</caption><thead><tr>'
        '<th scope="col" colspan="2">h</th></tr></thead><tbody><tr><th scope="row">r</th><td headers="a">1</td></tr>'
        "</tbody></table></div>",
        '<section aria-label="x" class="fer-x"><details open=""><summary>s</summary><p>p<br>q</p></details></section>',
        '<label for="a"><input type="radio" name="n" id="a" checked=""> all</label>',
        '<tr data-verdict="x" role="row"></tr>',
        '<span style="color:#008000;font-weight:bold;background-color:rgb(1, 2, 3)">x</span>',
        "<pre style=\"white-space:pre;font-family:Menlo,'DejaVu Sans Mono',monospace\">x &lt;b&gt;</pre>",
        '<a href="#fig-5-1">a</a><a href="https://x.example/?a=1&amp;b=2">b</a><a href="claims.csv">c</a>',
    )
    for markup in kept:
        for clean in (clean_output, clean_page):
            expected = markup if not markup.startswith("<tr") else ""  # a row outside a table is none
            assert clean(markup) == expected
    row = '<table><tbody><tr data-verdict="x" role="row"><td role="cell">1</td></tr></tbody></table>'
    assert clean_output(row) == row


def test_drawings_become_images():
    svg = '<svg viewBox="0 0 4 4"><title>Two &amp; two</title><clipPath id="c"><rect/></clipPath></svg>'
    image = BeautifulSoup(clean_output(f"a{svg}b"), "html.parser").img
    drawn = base64.b64decode(image["src"].removeprefix("data:image/svg+xml;base64,")).decode()
    assert drawn.endswith(svg.removeprefix("<svg")) and 'xmlns="http://www.w3.org/2000/svg"' in drawn
    assert image["alt"] == "Two & two"
    labelled = '<svg xmlns="http://www.w3.org/2000/svg" aria-label="a &quot;b&quot; onload=x"></svg>'
    image = BeautifulSoup(clean_output(labelled), "html.parser").img
    assert image["alt"] == 'a "b" onload=x' and set(image.attrs) == {"alt", "src"}


def test_colours_of_a_pandas_table_are_kept_and_its_style_sheet_is_not():
    frame = pd.DataFrame({"a": [1, 2]})
    shown = frame.style.map(lambda v: "color: red; position: fixed" if v == 2 else "").to_html()
    assert "<style" in shown
    table = BeautifulSoup(clean_output(shown), "html.parser")
    assert [td.get("style") for td in table.find_all("td")] == [None, "color: red"]
    assert not table.find("style")


@pytest.mark.parametrize(
    ("style", "kept"),
    [
        ("color:red;position:fixed", "color:red"),
        ("width:calc(1px*9);height:2em", "height:2em"),
        ("margin:-1px;margin:0 -.5em;padding:1px", "padding:1px"),
        (
            "white-space:pre-wrap;font:700 8pt/5mm sans-serif !important",
            "white-space:pre-wrap;font:700 8pt/5mm sans-serif !important",
        ),
        ("COLOR:RED", "COLOR:RED"),
        ("background:url(x)", None),
        ("color:expression(alert(1))", None),
        ("--x:1;color:var(--x)", None),
        (";;:", None),
    ],
)
def test_styles(style, kept):
    assert clean_style(style) == kept


# ---------------------------------------------------------------- the report as a whole


def plant_hostile(out, address):
    """Plant a run in which everything that comes from elsewhere is markup."""
    live = [markup.replace("ADDRESS", address) for markup in LIVE + OPEN]
    run = RUN.replace("ADDRESS", address)
    image = f'<img src=x onerror="{run}">'
    broken = f'"><img src=x onerror="{run}">'
    hostile = "".join(live)
    error = v4.new_output("error", ename=image, evalue=hostile, traceback=[hostile])
    pixel = base64.b64encode(b"x").decode()
    cells = [v4.new_markdown_cell(f"# {image}\n\n## {broken}"), v4.new_code_cell(hostile, metadata={"tags": [broken]})]
    for markup in live:
        cells.append(
            v4.new_markdown_cell(f"{markup}\n\n- {markup}\n\n[x](javascript:alert(1)) ![{broken}]({address}/m)")
        )
        outputs = [
            v4.new_output("display_data", {"text/html": markup}),
            v4.new_output("display_data", {"text/html": markup}, metadata={"text/html": {"isolated": True}}),
            v4.new_output("display_data", {"text/markdown": markup}),
            v4.new_output("display_data", {"image/svg+xml": f"<svg xmlns='http://www.w3.org/2000/svg'>{markup}</svg>"}),
            v4.new_output("display_data", {"text/latex": markup, "text/plain": markup}),
            v4.new_output("display_data", {"application/javascript": run, "text/vnd.mermaid": markup}),
            v4.new_output("stream", name="stdout", text=markup),
        ]
        cells.append(v4.new_code_cell(markup, outputs=outputs))
    metadata = {"image/png": {"width": broken, "height": broken, "alt": broken}, "filenames": {"image/png": broken}}
    cells.append(
        v4.new_code_cell(
            "x", outputs=[v4.new_output("display_data", {"image/png": pixel + broken}, metadata=metadata), error]
        )
    )
    figure = (
        f'<figure id="{broken}"><figcaption>{image}</figcaption></figure><table><caption>{hostile}</caption></table>'
    )
    cells.append(v4.new_code_cell("x", outputs=[v4.new_output("display_data", {"text/html": figure})]))
    cells.append(v4.new_markdown_cell("the end of the part"))
    for cell in cells:
        cell.metadata["name"] = broken
    notebook = v4.new_notebook(cells=cells)
    notebook.metadata |= {
        "title": broken,
        "authors": [{"name": broken}],
        "language_info": {"name": broken, "pygments_lexer": broken},
        "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}, "x": f"</script>{image}"}},
        "papermill": {"input_path": f"notebooks/{broken}"},
    }
    model = "<img src=x onerror=document.title=1>"
    for place in ("findings", "dataset", f"{model}/seed-0"):
        (out / place).mkdir(parents=True)
        nbformat.write(notebook, out / place / "notebook.ipynb")
    record = planted_record(model, label=hostile, warnings=[hostile], protocol=hostile)
    record["data"] |= {"source": broken, "description": hostile, "variant": image, "decoder": broken}
    record["device"]["name"] = record["versions"]["python"] = hostile
    (out / model / "seed-0" / "run.json").write_text(json.dumps(record))
    (out / "failed").mkdir()
    failure = {"model": model, "seed": 1, "label": broken, "error": hostile, "traceback": hostile, "notebook": broken}
    (out / "failed" / f"{model}-seed-1.json").write_text(json.dumps(failure))
    fingerprint = {"variant": broken, "description": hostile, "differences": [hostile], "counts": {hostile: {}}}
    dataset = {"source": broken, "fingerprint": fingerprint | {"sha256": broken, "known": False, "n_images": 1}}
    (out / "dataset" / "dataset.json").write_text(json.dumps(dataset))
    entries = [{"model": model, "seed": seed, "label": hostile} for seed in (0, 1, 2)]
    plan = {"profile": hostile, "protocol": hostile, "command": hostile, "data": broken, "data_notes": [hostile]}
    (out / "plan.json").write_text(json.dumps(plan | {"models": entries}))
    return out


@pytest.fixture(scope="module")
def asked():
    """Return a server's address and the list of the paths that it has been asked for."""
    paths = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory, asked):
    """Path of the report on a run in which everything is planted."""
    return report.build_report(plant_hostile(tmp_path_factory.mktemp("hostile"), asked[0]))


def test_planted_run_gives_an_inert_report(hostile_report):
    page = BeautifulSoup(hostile_report.read_text(encoding="utf-8"), "html.parser")
    assert [element.name for element in page.head.find_all(True)] == ["meta"] * 4 + ["title", "style"]
    assert_inert(page.body, also={"header", "main", "footer", "nav"})
    for name in ("header", "main", "footer"):
        assert len(page.find_all(name)) == 1
    assert {field["type"] for field in page.find_all("input")} <= {"radio", "checkbox"}
    # An output may say that it is verified, but not in the place or the look of the page's own notices.
    assert page.find(string="VERIFIED")
    for own in page.select(".bar, .edge, .banner, .flags, .note"):
        assert "VERIFIED" not in own.get_text() or own.find(string=lambda text: "<div class='bar'>" in text)
        assert own.parent in (page.body, page.header) or own.parent.parent is page.main
    ids = [element["id"] for element in page.find_all(id=True)]
    assert len(ids) == len(set(ids))


def test_nothing_swallows_what_follows(hostile_report):
    page = BeautifulSoup(hostile_report.read_text(encoding="utf-8"), "html.parser")
    sections = page.main.find_all("section", class_="part", recursive=False)
    assert len(sections) == len(page.select("section.part")) == 4  # findings, dataset, a model, the one that failed
    for section in sections[:3]:
        assert section.find("p", string="the end of the part").parent.parent is section
    assert "{{ 7 * 7 }}" in page.main.get_text()


def browse(path):
    """Open a file in the browser; return its DOM a while later, when scripts and refreshes have had their time."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    command += [f"--user-data-dir={path.parent / 'profile'}", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
def test_planted_run_does_nothing_in_a_browser(hostile_report, asked, tmp_path):
    address, paths = asked
    paths.clear()
    # The same markup alone: scripts run and files are asked for, so that this test can fail.
    bare = tmp_path / "bare.html"
    bare.write_text("".join(STAYING).replace("ADDRESS", address), encoding="utf-8")
    assert "<title>RAN</title>" in browse(bare) and "/ran" in paths and "/picture" in paths
    paths.clear()
    dom = BeautifulSoup(browse(hostile_report), "html.parser")
    assert "a reproducibility report" in dom.title.string and paths == []
    ours = BeautifulSoup(hostile_report.read_text(encoding="utf-8"), "html.parser")
    # The browser sees the elements that we wrote, and no others.
    assert [e.name for e in dom.main.find_all(True)] == [e.name for e in ours.main.find_all(True)]


@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
def test_policy_alone_holds_too(hostile_report, asked, tmp_path):
    """What would get past the allow-list meets the content security policy."""
    address, paths = asked
    text = hostile_report.read_text(encoding="utf-8")
    head = text[: text.index("<body>")]
    paths.clear()
    bare = tmp_path / "policy.html"
    bare.write_text(f"{head}<body>{''.join(STAYING).replace('ADDRESS', address)}", encoding="utf-8")
    dom = browse(bare)
    assert "RAN" not in BeautifulSoup(dom, "html.parser").head.title.string and paths == []
