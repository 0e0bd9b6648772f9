"""Operators at the admin, in a real browser, with a real login."""

import pytest
from selenium.common.exceptions import NoSuchElementException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from tests.browser.person import Person
from tests.client import registration
from tests.server.registry import Caller, Registry
from tests.server.test_singles import beat
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
    # Between two calls a person takes longer than the server keeps a connection open.
    caller.headers["Connection"] = "close"
    return caller


def register(team: Caller, instance_id: str, **fields: object) -> None:
    reply = team.call("POST", "/registry/register", registration("shop", instance_id, ttl_seconds=3600, **fields))
    assert reply.status in {200, 201}


def last_change(registry: Registry, instance_id: str) -> tuple[str, str, str]:
    query = "SELECT kind, actor, reason FROM service_registry_change WHERE instance_id = '{}' ORDER BY id DESC LIMIT 1"
    row: tuple[str, str, str] = registry.sql(query.format(instance_id))[0]
    return row


def test_an_operator_overrides_one_instance_and_removes_another(
    person: Person, registry: Registry, team: Caller
) -> None:
    register(team, "shop-1")
    register(team, "shop-2")
    person.sign_in("oscar")
    person.picture("index")

    person.choose_action("override", "shop-1")
    assert "shop / shop-1" in person.text()
    person.click("input[type='submit'].default")
    assert "shop / shop-1" in person.text(), "the browser asks for a reason first"
    Select(person.find("select[name='status']")).select_by_value("OUT_OF_SERVICE")
    person.find("input[name='reason']").send_keys("disk is failing")
    person.picture("override")
    person.follow("input[type='submit'].default")
    assert "1 of 1 done" in person.find(".messagelist").text
    person.picture("overridden")

    person.choose_action("remove", "shop-2")
    person.find("input[name='reason']").send_keys("machine is gone")
    person.picture("remove")
    person.follow("input[type='submit'].default")
    assert "1 of 1 done" in person.find(".messagelist").text

    shown = team.call("GET", "/registry/instance/shop/shop-1").json
    assert (shown["status"], shown["override"]["reason"]) == ("OUT_OF_SERVICE", "disk is failing")
    assert shown["override"]["actor"].startswith("oscar@")
    assert team.call("GET", "/registry/instance/shop/shop-2").json["reason"] == "deregistered"
    kind, actor, reason = last_change(registry, "shop-2")
    assert (kind, actor.partition("@")[0], reason) == ("deregistered", "oscar", "machine is gone")
    person.open("/admin/service_registry/change/?q=shop-2")
    assert "machine is gone" in person.text()
    person.picture("changes")

    person.open("/admin/service_registry/override/")
    person.click("input.action-select")
    Select(person.find("select[name='action']")).select_by_value("clear")
    person.follow("button[name='index']")
    person.find("input[name='reason']").send_keys("disk replaced")
    person.follow("input[type='submit'].default")
    assert "1 of 1 done" in person.find(".messagelist").text
    assert team.call("GET", "/registry/instance/shop/shop-1").json["status"] == "UP"


def test_nothing_that_the_verbs_own_can_be_edited(person: Person, team: Caller) -> None:
    register(team, "shop-3")
    person.sign_in("alice")
    for model in ("service", "instance", "override", "change"):
        person.open(f"/admin/service_registry/{model}/")
        assert not person.browser.find_elements(By.CSS_SELECTOR, "a.addlink, option[value='delete_selected']")
    person.open("/admin/service_registry/instance/?q=shop-3")
    person.follow("th.field-instance_id a")
    assert "shop-3" in person.text()
    assert not person.browser.find_elements(By.CSS_SELECTOR, "#content-main input[type='text'], input[name='_save']")
    person.picture("instance")


def test_an_operator_reads_the_history_of_an_instance(person: Person, team: Caller) -> None:
    register(team, "shop-5", metadata=HOSTILE)
    register(team, "shop-5", weight=5)
    person.sign_in("oscar")
    person.choose_action("override", "shop-5")
    person.find("input[name='reason']").send_keys("<script>document.title = 'owned'</script>")
    person.follow("input[type='submit'].default")
    person.follow("th.field-instance_id a")
    person.follow("a.historylink")
    rows = person.browser.find_elements(By.CSS_SELECTOR, "#change-history tbody tr")
    assert [row.find_element(By.CSS_SELECTOR, "td").text for row in rows] == ["status_changed", "updated", "registered"]
    assert "<script>document.title = 'owned'</script>" in rows[0].text
    assert "oscar@" in rows[0].text
    assert "owned" not in person.browser.title
    person.picture("history")
    person.follow("#change-history a")
    assert "status_changed" in person.text()


def states(team: Caller, service_name: str) -> list[str]:
    found = team.call("GET", f"/registry/services/{service_name}?status=all&state=all").json["instances"]
    return [instance["state"] for instance in found]


def test_an_operator_releases_what_a_service_holds(person: Person, registry: Registry, team: Caller) -> None:
    dead = [registration("dock", f"dock-{number}", ttl_seconds=5) for number in range(6)]
    for verb, items in (("register", dead), ("heartbeat", [beat("dock", f"dock-{number}") for number in range(6)])):
        assert {result["status"] for result in team.call("POST", f"/registry/{verb}", items).json["results"]} <= {
            200,
            201,
        }
    wait_for(lambda: states(team, "dock") == ["protected"] * 6, 30)
    person.sign_in("oscar")
    person.choose_action("release", "dock", "service")
    assert "Release services" in person.text()
    assert "default / dock" in person.text()
    assert "leaves the list with the next sweep, and for 15 minutes nobody is held" in person.text()
    person.click("input[type='submit'].default")
    assert "default / dock" in person.text(), "the browser asks for a reason first"
    assert states(team, "dock") == ["protected"] * 6
    person.find("input[name='reason']").send_keys("scaled in")
    person.picture("release")
    person.follow("input[type='submit'].default")
    assert "1 of 1 done" in person.find(".messagelist").text
    person.picture("released")
    wait_for(lambda: states(team, "dock") == ["expired"] * 6, 30)
    query = "SELECT actor, reason, evidence FROM service_registry_change WHERE kind = 'released'"
    ((actor, reason, evidence),) = registry.sql(query)
    assert (actor.partition("@")[0], reason, evidence) == ("oscar", "scaled in", {"protected": 6})


@pytest.mark.parametrize("subject", ["rita", "sam"])
def test_who_is_no_operator_sees_a_403_page_and_no_loop(person: Person, subject: str) -> None:
    person.sign_in(subject)
    assert "none of your groups may use this registry's admin" in person.text()
    person.picture("refused")
    person.open("/admin/")
    assert "/admin/login/" in person.browser.current_url


def test_a_deactivated_user_is_out_at_the_next_request(person: Person, registry: Registry) -> None:
    person.sign_in("oscar")
    assert "Operations" in person.text()
    registry.execute("UPDATE service_registry_user SET is_active = false WHERE subject = 'oscar'")
    person.open("/admin/service_registry/instance/")
    assert "/admin/login/" in person.browser.current_url
    registry.execute("UPDATE service_registry_user SET is_active = true WHERE subject = 'oscar'")


def test_hostile_metadata_runs_nothing(person: Person, team: Caller) -> None:
    register(team, "shop-4", metadata=HOSTILE)
    person.sign_in("oscar")
    person.open("/admin/service_registry/instance/?q=shop-4")
    person.follow("th.field-instance_id a")
    assert "document.title" in person.text()
    assert "{{ 7 * 7 }}" in person.text()
    assert "owned" not in person.browser.title
    with pytest.raises(NoSuchElementException):
        person.browser.find_element(By.CSS_SELECTOR, "img[src='x'], a[href^='javascript']")
    person.picture("hostile")


def test_the_documentation_is_a_page_for_who_is_signed_in(person: Person) -> None:
    person.open("/registry/docs")
    assert "/admin/login/" in person.browser.current_url
    person.sign_in("oscar")
    person.open("/registry/docs")
    assert "Register instances" in person.find("#operations-registration-register").text
    person.picture("docs")
    log = person.browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert [entry for entry in log if "favicon.ico" not in entry["message"]] == []
