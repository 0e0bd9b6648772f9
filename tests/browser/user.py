"""A user at a browser."""

from dataclasses import dataclass
from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support import expected_conditions as expected
from selenium.webdriver.support.ui import Select, WebDriverWait


@dataclass
class BrowserUser:
    """A browser, the address of the registry, and a directory for screenshots."""

    browser: Chrome
    address: str
    screenshots: Path

    def open(self, path: str) -> None:
        self.browser.get(self.address + path)

    def find(self, css: str) -> WebElement:
        return WebDriverWait(self.browser, 20).until(expected.presence_of_element_located((By.CSS_SELECTOR, css)))

    def click(self, css: str) -> None:
        WebDriverWait(self.browser, 20).until(expected.element_to_be_clickable((By.CSS_SELECTOR, css))).click()

    def follow(self, css: str) -> None:
        """Click a link or button, and wait until the next page has replaced this one."""
        page = self.browser.find_element(By.TAG_NAME, "html")
        self.click(css)
        waiting = WebDriverWait(self.browser, 20)
        waiting.until(expected.staleness_of(page))
        waiting.until(lambda browser: browser.execute_script("return document.readyState") == "complete")

    def sign_in(self, subject: str) -> None:
        self.open("/admin/")
        self.follow("a.button[href*='/oidc/authenticate/']")
        self.follow(f"button[value='{subject}']")
        WebDriverWait(self.browser, 20).until(expected.url_contains(self.address))

    def choose_action(self, action: str, name: str, model: str = "instance") -> None:
        """Search for a row, select it and start an action."""
        self.open(f"/admin/service_registry/{model}/?q={name}")
        self.click("input.action-select")
        Select(self.find("select[name='action']")).select_by_value(action)
        self.follow("button[name='index']")

    def text(self) -> str:
        return self.browser.find_element(By.TAG_NAME, "body").text

    def set_size(self, width: int, height: int) -> None:
        """Emulate a screen of a phone; Chromium's own windows are at least 500 pixels wide."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def save_screenshot(self, name: str) -> None:
        self.browser.save_screenshot(str(self.screenshots / f"{name}.png"))
