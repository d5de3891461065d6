"""The status page in a browser: headless Chromium, driven by Selenium, on a node with a mesh around it."""

from __future__ import annotations

import base64
import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import PATIENCE_S, Daemon, wait_for

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1280,1000",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("there is no Chromium with ChromeDriver here: install chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ARGUMENTS:
        options.add_argument(argument)
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


class Mesh:
    """hub, which shows the page, and edge, whose link and ID it shows."""

    def __init__(self, program: Path, folder: Path, *page: str) -> None:
        self.program, self.folder = program, folder
        script = "echo '<b>one</b>'; exec sleep 1000"
        shell = ("--work-command", "worktype=count", "command=sh", f'params=-c "{script}"')
        self.hub = Daemon(
            program, folder, "hub", "--tcp-listener", "bindaddr=127.0.0.1", "port=0", *shell,
            "--metrics-listener", "port=0", "page=true", *page,
        )  # fmt: skip
        self.address = re.findall(r"Serving metrics on (\S+)", self.hub.log.read_text())[0]
        self.edge = Daemon(program, folder, "<edge>", "--tcp-peer", f"127.0.0.1:{self.hub.port('TCP')}")
        wait_for("route", lambda: self.hub.reaches("<edge>"))

    def close(self) -> None:
        for daemon in (self.edge, self.hub):
            if daemon.process.poll() is None:
                daemon.end()


@pytest.fixture
def mesh(receptor: Path, tmp_path: Path) -> Iterator[Mesh]:
    mesh = Mesh(receptor, tmp_path)
    yield mesh
    mesh.close()


def until(browser: webdriver.Chrome, what: str, condition: Callable[[], Any]) -> None:
    WebDriverWait(browser, PATIENCE_S, poll_frequency=0.05).until(lambda _: condition(), what)


def text(browser: webdriver.Chrome, selector: str) -> str:
    return str(browser.execute_script(f"return document.querySelector({json.dumps(selector)})?.textContent ?? ''"))


def test_the_mesh_is_shown_as_it_changes(browser: webdriver.Chrome, mesh: Mesh) -> None:
    browser.get(f"http://{mesh.address}/")
    until(browser, "a live page", lambda: text(browser, "#live") == "live")
    assert text(browser, "#title") == "hub"
    assert "2 of 2 nodes reachable · 1 links" in text(browser, "#summary")
    nodes = browser.find_elements(By.CSS_SELECTOR, "#mesh .node")
    labels = {node.get_attribute("aria-label") for node in nodes}
    assert labels == {"hub, this node", "<edge>, reachable by <edge> at cost 1"}
    assert "control" in text(browser, "#services")

    mesh.edge.end()
    until(browser, "the loss of a node", lambda: "1 of 2 nodes reachable" in text(browser, "#summary"))
    assert "<edge> is unreachable" in text(browser, "#news"), "a screen reader is told"
    mesh.edge.start()
    until(browser, "its return", lambda: "2 of 2 nodes reachable" in text(browser, "#summary"))
    mesh.hub.end()
    until(browser, "the end of the node itself", lambda: "disconnected" in text(browser, "#live"))
    entries = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert [entry["message"] for entry in entries if "net::ERR" not in entry["message"]] == []


def test_the_page_connects_again_when_the_daemon_does(browser: webdriver.Chrome, mesh: Mesh) -> None:
    """The page stays open over a restart of its node and shows the new one without being loaded again."""
    listener = mesh.hub.command.index("--metrics-listener")
    mesh.hub.command[listener + 1] = f"port={mesh.address.rpartition(':')[2]}"
    browser.get(f"http://{mesh.address}/")
    until(browser, "a live page", lambda: text(browser, "#live") == "live")
    browser.execute_script("window.sameDocument = true")
    mesh.hub.end()
    until(browser, "the loss of the node", lambda: text(browser, "#live") == "disconnected, trying again")
    mesh.hub.start()
    until(browser, "the node again", lambda: text(browser, "#live") == "live")
    assert "hub" in text(browser, "#title")
    assert browser.execute_script("return window.sameDocument"), "the page was not loaded again"


def test_units_and_their_output(browser: webdriver.Chrome, mesh: Mesh) -> None:
    browser.get(f"http://{mesh.address}/")
    until(browser, "a live page", lambda: text(browser, "#live") == "live")
    request = json.dumps({"command": "work", "subcommand": "submit", "node": "hub", "worktype": "count"})
    unit = json.loads(mesh.hub.ask(request, b"")[1])["unitid"]
    until(browser, "the unit", lambda: unit in text(browser, "#units") and "Running" in text(browser, "#units"))
    browser.find_element(By.CSS_SELECTOR, f"[data-key=unit-{unit}]").send_keys(Keys.ENTER)
    until(browser, "its output, as text", lambda: text(browser, "#tail-text") == "<b>one</b>\n")
    mesh.hub.ask(f"work cancel {unit}")
    until(browser, "its end", lambda: "Canceled" in text(browser, "#units"))
    browser.find_element(By.ID, "tail-close").click()
    assert not browser.find_element(By.ID, "tail").is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_can_be_read(browser: webdriver.Chrome, mesh: Mesh, scheme: str, width: int) -> None:
    """No sideways scrolling of the page, text that stands out from its ground, everything reached by the keyboard."""
    emulate = browser.execute_cdp_cmd
    emulate("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    emulate(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    browser.get(f"http://{mesh.address}/")
    until(browser, "a live page", lambda: text(browser, "#live") == "live")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    for selector in ("body", "#summary", "#mesh-hint", "#live", "th", ".good"):
        assert contrast(browser, selector) >= 4.5, f"{selector} in {scheme}"  # WCAG 2.2, 1.4.3.
    focused = set()
    body = browser.find_element(By.TAG_NAME, "body")
    for _ in range(12):
        body.send_keys(Keys.TAB)
        focused.add(browser.execute_script("return document.activeElement.getAttribute('aria-label') || ''"))
    assert {"hub, this node", "<edge>, reachable by <edge> at cost 1"} <= focused


LABELS = """
const frame = document.querySelector("#mesh").getBoundingClientRect();
const visible = (text) => getComputedStyle(text).visibility === "visible";
const shown = [...document.querySelectorAll("#mesh text")].filter(visible);
const boxes = shown.map((text) => ({ text: text.textContent, box: text.getBoundingClientRect() }));
const cut = ({ box }) => box.left < frame.left - 1 || box.right > frame.right + 1;
const wrong = boxes.filter(cut).map(({ text }) => `${text} is cut`);
boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b) => {
  const wide = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
  const high = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top);
  if (wide > 1 && high > 4) wrong.push(`${a.text} lies on ${b.text}`);
}));
return [boxes.map(({ text }) => text), wrong];
"""


def test_names_in_a_crowd(browser: webdriver.Chrome, mesh: Mesh) -> None:
    """On a phone the names of a dozen nodes stay inside the picture and off each other; others show on focus."""
    peer = f"127.0.0.1:{mesh.hub.port('TCP')}"
    names = [f"branch-office-{i:02}.example" for i in range(12)]
    crowd = [Daemon(mesh.program, mesh.folder, name, "--tcp-peer", peer) for name in names]
    try:
        size = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
        browser.get(f"http://{mesh.address}/")
        until(browser, "all nodes", lambda: "14 of 14 nodes reachable" in text(browser, "#summary"))
        shown, wrong = browser.execute_script(LABELS)
        assert wrong == []
        assert "hub" in shown
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
        for name in names:
            find = f"#mesh [data-node='{name}']"
            focus = "document.querySelector(arguments[0]).focus()"
            visible = "return getComputedStyle(document.querySelector(arguments[0] + ' text')).visibility"
            assert browser.execute_script(f"{focus}; {visible}", find) == "visible", f"{name} is focused"
    finally:
        for daemon in crowd:
            daemon.end()


CONTRAST = """
const shown = (element, key) => {
  for (let e = element; e; e = e.parentElement) {
    const parts = getComputedStyle(e)[key].match(/[\\d.]+/g).map(Number);
    if (parts.length < 4 || parts[3] > 0) return parts;
  }
};
const light = (parts) => {
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = parts.slice(0, 3).map((c) => linear(c / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const element = document.querySelector(arguments[0]);
const [a, b] = [light(shown(element, "color")), light(shown(element, "backgroundColor"))].sort((x, y) => y - x);
return (a + 0.05) / (b + 0.05);
"""


def contrast(browser: webdriver.Chrome, selector: str) -> float:
    """The contrast ratio of an element's text to what is behind it (WCAG 2.2)."""
    return float(browser.execute_script(CONTRAST, selector))


def test_credentials_are_asked_for(receptor: Path, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("s3cret\n")
    password.chmod(0o600)
    mesh = Mesh(receptor, tmp_path, "username=ops", f"passwordfile={password}")
    try:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://{mesh.address}/state", timeout=PATIENCE_S)
        basic = base64.b64encode(b"ops:s3cret").decode()
        request = urllib.request.Request(f"http://{mesh.address}/state", headers={"Authorization": f"Basic {basic}"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            assert json.load(answer)["version"]["node"] == "hub"
    finally:
        mesh.close()
