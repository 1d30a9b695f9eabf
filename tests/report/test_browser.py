"""The report in Chromium: first screen, links, filter, contents, accessibility; no request, no error."""

import base64
import shutil

import pytest
import thesis_run
from nbformat import v4, write

from fer_utils.claims import claims
from fer_utils.claims import page as claims_page
from fer_utils.findings import figures
from fer_utils.report import summary
from fer_utils.report.page import build_report

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (requirements-browser.txt)")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")

#: A picture that is a drawing of its own.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Path of the report of a run like the thesis's."""
    out = tmp_path_factory.mktemp("run")
    run = thesis_run.plant(out)
    verdicts = claims.judge(run, 20)

    def shown(markup, *tags):
        outputs = [v4.new_output("display_data", {"text/html": markup})]
        return v4.new_code_cell("show", outputs=outputs, metadata={"tags": list(tags)})

    narrow = figures.data_uri("image/webp", figures.webp(base64.b64decode(PIXEL)))
    figure = (
        f'<figure id="fig-5-1"><picture><source media="{figures.PHONE}" srcset="{narrow}">'
        f'<img alt="bars" width="900" height="400" src="data:image/png;base64,{PIXEL}"></picture>'
        "<figcaption>Figure 5.1. Accuracy.</figcaption></figure>"
    )
    table = (
        "<table><caption>Table E1. Scores.</caption><thead><tr><th>Model</th><th>Accuracy</th></tr></thead>"
        "<tbody><tr><th>A</th><td>0.5</td></tr><tr><th>B</th><td>0.25</td></tr><tr><th>C</th><td>0.75</td></tr></tbody></table>"
    )
    notebooks = {
        "findings": [v4.new_markdown_cell("# Findings\n\n## Scores"), shown(figure), shown(table)],
        "audit": [
            v4.new_markdown_cell("# Audit"),
            shown(summary.opening(run, verdicts)._repr_html_(), "reproducibility-summary"),
            v4.new_markdown_cell("## The claims"),
            shown(claims_page.render(verdicts)._repr_html_(), "claims"),
        ],
    }
    for name, cells in notebooks.items():
        (out / name).mkdir()
        write(v4.new_notebook(cells=cells), out / name / "notebook.ipynb")
    return build_report(out)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, report, request):
    """The report in a window of the width that a test is given; no request and no error of the console in the end."""
    width = getattr(request, "param", 1300)
    opened = browser.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    opened.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda sent: asked.append(sent.url))
    opened.goto(report.as_uri())
    yield opened
    opened.close()
    assert said == [] and [url for url in asked if not url.startswith(("data:", report.as_uri()))] == []


def test_the_first_screen_holds_the_answer_the_tally_and_the_table(page):
    for selector in (".fer-answer", ".fer-chips", ".fer-models"):
        box = page.locator(selector).bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 900, selector


def test_a_link_to_a_claim_that_the_filter_hides_shows_and_opens_it(page):
    page.click("label[for=audit--audit-not-testable]")
    rows = page.locator(".fer-audit tr[data-verdict]")
    hidden = page.locator(".fer-audit tr[data-verdict]:not([data-verdict~=not-testable])").first
    name = hidden.get_attribute("id")
    assert 0 < sum(rows.nth(i).is_visible() for i in range(rows.count())) < rows.count() and not hidden.is_visible()
    page.evaluate(f"location.hash = '{name}'")
    page.locator(f"#{name} details[open]").wait_for()  # not by a function: the page's policy forbids eval
    assert hidden.is_visible()


def test_tables_sort_and_the_contents_mark_the_place(page):
    page.click("#findings table button >> text=Accuracy")
    assert page.locator("#findings tbody th").all_inner_texts() == ["B", "A", "C"]
    page.evaluate("document.getElementById('claims').scrollIntoView()")
    page.locator(".page-side [aria-current]", has_text="The claims").wait_for()
    assert page.locator(".page-side [aria-current]").count() == 1


def test_print_shows_each_claim_and_the_contents_and_no_code(page):
    page.emulate_media(media="print")
    assert (
        page.locator("#claim-F01 summary").is_visible() and not page.locator("#claim-F01 details p").first.is_visible()
    )
    assert page.locator(".page-contents nav > ol").is_visible() and not page.locator(".page-source").first.is_visible()


@pytest.mark.parametrize("page", [1300, 390], indirect=True)
def test_it_is_accessible_and_no_wider_than_its_window(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    phone = page.viewport_size["width"] == 390
    shown = page.locator("#fig-5-1 img")
    shown.scroll_into_view_if_needed()
    assert shown.evaluate("image => image.currentSrc").startswith("data:image/webp" if phone else "data:image/png")
    violations = axe.Axe().run(page).response["violations"]
    assert [(found["id"], found["nodes"][0]["html"][:200]) for found in violations] == []
