"""Fixtures: a registry of real processes, and Chromium."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from registry_project.devstack.issuer.clients import ADMIN, all_clients
from tests.browser.user import BrowserUser
from tests.server.registry import Registry

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1400,900"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


@pytest.fixture(scope="package")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    secret = all_clients(Path(os.environ["REGISTRY_DATA_DIR"]))[ADMIN].secret
    with Registry(tmp_path_factory.mktemp("browser"), variables={"OIDC_RP_CLIENT_SECRET": secret}) as running:
        yield running


@pytest.fixture
def user(registry: Registry, tmp_path: Path) -> Iterator[BrowserUser]:
    """A user with a new browser profile, not signed in."""
    options = ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    browser.set_page_load_timeout(30)
    try:
        yield BrowserUser(browser, f"http://127.0.0.1:{registry.ports[0]}", tmp_path)
    finally:
        browser.quit()
