"""The report in a browser: it looks the way it is meant to, its tables sort, and it asks nothing of the network."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis import report, tables
from analysis.formats import Table, html
from tests.analysis.reports import Shelf, drawn, failed, made, quick

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make setup")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
LONG = "exponential(gamma=0.5,every=50)" * 6  # a word that is wider than a telephone

# every element that shows a text of its own: the ratio of its colour to what is behind it (WCAG 2.1)
CONTRASTS = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => numbers(colour).slice(0, 3)
    .map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((numbers(colour)[3] ?? 1) === 1) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.body.querySelectorAll("*")]
    .filter((e) => !["SCRIPT", "STYLE"].includes(e.tagName))
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
    .map((e) => {
      const [a, b] = [luminance(getComputedStyle(e).color), luminance(behind(e))].sort((x, y) => y - x);
      return [e.tagName + "." + e.className, (a + 0.05) / (b + 0.05)];
    });
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the quick grid, with failures, long words and figures."""
    folder, runs = tmp_path_factory.mktemp("report"), quick()
    runs.loc[0, "git_commit"] = f"{'0123456789' * 20}-dirty"
    failed(runs, 4, "diverged", LONG)
    for place in (12, 13, 14):
        failed(runs, place, "killed")
    failed(runs, 30, "planned")
    found = made(runs, Shelf(texts={LONG: f"description: {LONG}\nbase: {{epochs: 8}} # {LONG}\n"}))
    (folder / "figures").mkdir()
    return report.write(found, tables.judged(found.runs), drawn(folder / "figures"), folder)


@pytest.fixture
def show(browser, path: Path) -> Iterator:
    """``show(width=1280, colour="light")``: the page, which until the test ends asks for nothing and complains of nothing."""
    contexts, files, requests, complaints = [], set(), [], []

    def opened(width=1280, colour="light", file=path, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=colour, **options)
        contexts.append(context)
        files.add(file.as_uri())
        context.on("request", lambda request: requests.append(request.url))
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert {url for url in requests if not url.startswith("data:")} == files
    assert complaints == []


def column(table, place):
    return [row.locator("td").nth(place).inner_text() for row in table.locator("tbody tr").all()]


@pytest.mark.parametrize("colour", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_it_fits_its_window_and_can_be_read(show, tmp_path, width, colour):
    page = show(width, colour)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert [ratio for ratio in page.evaluate(CONTRASTS) if ratio[1] < 4.5] == []
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    page.screenshot(path=str(tmp_path / f"{colour}-{width}.png"), full_page=True)
    for details in page.locator("details").all():
        details.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_word_that_is_wider_than_a_telephone_widens_its_table_alone(show, tmp_path):
    runs = quick()
    runs["lr_schedule"] = runs["lr_schedule"].replace("constant", LONG)
    runs["experiment"] = LONG
    found = made(runs)
    page = show(375, file=report.write(found, tables.judged(runs), [], tmp_path))
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_dark_is_dark(show):
    light, dark = (
        show(colour=colour).evaluate("getComputedStyle(document.body).backgroundColor") for colour in ("light", "dark")
    )
    assert sum(map(int, light[4:-1].split(","))) > 3 * 240
    assert sum(map(int, dark[4:-1].split(","))) < 3 * 40


def test_a_click_on_a_columns_head_sorts_and_the_third_restores(show):
    page = show()
    table = page.locator("#cells table")
    place = [head.inner_text() for head in table.locator("th").all()].index("test error (%)")
    head = table.locator("th").nth(place)
    before = column(table, place)
    known = sorted((text for text in before if not text.startswith("—")), key=lambda text: float(text.split()[0]))
    missing = [text for text in before if text.startswith("—")]
    assert len(missing) == 1
    assert before not in (known + missing, known[::-1] + missing)

    def means():
        return [text.split()[0] for text in column(table, place)]

    assert head.get_attribute("aria-sort") == "none"
    head.click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert means() == [text.split()[0] for text in known + missing]
    head.click()
    assert head.get_attribute("aria-sort") == "descending"
    assert means() == [text.split()[0] for text in known[::-1] + missing]
    head.click()
    assert head.get_attribute("aria-sort") == "none"
    assert column(table, place) == before


def test_the_keyboard_sorts_and_another_column_takes_over(show):
    page = show()
    table = page.locator("#cells table")
    first, second = table.locator("th button").nth(0), table.locator("th button").nth(1)
    first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    assert table.locator("th").nth(0).get_attribute("aria-sort") == "descending"
    assert column(table, 0) == ["3"] * 6 + ["1"] * 6
    page.keyboard.press("Tab")
    assert second.evaluate("(button) => button === document.activeElement")
    page.keyboard.press("Enter")
    assert [head.get_attribute("aria-sort") for head in table.locator("th").all()[:2]] == ["none", "ascending"]
    assert column(table, 1) == ["0"] * 6 + ["0.0005"] * 6
    assert column(table, 0) == (["1"] * 3 + ["3"] * 3) * 2  # equal rows stand as they stood at first


def test_texts_are_sorted_by_the_number_that_they_begin_with(show, tmp_path):
    numbers = ["1,200", "−3.5", "<0.0001", "0.0001", "—", "[−0.5, +1.0]", "2.5 ± 1 (n=3)", "", "+7e-1", "— (n=0 of 3)", "10"]
    words = ["b", "a10", "", "a9", "B", "—", "c", "10", "9", "ä", "z"]
    table = Table("t", "c", ["words", "numbers"], [list(pair) for pair in zip(words, numbers, strict=True)], 1, [])
    file = tmp_path / "report.html"
    file.write_text(
        f"<!doctype html><meta charset=utf-8><link rel=icon href='data:,'>{html(table)}"
        f"<script>{(report.HERE / 'report.js').read_text(encoding='utf-8')}</script>",
        encoding="utf-8",
    )
    page = show(file=file)
    made = page.locator("table")
    made.locator("th").nth(1).click()
    rising = ["−3.5", "[−0.5, +1.0]", "<0.0001", "0.0001", "+7e-1", "2.5 ± 1 (n=3)", "10", "1,200"]
    assert column(made, 1) == [*rising, "—", "", "— (n=0 of 3)"]
    made.locator("th").nth(1).click()
    assert column(made, 1) == [*rising[::-1], "—", "", "— (n=0 of 3)"]
    made.locator("th").nth(0).click()
    assert column(made, 0) == ["9", "10", "ä", "a9", "a10", "b", "B", "c", "z", "", "—"]


def test_on_paper_all_is_unfolded_and_nothing_is_cut_off(show, tmp_path):
    page = show(680)  # what A4 leaves between its margins
    page.emulate_media(media="print")
    folded = "document.querySelectorAll('details:not([open])').length"
    before = page.evaluate(folded)
    assert before > 1
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(folded) == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 680
    assert not page.locator("nav").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(folded) == before
    printed = page.pdf(path=str(tmp_path / "print.pdf"), prefer_css_page_size=True)
    assert printed.startswith(b"%PDF")
    assert page.evaluate(folded) == before


def test_who_wants_no_motion_sees_a_still_image(show):
    shown = "[...document.images].map((image) => image.currentSrc.slice(5, 14))"
    assert show().evaluate(shown) == ["image/png", "image/gif"]
    assert show(reduced_motion="reduce").evaluate(shown) == ["image/png", "image/png"]


def test_it_works_in_the_frame_that_mlflow_shows_artifacts_in(browser, path):
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.evaluate(
        """(text) => {
          const frame = document.createElement("iframe");
          frame.sandbox = "allow-scripts";
          frame.src = URL.createObjectURL(new Blob([text], { type: "text/html" }));
          document.body.append(frame);
        }""",
        path.read_text(encoding="utf-8"),
    )
    frame = page.frame_locator("iframe")
    head = frame.locator("#accuracy th").first
    head.click()
    assert head.get_attribute("aria-sort") == "ascending"
    section = frame.locator("#cost")
    assert section.evaluate("(element) => element.getBoundingClientRect().top > innerHeight")
    frame.locator("nav a", has_text="Cost").click()
    assert section.evaluate("(element) => element.getBoundingClientRect().top < innerHeight")
    assert complaints == []
    page.close()


def test_what_gets_into_the_page_all_the_same_can_do_nothing(browser, path):
    """The second lock, should a text ever become markup."""
    page = browser.new_page()
    outcomes: dict[str, str | None] = {}  # what became of requests
    page.on("requestfailed", lambda request: outcomes.update({request.url: request.failure}))
    page.on("requestfinished", lambda request: outcomes.update({request.url: "finished"}))
    page.goto(path.as_uri())
    page.evaluate("""() => {
      const script = document.createElement("script");
      script.textContent = "window.taken = true";
      document.body.append(script);
      document.body.insertAdjacentHTML("beforeend", "<img src='http://127.0.0.1:9/x.png' onerror='window.taken = true'>");
      document.body.insertAdjacentHTML("beforeend", "<b id=b style='display: none'>x</b>");
    }""")
    page.wait_for_timeout(200)
    assert page.evaluate("window.taken") is None
    assert page.evaluate("getComputedStyle(document.getElementById('b')).display") != "none"
    assert {url: told for url, told in outcomes.items() if url.startswith("http")} == {"http://127.0.0.1:9/x.png": "csp"}
    page.close()
