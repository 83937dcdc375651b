"""Pages of several tables, written once, and a browser to look at them with."""

import shutil
import time
import warnings

import pytest

import bayesgmm as bg

BROWSERS = "chromium", "chromium-browser", "google-chrome"


@pytest.fixture(scope="session")
def pages(tmp_path_factory, faithful_posterior, iris_posterior):
    """Paths of pages, by name."""
    folder = tmp_path_factory.mktemp("pages")
    X, one = bg.datasets.old_faithful(), bg.datasets.galaxies()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.ConvergenceWarning)
        three = bg.sample_posterior(one, bg.fit_em(one, 3, rng=0), draws=100, tune=100, chains=2, rng=0)
        sampling = {"draws": 100, "tune": 100, "chains": 2}
        selection = bg.select(X, (1, 2, 3), ["tied", "VVI"], ("bic", "loo"), n_replicates=10, sampling=sampling, rng=0)
    made = {
        "geyser": bg.report(faithful_posterior, path=folder / "geyser.html", title="Old Faithful"),
        "iris": bg.report(iris_posterior, path=folder / "iris.html", ids=[f"flower {i}" for i in range(150)]),
        "galaxies": bg.report(three, path=folder / "galaxies.html"),
        "fit": bg.report(bg.fit_em(X, 2, rng=0), X, folder / "fit.html"),
        "selection": bg.report(selection, X, folder / "selection.html"),
        "one": bg.report(bg.fit_em(X, 1), X, folder / "one.html"),
    }
    return made


@pytest.fixture(scope="session")
def driver():
    """Chromium without a window, started once."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None or shutil.which("chromedriver") is None:
        pytest.skip("there is no Chromium with its driver here; Debian's packages are chromium and chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as driver:
        yield driver


@pytest.fixture
def browse(driver, pages):
    """Open a page, in a colour scheme, and wait until everything is drawn."""

    def browse(name, scheme="light"):
        wanted = {
            "prefers-color-scheme": scheme,
            "prefers-reduced-motion": "reduce",
        }  # nothing moves while it is clicked
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
        for log in ("browser", "performance"):
            driver.get_log(log)  # forget what other pages did
        driver.get(pages[name].as_uri() if name in pages else name)
        stop = time.monotonic() + 60
        while not driver.execute_script("return document.documentElement.dataset.drawn === 'true'"):
            assert time.monotonic() < stop, driver.get_log("browser")
            time.sleep(0.05)
        return driver

    return browse
