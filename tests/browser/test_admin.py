"""The admin in Chromium, with a login at the development issuer."""

import pytest
from selenium.common.exceptions import NoSuchElementException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from tests.browser.user import BrowserUser
from tests.client import registration
from tests.server.registry import Caller, Registry
from tests.server.test_single_requests import make_heartbeat
from tests.waiting import wait_for

pytestmark = pytest.mark.browser

HOSTILE = {
    "script": "<script>document.title = 'owned'</script>",
    "image": "<img src=x onerror=\"document.title = 'owned'\">",
    "link": "javascript:document.title='owned'",
    "template": "{{ 7 * 7 }}{% load static %}",
}


@pytest.fixture
def team(registry: Registry) -> Caller:
    caller = registry.caller("registry-services", "team-shop", subject="shop")
    # Between two calls the browser takes longer than the server keeps an idle connection open.
    caller.headers["Connection"] = "close"
    return caller


def register(team: Caller, instance_id: str, **fields: object) -> None:
    reply = team.call("POST", "/registry/register", registration("shop", instance_id, ttl_seconds=3600, **fields))
    assert reply.status in {200, 201}


def last_change(registry: Registry, instance_id: str) -> tuple[str, str, str]:
    query = "SELECT kind, actor, reason FROM service_registry_change WHERE instance_id = '{}' ORDER BY id DESC LIMIT 1"
    row: tuple[str, str, str] = registry.sql(query.format(instance_id))[0]
    return row


def test_operator_overrides_and_removes_instances(user: BrowserUser, registry: Registry, team: Caller) -> None:
    register(team, "shop-1")
    register(team, "shop-2")
    user.sign_in("oscar")
    user.save_screenshot("index")

    user.choose_action("override", "shop-1")
    assert "shop / shop-1" in user.text()
    user.click("input[type='submit'].default")
    assert "shop / shop-1" in user.text(), "the browser requires a reason"
    Select(user.find("select[name='status']")).select_by_value("OUT_OF_SERVICE")
    user.find("input[name='reason']").send_keys("disk is failing")
    user.save_screenshot("override")
    user.follow("input[type='submit'].default")
    assert "Override the status of instances: 1 of 1 done." in user.find(".messagelist").text
    user.save_screenshot("overridden")

    user.choose_action("remove", "shop-2")
    user.find("input[name='reason']").send_keys("machine is gone")
    user.save_screenshot("remove")
    user.follow("input[type='submit'].default")
    assert "Remove instances: 1 of 1 done." in user.find(".messagelist").text

    shown = team.call("GET", "/registry/instance/shop/shop-1").json
    assert (shown["status"], shown["override"]["reason"]) == ("OUT_OF_SERVICE", "disk is failing")
    assert shown["override"]["actor"].startswith("oscar@")
    assert team.call("GET", "/registry/instance/shop/shop-2").json["reason"] == "deregistered"
    kind, actor, reason = last_change(registry, "shop-2")
    assert (kind, actor.partition("@")[0], reason) == ("deregistered", "oscar", "machine is gone")
    user.open("/admin/service_registry/change/?q=shop-2")
    assert "machine is gone" in user.text()
    user.save_screenshot("changes")

    user.open("/admin/service_registry/override/")
    user.click("input.action-select")
    Select(user.find("select[name='action']")).select_by_value("clear")
    user.follow("button[name='index']")
    user.find("input[name='reason']").send_keys("disk replaced")
    user.follow("input[type='submit'].default")
    assert "Clear overrides: 1 of 1 done." in user.find(".messagelist").text
    assert team.call("GET", "/registry/instance/shop/shop-1").json["status"] == "UP"


def test_registry_rows_cannot_be_edited(user: BrowserUser, team: Caller) -> None:
    register(team, "shop-3")
    user.sign_in("alice")
    for model in ("service", "instance", "override", "change"):
        user.open(f"/admin/service_registry/{model}/")
        assert not user.browser.find_elements(By.CSS_SELECTOR, "#content a.addlink, option[value='delete_selected']")
    user.open("/admin/service_registry/instance/?q=shop-3")
    user.follow("th.field-instance_id a")
    assert "shop-3" in user.text()
    assert not user.browser.find_elements(By.CSS_SELECTOR, "#content-main input[type='text'], input[name='_save']")
    user.save_screenshot("instance")


def test_operator_reads_the_history_of_an_instance(user: BrowserUser, team: Caller) -> None:
    register(team, "shop-5", metadata=HOSTILE)
    register(team, "shop-5", weight=5)
    user.sign_in("oscar")
    user.choose_action("override", "shop-5")
    user.find("input[name='reason']").send_keys("<script>document.title = 'owned'</script>")
    user.follow("input[type='submit'].default")
    user.follow("th.field-instance_id a")
    user.follow("a.historylink")
    rows = user.browser.find_elements(By.CSS_SELECTOR, "#history tbody tr")
    assert [row.find_element(By.CSS_SELECTOR, "td").text for row in rows] == ["status_changed", "updated", "registered"]
    assert "<script>document.title = 'owned'</script>" in rows[0].text
    assert "oscar@" in rows[0].text
    assert "owned" not in user.browser.title
    user.save_screenshot("history")
    user.follow("#history a")
    assert "status_changed" in user.text()


def states_of(team: Caller, service_name: str) -> list[str]:
    found = team.call("GET", f"/registry/services/{service_name}?status=all&state=all").json["instances"]
    return [instance["state"] for instance in found]


def test_operator_releases_a_service(user: BrowserUser, registry: Registry, team: Caller) -> None:
    dead = [registration("dock", f"dock-{number}", ttl_seconds=5) for number in range(6)]
    for operation, items in (
        ("register", dead),
        ("heartbeat", [make_heartbeat("dock", f"dock-{number}") for number in range(6)]),
    ):
        assert {result["status"] for result in team.call("POST", f"/registry/{operation}", items).json["results"]} <= {
            200,
            201,
        }
    wait_for(lambda: states_of(team, "dock") == ["protected"] * 6, 30)
    user.sign_in("oscar")
    user.choose_action("release", "dock", "service")
    assert "Release services" in user.text()
    assert "default / dock" in user.text()
    assert "expire with the next sweep, and for 15 minutes no instance there becomes protected" in user.text()
    user.click("input[type='submit'].default")
    assert "default / dock" in user.text(), "the browser requires a reason"
    assert states_of(team, "dock") == ["protected"] * 6
    user.find("input[name='reason']").send_keys("scaled in")
    user.save_screenshot("release")
    user.follow("input[type='submit'].default")
    assert "Release services: 1 of 1 done." in user.find(".messagelist").text
    user.save_screenshot("released")
    wait_for(lambda: states_of(team, "dock") == ["expired"] * 6, 30)
    query = "SELECT actor, reason, evidence FROM service_registry_change WHERE kind = 'released'"
    ((actor, reason, evidence),) = registry.sql(query)
    assert (actor.partition("@")[0], reason, evidence) == ("oscar", "scaled in", {"protected": 6})


def test_operator_denies_a_caller_and_lifts_that(user: BrowserUser, registry: Registry) -> None:
    denied = registry.caller("registry-readers", subject="mallory")
    assert denied.call("GET", "/registry/services").status == 200
    user.sign_in("oscar")
    user.open("/admin/service_registry/denial/")
    user.follow(".addlink")
    user.find("input[name='name']").send_keys("mallory")
    user.find("input[name='reason']").send_keys("<b>floods</b>")
    user.save_screenshot("deny")
    user.follow("input[name='_save']")
    assert "added successfully" in user.find(".messagelist").text
    assert "<b>floods</b>" in user.text()
    user.save_screenshot("denials")
    wait_for(lambda: denied.call("GET", "/registry/services").status == 403, 10)

    user.follow("th.field-name a")
    user.save_screenshot("denial")
    user.choose_action("lift", "mallory", "denial")
    assert "subject mallory" in user.text()
    user.find("input[name='reason']").send_keys("mended")
    user.save_screenshot("lift")
    user.follow("input[type='submit'].default")
    assert "Lift denials: 1 of 1 done." in user.find(".messagelist").text
    user.save_screenshot("lifted")
    wait_for(lambda: denied.call("GET", "/registry/services").status == 200, 10)


@pytest.mark.parametrize("subject", ["rita", "sam"])
def test_user_without_an_operator_role_gets_a_403_page(user: BrowserUser, subject: str) -> None:
    user.sign_in(subject)
    assert "none of your groups may use this registry's admin" in user.text()
    user.save_screenshot("refused")
    user.open("/admin/")
    assert "/admin/login/" in user.browser.current_url


def test_deactivated_user_is_signed_out_at_the_next_request(user: BrowserUser, registry: Registry) -> None:
    user.sign_in("oscar")
    assert "Operations" in user.text()
    registry.execute("UPDATE service_registry_user SET is_active = false WHERE subject = 'oscar'")
    user.open("/admin/service_registry/instance/")
    assert "/admin/login/" in user.browser.current_url
    registry.execute("UPDATE service_registry_user SET is_active = true WHERE subject = 'oscar'")


def test_hostile_metadata_is_shown_as_text(user: BrowserUser, team: Caller) -> None:
    register(team, "shop-4", metadata=HOSTILE)
    user.sign_in("oscar")
    user.open("/admin/service_registry/instance/?q=shop-4")
    user.follow("th.field-instance_id a")
    assert "document.title" in user.text()
    assert "{{ 7 * 7 }}" in user.text()
    assert "owned" not in user.browser.title
    with pytest.raises(NoSuchElementException):
        user.browser.find_element(By.CSS_SELECTOR, "img[src='x'], a[href^='javascript']")
    user.save_screenshot("hostile")


def test_documentation_requires_a_signed_in_user(user: BrowserUser) -> None:
    user.open("/registry/docs")
    assert "/admin/login/" in user.browser.current_url
    user.sign_in("oscar")
    user.open("/registry/docs")
    assert "Register instances" in user.find("#operations-registration-register").text
    user.save_screenshot("docs")
    log = user.browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert [entry for entry in log if "favicon.ico" not in entry["message"]] == []


PHONE = (390, 844)


def test_pages_fit_the_width_of_a_phone(user: BrowserUser, team: Caller) -> None:
    register(team, "shop-6", host="2001:db8:1234:5678:9abc:def0:1234:5678", metadata={"note": "x" * 200})
    register(team, "shop-6", host="2001:db8:1234:5678:9abc:def0:1234:5679", metadata={"note": "x" * 200})
    user.sign_in("oscar")
    user.set_size(*PHONE)
    user.open("/admin/service_registry/instance/?q=shop-6")
    assert "http://[2001:db8:1234:5678:9abc:def0:1234:5679]:8080" in user.text()
    check_width(user, "phone-list")
    user.follow("th.field-instance_id a")
    check_width(user, "phone-instance")
    user.follow("a.historylink")
    check_width(user, "phone-history")
    for action in ("override", "remove"):
        user.choose_action(action, "shop-6")
        check_width(user, f"phone-{action}")


def test_pages_of_denials_fit_the_width_of_a_phone(user: BrowserUser) -> None:
    user.sign_in("oscar")
    user.set_size(*PHONE)
    user.open("/admin/service_registry/denial/add/")
    user.find("input[name='name']").send_keys("client-" + "x" * 60)
    user.find("input[name='reason']").send_keys("y" * 300)
    check_width(user, "phone-deny")
    user.follow("input[name='_save']")
    check_width(user, "phone-denials")
    user.follow("th.field-name a")
    check_width(user, "phone-denial")
    user.choose_action("lift", "client-", "denial")
    check_width(user, "phone-lift")


def test_pages_of_a_long_id_fit_the_width_of_a_phone(user: BrowserUser, team: Caller) -> None:
    register(team, "shop-" + "7" * 200)
    user.sign_in("oscar")
    user.set_size(*PHONE)
    user.open("/admin/service_registry/instance/?q=shop-7")
    user.follow("th.field-instance_id a")
    check_width(user, "phone-long-instance")
    user.follow("a.historylink")
    check_width(user, "phone-long-history")
    user.choose_action("remove", "shop-7")
    check_width(user, "phone-long-remove")


def check_width(user: BrowserUser, name: str) -> None:
    """Check that only parts of the page scroll sideways, not the page."""
    user.save_screenshot(name)
    width, visible = user.browser.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert width <= visible, name
