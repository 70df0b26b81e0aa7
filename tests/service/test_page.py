"""The page at /ui in a real Chromium: pick, drop, paste, keyboard, phone, dark, and what screen readers are told."""

import base64
import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from inference.repository import Repository
from tests.conftest import BLUE, GREEN, RED
from tests.service.conftest import Server, start

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browsing = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
GREY = (128, 128, 128)

_EVENT = """([kind, name, content]) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name, {type: "image/jpeg"}));
    const event = kind === "paste"
        ? new ClipboardEvent(kind, {clipboardData: data, bubbles: true})
        : new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true});
    document.body.dispatchEvent(event);
    return document.body.classList.contains("dragging");
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def look(chromium: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Opens the page; afterwards nothing may have come from elsewhere, and no script or policy may have complained."""
    contexts, asked, said = [], [], []

    def opened(**options: Any) -> Any:
        context = chromium.new_context(base_url=f"http://127.0.0.1:{server.port}", **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto("/")
        sync_api.expect(page.get_by_label("Model")).to_have_value("colours")
        return page

    yield opened
    for context in contexts:
        context.close()
    local = (f"http://127.0.0.1:{server.port}/", "blob:")
    assert [url for url in asked if not url.startswith(local)] == []
    assert [text for text in said if "Failed to load resource" not in text] == []


def photo(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "image/jpeg", "buffer": content}


def told(page: Any, sentence: str) -> None:
    """Wait until the status line says this."""
    sync_api.expect(page.get_by_role("status")).to_have_text(sentence)


def card(page: Any, name: str) -> Any:
    return page.locator("#photos > li").filter(has=page.get_by_role("heading", name=name, exact=True))


def has(locator: Any, text: str | re.Pattern[str]) -> None:
    sync_api.expect(locator).to_have_text(text)


@browsing
def test_a_picked_photo_is_classified_with_bars_and_time(look: Any, picture: Callable[..., bytes]) -> None:
    page = look()
    assert page.url.endswith("/ui")
    page.get_by_label("Choose photos").set_input_files(photo("red.jpg", picture(RED)))
    told(page, re.compile(r"^red\.jpg: red, 9\d\.\d\s%$"))
    red = card(page, "red.jpg")
    has(red.locator(".label"), ["red", "blue", "green"])
    has(red.locator(".percent").first, re.compile(r"^9\d\.\d\s%$"))
    widths = red.locator(".filled").evaluate_all("bars => bars.map(bar => bar.offsetWidth)")
    assert widths[0] > 50 > widths[1]
    has(red.locator(".timing"), re.compile(r"^colours 1, cpu\. [\d.]+ ms in the service: read .*inference [\d.]+$"))
    assert red.locator("img").evaluate("image => image.naturalWidth") == 320
    assert red.get_attribute("aria-busy") == "false"


@browsing
@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_photo_is_dropped_or_pasted(look: Any, picture: Callable[..., bytes], kind: str) -> None:
    page = look()
    content = base64.b64encode(picture(BLUE)).decode()
    if kind == "drop":
        assert page.evaluate(_EVENT, ["dragover", "blue.jpg", content])
    assert not page.evaluate(_EVENT, [kind, "blue.jpg", content])
    told(page, re.compile(r"^blue\.jpg: blue, "))


@browsing
def test_many_photos_good_bad_and_doubtful(look: Any, picture: Callable[..., bytes]) -> None:
    page = look()
    good = [photo(f"{number}.jpg", picture(GREEN, seed=number)) for number in range(9)]
    others = [photo("notes.jpg", b"text"), photo("half.jpg", picture()[:900]), photo("grey.jpg", picture(GREY))]
    page.get_by_label("Choose photos").set_input_files([*good, *others])
    told(page, "12 of 12 photos done, 2 could not be classified.")
    for number in range(9):
        has(card(page, f"{number}.jpg").locator(".verdict"), re.compile("^green, "))
    has(card(page, "grey.jpg").locator(".verdict"), re.compile(r"^Not sure; perhaps \w+, 3\d\.\d\s%$"))
    has(card(page, "half.jpg").locator(".verdict"), "The photo is damaged or cut short.")
    notes = card(page, "notes.jpg")
    has(notes.locator(".verdict"), re.compile("^This is no photo in a format"))
    assert not notes.get_by_text("not a picture in an accepted format").is_visible()
    notes.get_by_text("What the service says").click()
    assert notes.get_by_text("image_unsupported: the bytes are not a picture").is_visible()
    assert not notes.get_by_role("button", name="Try again").is_visible()
    page.get_by_role("button", name="Remove all").click()
    told(page, "No photos yet.")


@browsing
def test_another_model_looks_at_the_same_photos(look: Any, picture: Callable[..., bytes]) -> None:
    page = look()
    page.get_by_label("Choose photos").set_input_files([photo("a.jpg", picture(RED)), photo("b.jpg", picture(GREEN))])
    told(page, "2 of 2 photos done.")
    page.get_by_label("Model").select_option("tones")
    has(page.locator(".verdict"), [re.compile("^warm, "), re.compile("^leafy, ")])
    assert page.get_by_text("Which colour plane is brightest: 3 classes, version 1").is_visible()
    told(page, "2 of 2 photos done.")


@browsing
def test_a_service_that_is_away_can_be_asked_again(look: Any, picture: Callable[..., bytes]) -> None:
    page = look()
    page.context.set_offline(True)
    page.get_by_label("Choose photos").set_input_files(photo("a.jpg", picture(RED)))
    told(page, "a.jpg: The service cannot be reached.")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    told(page, re.compile(r"^a\.jpg: red, "))


@browsing
def test_a_service_that_is_away_at_first_is_asked_for_its_models_again(
    look: Any, picture: Callable[..., bytes]
) -> None:
    page = look()
    page.route("**/models", lambda route: route.abort(), times=1)
    page.reload()
    sync_api.expect(page.locator("#model-note")).to_have_text("The service cannot be reached. Trying again …")
    page.get_by_label("Choose photos").set_input_files(photo("a.jpg", picture(RED)))
    has(card(page, "a.jpg").locator(".verdict"), "Waiting …")
    told(page, re.compile(r"^a\.jpg: red, "))


@browsing
def test_the_key_is_asked_for_and_used(
    chromium: Any, tmp_path: Path, repository: Repository, picture: Callable[..., bytes]
) -> None:
    locked = Server(*start(tmp_path, models=repository.root, api_keys="predict:a-key-for-the-page"))
    locked.wait()
    context = chromium.new_context(base_url=str(locked.client.base_url))
    try:
        page = context.new_page()
        page.goto("/ui")
        field = page.get_by_label("This service asks for an API key")
        sync_api.expect(field).to_be_focused()
        page.get_by_label("Choose photos").set_input_files(photo("red.jpg", picture(RED)))
        field.fill("not-the-right-key")
        field.press("Enter")
        sync_api.expect(field).to_be_focused()
        has(card(page, "red.jpg").locator(".verdict"), "Waiting …")
        field.fill("a-key-for-the-page")
        field.press("Enter")
        told(page, re.compile(r"^red\.jpg: red, "))
        sync_api.expect(field).to_be_hidden()
    finally:
        context.close()
        locked.stop()
    assert "a-key-for-the-page" not in locked.said()


@browsing
def chooser_by_enter(page: Any) -> Any:
    """The dialogue that Enter opens; a browser on a busy machine drops a key press now and then, so up to three."""
    for timeout in (5_000, 5_000, 30_000):
        with contextlib.suppress(sync_api.TimeoutError):
            with page.expect_file_chooser(timeout=timeout) as chooser:
                page.keyboard.press("Enter")
            return chooser.value
    raise AssertionError("Enter opens no dialogue")


def test_the_keyboard_is_enough(look: Any, tmp_path: Path, picture: Callable[..., bytes]) -> None:
    paths = [tmp_path / "one.jpg", tmp_path / "two.jpg"]
    for path in paths:
        path.write_bytes(picture(RED))
    page = look()

    def focused() -> str:
        text: str = page.evaluate(
            "() => { const e = document.activeElement; return e.getAttribute('aria-label') ?? e.id ?? e.textContent; }"
        )
        return text

    page.keyboard.press("Tab")
    assert focused() == "model"
    page.keyboard.press("t")
    assert page.get_by_label("Model").input_value() == "tones"
    page.keyboard.press("Tab")
    assert focused() == "files"
    outline = "element => getComputedStyle(element.labels[0]).outlineStyle"
    assert page.locator("#files").evaluate(outline) == "solid"
    chooser_by_enter(page).set_files(paths)
    told(page, "2 of 2 photos done.")
    assert focused() == "files"
    seen = []
    for _ in range(3):
        page.keyboard.press("Tab")
        seen.append(focused())
    assert seen == ["clear", "Remove one.jpg", "Remove two.jpg"]
    page.keyboard.press("Enter")
    assert focused() == "Remove one.jpg"
    page.keyboard.press("Enter")
    assert focused() == "files"
    told(page, "No photos yet.")


@browsing
def test_a_phone_scrolls_in_one_direction_only(look: Any, picture: Callable[..., bytes]) -> None:
    page = look(viewport={"width": 360, "height": 740})
    files = [photo("a-name-without-any-place-to-break-it-" * 3 + ".jpg", picture(RED)), photo("b.jpg", b"text")]
    page.get_by_label("Choose photos").set_input_files(files)
    told(page, "2 of 2 photos done, 1 could not be classified.")
    page.get_by_text("What the service says").locator("visible=true").click()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 360
    for button in page.get_by_role("button").all():
        box = button.bounding_box()
        assert box is None or box["height"] >= 24  # what WCAG 2.2 asks of targets


def luminance(page: Any) -> float:
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@browsing
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_are_accessible(look: Any, picture: Callable[..., bytes], scheme: str) -> None:
    page = look(color_scheme=scheme)
    assert (luminance(page) > 200) == (scheme == "light")
    files = [photo("a.jpg", picture(RED)), photo("b.jpg", b"text"), photo("c.jpg", picture(GREY))]
    page.get_by_label("Choose photos").set_input_files(files)
    told(page, "3 of 3 photos done, 1 could not be classified.")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


@browsing
def test_what_a_screen_reader_finds(look: Any, picture: Callable[..., bytes]) -> None:
    page = look()
    page.get_by_label("Choose photos").set_input_files(photo("red.jpg", picture(RED)))
    told(page, re.compile("^red.jpg: red, "))
    sync_api.expect(page.locator("body")).to_match_aria_snapshot("""
      - banner:
        - heading "Petalpaw" [level=1]
      - main:
        - combobox "Model"
        - button "Choose photos"
        - region "Results":
          - heading "Results" [level=2]
          - button "Remove all"
          - status
          - list:
            - listitem:
              - heading "red.jpg" [level=3]
              - list:
                - listitem: /red 9\\d\\.\\d\\s%/
                - listitem
                - listitem
              - button "Remove red.jpg"
      - contentinfo
    """)


def test_the_files_of_the_page_and_no_others(client: httpx.Client) -> None:
    front = client.get("/")
    assert (front.status_code, front.headers["location"]) == (307, "ui")
    again = client.get("/ui/")
    assert (again.status_code, again.headers["location"]) == (307, "../ui")
    kinds = {"": "text/html", "/page.css": "text/css", "/page.js": "text/javascript", "/icon.svg": "image/svg+xml"}
    for file, kind in kinds.items():
        response = client.get(f"/ui{file}")
        assert (response.status_code, response.headers["content-type"].partition(";")[0]) == (200, kind)
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "http:" not in response.text.replace("http://www.w3.org/2000/svg", "")
        assert "https:" not in response.text
    assert "default-src 'none'; script-src 'self'" in client.get("/ui").headers["content-security-policy"]
    for file in ("/routes.py", "/..%2fapi.py", "/page.html", "/%2e%2e/settings.py"):
        assert client.get(f"/ui{file}").status_code in (404, 422)
