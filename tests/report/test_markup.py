"""Planted markup does nothing in the report: in what is parsed, and in a browser where there is one."""

import re
import shlex
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat import v4
from planted import plant_model, planted_record

from fer_utils.files import write_json
from fer_utils.report import page as report
from fer_utils.report.markup import clean, hide_folders

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
BROWSER_OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --virtual-time-budget=2000 --dump-dom"
)

#: What a planted script does where one runs: the page's title says so, and the stand-in server is asked.
RUN = "document.title='RAN';new Image().src='ADDRESS/ran'"

#: What loads, runs, sends, covers or moves something. ADDRESS is a server's.
LIVE = [
    f"<script>{RUN}</script><scr<script>ipt>{RUN}</scr</script>ipt>",
    f'<img src=x onerror="{RUN}"><img src="ADDRESS/picture" srcset="ADDRESS/srcset 2x">',
    '<picture><source srcset="ADDRESS/source"><source srcset="data:image/png;base64,A 1x, ADDRESS/b 2x"></picture>',
    f'<svg onload="{RUN}"><script>{RUN}</script><image xlink:href="ADDRESS/image"/></svg>',
    f'<svg><foreignObject><body onload="{RUN}"><img src=x onerror="{RUN}"></foreignObject></svg>',
    f'<math><mtext><a xlink:href="javascript:{RUN}">x</a></mtext></math>',
    f'<iframe srcdoc="<script>parent.{RUN}</script>"></iframe><iframe src="ADDRESS/frame"></iframe>',
    "<object data='ADDRESS/object'></object><embed src='ADDRESS/embed'><video poster='ADDRESS/poster'></video>",
    "<meta http-equiv='refresh' content='0;url=ADDRESS/refresh'>",
    "<link rel='stylesheet' href='ADDRESS/sheet.css'><style>@import 'ADDRESS/x.css'; .page {display: none}</style>",
    "<p style='background:url(ADDRESS/style);list-style-image:url(ADDRESS/list);background:u\\72 l(ADDRESS/e)'>x</p>",
    f'<form action="ADDRESS/form"><input name=q autofocus onfocus="{RUN}"><button formaction="ADDRESS/f">x</button>',
    f'<details open ontoggle="{RUN}"><summary>x</summary></details><marquee onstart="{RUN}">x</marquee>',
    f'<a href="javascript:{RUN}">x</a><a href="java&#10;script:{RUN}">x</a><a href=" &#1;javascript:{RUN}">x</a>',
    f'<a href="data:text/html,<script>{RUN}</script>">x</a><a href="//ADDRESS/share">x</a><a href="file:///etc">x</a>',
    f'<template><img src=x onerror="{RUN}"></template><noscript><p title="</noscript><img src=x onerror={RUN!r}>">',
    f"<a href='%00'>x</a><a href='{'y' * 300}'>x</a><a href='../../../etc/passwd'>x</a><a href='mailto:['>x</a>",
    # Samples of the kind that change when they are parsed a second time.
    f'<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror={RUN!r}&gt;">',
    f'<svg></p><style><a id="</style><img src=1 onerror={RUN!r}>">',
    f'<form><math><mtext></form><form><mglyph><style></math><img src onerror="{RUN}">',
    f'<!--><img src=x onerror="{RUN}">--><!--!><img src=x onerror="{RUN}"><![CDATA[<img src=x onerror="{RUN}">]]>',
    # Not live, but in the way: over the page, or in the place of its own notices.
    "<div style='position:fixed;top:0;left:0;width:100%;height:100%;z-index:9;background:#fff'>covered</div>",
    "<div style='margin-top:-900px;transform:scale(9);float:left'>moved</div>",
    "<div class='page-bar'>VERIFIED</div><p class='page-notice fer-x'>VERIFIED</p><header role='banner'>x</header>",
    "<div tabindex='5' role='alert' contenteditable>x</div><dialog open>x</dialog>",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}{{ self.__init__.__globals__ }}",
]
#: All but the refresh, which no policy in a page can forbid: it would lead away from the page.
STAYING = [markup for markup in LIVE if "refresh" not in markup]

#: Left open: what follows must not end up inside. The last one cannot be closed at all.
OPEN = ["</div></section></main>", "<details><summary>x</summary><div>", "<table><tr><td><a href='#x'><b><p title='"]
OPEN += ["<!-- <p>", "<style> p {", "<script>", "<textarea>", "<title>", "<svg>", "<plaintext>"]

#: Typed from the HTML standard and not taken from the package: what cannot load, run or send.
HARMLESS = (
    "a abbr b blockquote br caption code col colgroup dd del details div dl dt em fieldset figcaption figure h1 h2 h3 "
    "h4 h5 h6 hr i img input kbd label legend li mark ol p picture pre s section small source span strong sub summary "
    "sup table tbody td tfoot th thead tr u ul var"
)
NAMES = (
    "alt checked class colspan for headers height href id lang media name open role rowspan scope src srcset start "
    "style tabindex title type value width"
)


def assert_inert(soup, also=()):
    """Every element and attribute is one that can do nothing."""
    for element in soup.find_all(True):
        assert element.name in HARMLESS.split() or element.name in also, element
        for name, value in element.attrs.items():
            assert name in NAMES.split() or name.startswith(("aria-", "data-")), (name, element)
            if name == "href":
                assert re.match(r"https?:|mailto:|#|[\w.%/-]*$", value) and not value.startswith("//"), element
            if name == "srcset":
                assert re.fullmatch(r"data:image/\w+;base64,[\w+/=]+", value), element
            if name == "style":
                assert not re.search(r"url|\\|position|z-index|transform|float|margin|@|image", value), element


@pytest.mark.parametrize("markup", LIVE + OPEN)
def test_planted_markup_is_inert(markup):
    once = clean(markup)
    soup = BeautifulSoup(once, "html.parser")
    assert_inert(soup)
    assert not soup.select("[class*=page-]")  # those are the page's own
    assert clean(once) == once  # a second reading makes of it what the first made


def test_what_outputs_are_made_of_is_kept():
    for markup in (
        '<figure class="fer-figure" id="fig-5-1"><img alt="bars" src="data:image/png;base64,iVBORw0KGgo=" '
        'style="max-width:100%"><figcaption><b>Figure 5.1.</b> T</figcaption></figure>',
        '<picture><source media="(max-width: 34rem)" srcset="data:image/webp;base64,AA=="><img alt="a"></picture>',
        '<div class="fer-table" style="overflow-x:auto"><table id="t"><caption>c</caption><thead><tr>'
        '<th scope="col" colspan="2">h</th></tr></thead><tbody><tr data-verdict="x"><th scope="row">r</th>'
        '<td headers="a" rowspan="2">1</td></tr></tbody></table></div>',
        '<section aria-label="x" class="fer-x"><details open=""><summary>s</summary><p>p<br>q</p></details></section>',
        '<label for="a"><input type="radio" name="n" id="a" checked=""> all</label>',
        '<span style="color:#008000;font-weight:bold;background-color:#010203">x</span>',
        '<a href="#fig-5-1">a</a><a href="https://x.example/?a=1&amp;b=2">b</a><a href="claims.csv">c</a>',
    ):
        assert clean(markup) == markup


def test_folders_are_shortened(tmp_path):
    home = tmp_path / "home" / "ann"
    root = tmp_path.parent.parent.parent
    folders = {
        home: "~",
        home / "my project": "",
        root / "/": "root",
        root / "d & e": "",
        root / "müller": "",
        root / "ann's": "x",
    }
    for text, kept in {
        f"{home}/x.h5": "~/x.h5",
        f"--data '{home}/my project/data/fer.zip'": "--data 'data/fer.zip'",
        f"cd {home}; ls": "cd ~; ls",
        f"{home}ette/x": f"{home}ette/x",
        f"/mnt{home}/x": f"/mnt{home}/x",
        f"{root}/d &amp; e/a.zip and /etc/hosts": "a.zip and /etc/hosts",
        f'out = "{root}/m\\xfcller/results"': 'out = "results"',
        shlex.join(["--out", f"{root}/ann's/a run"]): "--out 'x/a run'",
        f'src="data:image/png;base64,{home}"': f'src="data:image/png;base64,{home}"',
    }.items():
        assert hide_folders(text, folders) == kept


# ---------------------------------------------------------------- the report as a whole


def plant_hostile(out, address):
    """Plant a run in which everything that comes from elsewhere is markup."""
    live = [markup.replace("ADDRESS", address) for markup in LIVE + OPEN]
    hostile, broken = "".join(live), f'"><img src=x onerror="{RUN.replace("ADDRESS", address)}">'
    cells = [v4.new_markdown_cell(f"# {broken}\n\n## {broken}"), v4.new_code_cell(hostile, metadata={"tags": [broken]})]
    for markup in live:
        link = f"[x](javascript:alert(1)) ![{broken}]({address}/m)"
        cells.append(v4.new_markdown_cell(f"{markup}\n\n- {markup}\n\n{link}"))
        mimes = {"text/html": markup}, {"text/markdown": markup}, {"text/plain": markup}, {"image/png": broken}
        mimes += {"image/svg+xml": f"<svg xmlns='http://www.w3.org/2000/svg'>{markup}</svg>", "text/plain": broken}, {}
        outputs = [v4.new_output("display_data", data) for data in mimes]
        outputs += [v4.new_output("display_data", {"application/javascript": hostile, "text/latex": markup})]
        outputs += [v4.new_output("stream", name="stdout", text=markup)]
        outputs += [v4.new_output("error", ename=broken, evalue=markup, traceback=[markup])]
        cells.append(v4.new_code_cell(markup, outputs=outputs))
    figure = (
        f'<figure id="{broken}"><figcaption>{broken}</figcaption></figure><table><caption>{hostile}</caption></table>'
    )
    cells.append(v4.new_code_cell("x", outputs=[v4.new_output("display_data", {"text/html": figure})]))
    cells.append(v4.new_markdown_cell("the end of the part"))
    notebook = v4.new_notebook(cells=cells)
    notebook.metadata |= {"title": broken, "papermill": {"input_path": f"notebooks/{broken}"}}
    model = "<img src=x onerror=document.title=1>"
    data = {"source": broken, "description": hostile, "variant": broken, "fingerprint": broken}
    record = planted_record(model, label=hostile, warnings=[hostile], precision=broken, data=data)
    record["device"]["name"] = record["versions"]["python"] = hostile
    plant_model(out, model, record=record)
    for place in ("findings", "audit", "dataset", f"{model}/seed-0"):
        (out / place).mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, out / place / "notebook.ipynb")
    failure = {"error": hostile, "traceback": hostile, "notebook": broken}
    write_json(out / "failed" / f"{model}-seed-1.json", failure)
    dataset = {"source": broken, "fingerprint": data | {"differences": [hostile], "sha256": broken}}
    write_json(out / "dataset" / "dataset.json", dataset)
    entries = [{"model": model, "seed": seed, "label": hostile} for seed in (0, 1, 2)]
    plan = {"profile": hostile, "protocol": hostile, "command": hostile, "data": broken, "data_notes": [hostile]}
    write_json(out / "plan.json", plan | {"models": entries})
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


def test_planted_run_gives_an_inert_and_whole_report(hostile_report):
    page = BeautifulSoup(hostile_report.read_text(encoding="utf-8"), "html.parser")
    assert [element.name for element in page.head.find_all(True)] == ["meta"] * 4 + ["title", "style"]
    assert page.body.find_all(recursive=False)[-1].extract().name == "script"  # the page's own
    assert_inert(page.body, also={"header", "main", "footer", "nav", "aside"})
    assert all(image["src"].startswith("data:image/") for image in page.find_all("img"))
    assert [len(page.find_all(name)) for name in ("header", "main", "footer")] == [1, 1, 1]
    # An output may say that it is verified, but not in the look of the page's own notices.
    assert page.find(string="VERIFIED")
    assert not [own for own in page.select("[class*=page-]") if own.string == "VERIFIED"]
    ids = [element["id"] for element in page.find_all(id=True)]
    assert len(ids) == len(set(ids))
    # Nothing swallows what follows: findings, audit, dataset, a model, the one that failed.
    sections = page.main.find_all("section", class_="page-part", recursive=False)
    assert len(sections) == len(page.select("section.page-part")) == 5
    ends = page.find_all("p", string="the end of the part")
    assert [end.parent.parent for end in ends] == sections[:4]
    assert "{{ 7 * 7 }}" in page.main.get_text()


def browse(path):
    """Open a file in the browser; return its DOM a while later, when scripts and refreshes have had their time."""
    command = [BROWSER, *BROWSER_OPTIONS.split(), f"--user-data-dir={path.parent / 'profile'}", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
def test_planted_run_does_nothing_in_a_browser_and_the_policy_alone_holds_too(hostile_report, asked, tmp_path):
    address, paths = asked
    # The same markup alone: scripts run and files are asked for, so that this test can fail.
    staying = "".join(STAYING).replace("ADDRESS", address)
    (tmp_path / "bare.html").write_text(staying, encoding="utf-8")
    paths.clear()
    assert "<title>RAN</title>" in browse(tmp_path / "bare.html") and "/ran" in paths and "/picture" in paths
    paths.clear()
    text = hostile_report.read_text(encoding="utf-8")
    dom, ours = (BeautifulSoup(source, "html.parser") for source in (browse(hostile_report), text))
    assert "a reproducibility report" in dom.title.string and paths == []
    # The page's own script ran, and the browser sees the elements that we wrote, and no others.
    assert dom.find("dialog")
    assert [e.name for e in dom.main.find_all(True)] == [e.name for e in ours.main.find_all(True)]
    # What would get past the allow-list meets the content security policy.
    (tmp_path / "policy.html").write_text(f"{text[: text.index('<body>')]}<body>{staying}", encoding="utf-8")
    assert "RAN" not in BeautifulSoup(browse(tmp_path / "policy.html"), "html.parser").title.string and paths == []
