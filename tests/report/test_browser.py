"""The report in a real browser: what a person does with it, from a file as it lies on the disk."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest

import ccx
from ccx.report import write_report

pytestmark = [pytest.mark.needs("selenium"), pytest.mark.needs("chromium")]

HOSTILE = '<script>document.title = "hacked"</script>'


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--force-prefers-reduced-motion", "--window-size=1200,900",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def data():
    """Return concepts with a hostile name, activations of five units, photographs."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:12, :16]
    masks = np.stack([[(rows < 3 + n % 4), (columns > 6 + n % 5), (rows + columns + n) % 5 == 0] for n in range(8)], 1)
    concepts = ccx.Concepts.from_masks(masks, [HOSTILE, "tree", "road"], categories=["object", "object", "part"])
    units = [masks[0], masks[1], masks[0] & ~masks[1], masks[2], masks[1] & masks[2]]
    activations = np.stack([unit + 0.2 * rng.random(unit.shape) for unit in units], axis=1).astype(np.float32)
    images = rng.integers(0, 255, (8, 24, 32, 3), dtype=np.uint8)
    return concepts, activations, images, ccx.explain(activations, concepts, clusters=2, length=2, progress=False)


@pytest.fixture(scope="module", params=["report.html", "report"])
def address(request, data, tmp_path_factory):
    """Write the report as a file and as a folder, and return the address of its first page."""
    concepts, activations, images, found = data
    path = tmp_path_factory.mktemp("browser") / request.param
    write_report(path, found, concepts, activations=activations, images=images, title=HOSTILE)
    return (path if path.suffix else path / "index.html").as_uri()


def shown(browser):
    """Return the units of the table's rows that can be seen, in order."""
    rows = browser.find_elements("css selector", ".contents tbody tr")
    return [int(row.get_attribute("data-unit")) for row in rows if row.is_displayed()]


def complaints(browser):
    return [entry["message"] for entry in browser.get_log("browser") if "favicon" not in entry["message"]]


def open_page(browser, address):
    browser.get_log("browser")
    began = time.monotonic()
    browser.get(address)
    return time.monotonic() - began


def test_it_opens_without_complaint_and_hostile_names_are_text(browser, address):
    open_page(browser, address)
    assert browser.title == HOSTILE
    assert browser.find_element("css selector", "h1").text == HOSTILE
    assert HOSTILE in [one.text for one in browser.find_elements("css selector", ".concept")]
    assert complaints(browser) == []


def test_the_table_sorts_and_says_so(browser, address, data):
    found = data[3]
    best = {unit: max(item.iou for item in found.of_unit(unit)) for unit in found.units}
    open_page(browser, address)
    heading = {one.text: one for one in browser.find_elements("css selector", "th button")}
    heading["unit"].click()
    assert shown(browser) == [0, 1, 2, 3, 4]
    heading["unit"].click()
    assert shown(browser) == [4, 3, 2, 1, 0]
    heading["IoU"].click()
    values = [
        float(row.get_attribute("data-iou")) for row in browser.find_elements("css selector", ".contents tbody tr")
    ]
    assert values == sorted(values, reverse=True)
    assert max(values) == max(best.values())
    sorted_by = [one.get_attribute("data-sort") for one in browser.find_elements("css selector", "th[aria-sort]")]
    assert sorted_by == ["iou"]


def test_searching_by_keyboard(browser, address):
    from selenium.webdriver import Keys

    open_page(browser, address)
    browser.find_element("css selector", "body").send_keys("/")
    active = browser.switch_to.active_element
    assert active.get_attribute("type") == "search"
    active.send_keys("unit 3")
    assert shown(browser) == [3]
    assert browser.find_element("css selector", ".count").text == "1 of 5"
    active.send_keys(Keys.CONTROL, "a")
    active.send_keys("<script>")
    assert 0 in shown(browser)


def test_going_to_a_unit_shows_its_pictures(browser, address):
    open_page(browser, address)
    link = next(one for one in browser.find_elements("css selector", ".contents a") if one.text == "2")
    link.click()
    card = browser.find_element("css selector", ".card.unit, #unit-2")
    assert "unit 2" in card.text
    picture = card.find_element("css selector", ".pictures figure")
    assert picture.size["width"] > 50
    image = picture.find_element("css selector", "image, use")
    source = image.get_attribute("href")
    if source.startswith("#"):
        source = browser.find_element("css selector", f"{source} image").get_attribute("href")
    loaded = browser.execute_async_script(
        "const image = new Image(); image.onload = () => arguments[1](image.naturalWidth);"
        "image.onerror = () => arguments[1](0); image.src = arguments[0];",
        source,
    )
    assert loaded == 32
    assert picture.find_element("css selector", "path.fires").get_attribute("d").count("M") >= 2
    assert complaints(browser) == []


def test_arrows_lead_through_the_units(browser, data, tmp_path):
    from selenium.webdriver import Keys

    concepts, activations, images, found = data
    write_report(tmp_path / "report", found, concepts, activations=activations, images=images)
    open_page(browser, (tmp_path / "report" / "index.html").as_uri())
    order = shown(browser)
    browser.find_element("css selector", ".contents a").click()
    visited = [browser.find_element("css selector", "h1").text]
    for _ in order[1:]:
        browser.find_element("css selector", "body").send_keys(Keys.ARROW_RIGHT)
        visited.append(browser.find_element("css selector", "h1").text)
    assert visited == [f"unit {unit}" for unit in order]
    browser.find_element("css selector", "body").send_keys(Keys.ARROW_LEFT)
    assert browser.find_element("css selector", "h1").text == f"unit {order[-2]}"
    browser.find_element("css selector", "body").send_keys(Keys.ESCAPE)
    assert browser.current_url.endswith("index.html#units")


def test_a_name_of_hundreds_of_letters_breaks_and_hides_no_column(browser, tmp_path):
    masks = np.zeros((2, 3, 4, 4), bool)
    masks[0, :, :2] = masks[1, :, 2:] = True
    concepts = ccx.Concepts.from_masks(masks, ["x" * 300, "y" * 300])
    activations = np.stack([masks[0], masks[1]], axis=1).astype(np.float32)
    found = ccx.explain(activations, concepts, ranges=[(0.5, 2)], length=1, progress=False)
    write_report(tmp_path / "report.html", found, concepts, activations=activations)
    open_page(browser, (tmp_path / "report.html").as_uri())
    hidden = "const box = document.querySelector(arguments[0]); return box.scrollWidth - box.clientWidth;"
    assert browser.execute_script(hidden, ".scroll") == 0
    assert browser.execute_script(hidden, "html") == 0
