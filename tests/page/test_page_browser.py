"""The page in a real browser: what it loads, says and looks like, and that it works with mouse and keyboard."""

import base64
import json
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

import bayesgmm as bg

PAGES = ("geyser", "iris", "galaxies", "fit", "selection", "one")
AXE = Path(__file__).parent / "vendor/axe.min.js"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa"]
ROW_POINTS = "#rows-picture .mark-symbol.layer_1_marks path"

CONTRASTS = """
const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function rgb(color) {
  probe.clearRect(0, 0, 1, 1);
  probe.fillStyle = color;
  probe.fillRect(0, 0, 1, 1);
  return [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3);
}
function light(color) {
  const [r, g, b] = rgb(color).map((c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
const paper = light(getComputedStyle(document.body).backgroundColor);
return [...document.querySelectorAll(".picture svg text")].filter((text) => text.textContent.trim()).map((text) => {
  const ink = light(getComputedStyle(text).fill);
  return [text.textContent, (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)];
});
"""


def texts(driver, selector):
    return [element.text for element in driver.find_elements(By.CSS_SELECTOR, selector)]


def rows_shown(driver):
    """Numbers of the rows that the list shows, from above."""
    return driver.execute_script(
        "return [...document.querySelectorAll('#row-list tbody tr')].filter((line) => !line.hidden)"
        ".map((line) => Number(line.querySelector('button').textContent))"
    )


def until(condition, seconds=10):
    """What a condition gives, once it gives something."""
    stop = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < stop, "waited in vain"
        time.sleep(0.02)
    return value


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_nothing_and_complains_of_nothing(browse, name):
    driver = browse(name)
    assert driver.get_log("browser") == []
    asked = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    addresses = [e["params"]["request"]["url"] for e in asked if e["method"] == "Network.requestWillBeSent"]
    assert addresses
    assert [url for url in addresses if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read_by_everyone(browse, name, scheme):
    driver = browse(name, scheme)
    driver.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    driver.execute_script(AXE.read_text("utf-8"))
    found = driver.execute_async_script(
        "const done = arguments[1]; axe.run(document, { runOnly: arguments[0] }).then(done, (e) => done(String(e)))",
        WCAG,
    )
    problems = [(rule["id"], node["html"][:200]) for rule in found["violations"] for node in rule["nodes"]]
    assert problems == []
    assert len(found["passes"]) > 15


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_words_in_pictures_stand_out(browse, name, scheme):
    contrasts = browse(name, scheme).execute_script(CONTRASTS)
    assert len(contrasts) > 10
    assert [(word, ratio) for word, ratio in contrasts if ratio < 4.5] == []


def test_the_scheme_changes_the_paper(browse):
    def paper(scheme):
        rgb = browse("geyser", scheme).execute_script("return getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", rgb)[:3]))

    assert paper("light") > 3 * 230
    assert paper("dark") < 3 * 50


def test_pointing_at_a_row_tells_of_it(browse):
    driver = browse("iris")
    point = driver.find_elements(By.CSS_SELECTOR, ROW_POINTS)[0]
    driver.execute_script("arguments[0].scrollIntoView({ block: 'center', behavior: 'instant' })", point)
    ActionChains(driver).move_to_element(point).perform()
    tip = until(lambda: driver.find_element(By.ID, "vg-tooltip-element").text)
    assert re.search(r"row\s+\d+", tip), tip
    assert re.search(r"id\s+flower \d+", tip), tip
    assert "Petal.Length" in tip
    assert re.search(r"component \d\s+[01]\.\d\d \[[01]\.\d\d, [01]\.\d\d\]", tip), tip


def test_the_slider_leaves_the_rows_that_are_less_certain(browse):
    driver = browse("iris")
    told = json.loads(driver.find_element(By.ID, "data").get_attribute("textContent"))["rows"]["p"]
    slider = driver.find_element(By.ID, "certainty")
    assert len(driver.find_elements(By.CSS_SELECTOR, ROW_POINTS)) == 150
    assert "150 of 150 rows" in driver.find_element(By.ID, "how-many").text
    for _ in range(10):
        slider.send_keys(Keys.ARROW_LEFT)
    limit = 1 / 3 + 2 / 3 * 0.9
    expected = sum(p <= limit for p in told)
    assert 0 < expected < 150
    until(lambda: len(driver.find_elements(By.CSS_SELECTOR, ROW_POINTS)) == expected)
    assert slider.get_attribute("aria-valuetext") == f"{limit:.2f}, {expected} of 150 rows"


def test_the_axes_are_the_features_that_are_picked(browse):
    driver = browse("iris")
    Select(driver.find_element(By.ID, "up")).select_by_visible_text("Sepal.Width")
    titles = "#rows-picture .role-axis-title text"
    until(lambda: "Sepal.Width" in texts(driver, titles))
    assert set(texts(driver, titles)) == {"Petal.Length", "Sepal.Width"}
    assert len(driver.find_elements(By.CSS_SELECTOR, ROW_POINTS)) == 150


def test_no_line_is_drawn_beyond_the_axes(browse):
    """With other features picked outlines of draws reach farther than the rows."""
    driver = browse("iris")
    for name in ("Sepal.Width", "Petal.Width"):
        Select(driver.find_element(By.ID, "up")).select_by_visible_text(name)
        clipped = driver.execute_script(
            "return [...document.querySelectorAll('#rows-picture .mark-line, #rows-picture .layer_0_pathgroup')]"
            ".map((group) => Boolean(group.closest('[clip-path]') || group.querySelector('[clip-path]')))"
        )
        assert clipped
        assert all(clipped)


def test_the_list_sorts_by_its_headings(browse):
    driver = browse("geyser")
    heads = {cell.text: cell for cell in driver.find_elements(By.CSS_SELECTOR, "#row-list thead th")}
    assert heads["probability"].get_attribute("aria-sort") == "ascending"
    assert rows_shown(driver)[0] == 243
    heads["row"].find_element(By.TAG_NAME, "button").click()
    assert rows_shown(driver) == list(range(272))
    assert heads["row"].get_attribute("aria-sort") == "ascending"
    assert heads["probability"].get_attribute("aria-sort") is None
    heads["row"].find_element(By.TAG_NAME, "button").click()
    assert rows_shown(driver) == list(range(272))[::-1]


def test_the_list_finds_what_is_searched_for(browse):
    driver = browse("iris")
    search = driver.find_element(By.ID, "search")
    search.send_keys("Flower 13")
    assert sorted(rows_shown(driver)) == [13, *range(130, 140)]
    assert driver.find_element(By.ID, "found").text == "11 of 150 rows"
    search.send_keys(Keys.CONTROL, "a")
    search.send_keys(Keys.DELETE)
    assert len(rows_shown(driver)) == 150


@pytest.mark.parametrize("name", ["geyser", "galaxies", "fit"])
def test_the_keyboard_moves_through_the_list_and_the_picture_rings_the_row(browse, name):
    driver = browse(name)
    numbers = rows_shown(driver)
    first = driver.find_element(By.CSS_SELECTOR, "#row-list tbody button[tabindex='0']")
    assert len(driver.find_elements(By.CSS_SELECTOR, "#row-list tbody button[tabindex='0']")) == 1
    first.send_keys("")  # focuses it

    def ringed():
        """Where the ring is, and where the row's point is, in both pictures."""
        return driver.execute_script(
            """
            return ["rows-picture", "map"].map((id) => {
              const groups = [...document.getElementById(id).querySelectorAll(".mark-symbol")];
              const ring = groups.at(-1).querySelector("path");
              return ring && ring.getAttribute("transform");
            });
            """
        )

    places = [until(lambda: all(ringed()) and ringed())]
    for key, at in ((Keys.ARROW_DOWN, 1), (Keys.ARROW_DOWN, 2), (Keys.ARROW_UP, 1), (Keys.END, -1), (Keys.HOME, 0)):
        driver.switch_to.active_element.send_keys(key)
        assert driver.switch_to.active_element.text == str(numbers[at])
        places.append(until(lambda: ringed() != places[-1] and ringed()))
    assert places[1] == places[3]
    assert places[0] == places[-1]
    assert len(driver.find_elements(By.CSS_SELECTOR, "#row-list tbody button[tabindex='0']")) == 1


def test_every_control_is_reached_by_the_tab_key(browse):
    driver = browse("iris")
    reached = set()
    for _ in range(40):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(driver.switch_to.active_element.get_attribute("id"))
    assert {"across", "up", "certainty", "search"} <= reached


def test_printing_is_on_white_paper_with_forty_rows(browse):
    driver = browse("geyser", "dark")
    pages = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pages.startswith(b"%PDF")
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    lines = driver.find_elements(By.CSS_SELECTOR, "#row-list tbody tr")
    assert sum(line.is_displayed() for line in lines) == 40
    assert not driver.find_element(By.TAG_NAME, "nav").is_displayed()
    assert driver.find_element(By.CSS_SELECTOR, "#rows-picture svg").is_displayed()
    contrasts = driver.execute_script(CONTRASTS)
    assert min(ratio for _, ratio in contrasts) >= 4.5
    ink = driver.execute_script("return getComputedStyle(document.body).color")
    assert sum(map(int, re.findall(r"\d+", ink)[:3])) < 3 * 60


def test_the_table_of_components_of_many_columns_fits_its_place(browse, tmp_path):
    X = np.random.default_rng(0).normal(size=(150, 13)) + 6 * np.repeat(np.arange(3), 50)[:, None]
    table = pd.DataFrame(X, columns=[f"measured value {j}" for j in range(13)])
    tree = bg.sample_posterior(table, bg.fit_em(table, 3, "VVI", n_starts=2, rng=0), method="laplace", rng=0)
    driver = browse(bg.report(tree, path=tmp_path / "wide.html").as_uri())
    place = driver.find_element(By.CSS_SELECTOR, "#groups .wide")
    assert len(place.find_elements(By.CSS_SELECTOR, ".interval")) >= 3 * 8
    assert place.get_property("scrollWidth") <= place.get_property("clientWidth")
    assert [e.text for e in place.find_elements(By.CSS_SELECTOR, "thead th")] == [f"component {k}" for k in range(3)]


@pytest.mark.parametrize("name", PAGES)
def test_a_narrow_screen_needs_no_scrolling_to_the_side(browse, name):
    driver = browse(name)
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        browse(name)
        width = driver.execute_script("return document.documentElement.scrollWidth")  # innerWidth would grow with it
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert width <= 360
