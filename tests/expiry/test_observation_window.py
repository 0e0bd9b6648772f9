"""The observation window: time without heartbeats counts only while the registry can receive them."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from service_registry.expiry import observation_window
from service_registry.expiry.sweep import sweep
from service_registry.models import Lease, RegistryState
from tests import ageing
from tests.client import Api, registration

MONTH = 30 * 86400


def reading(monotonic: float, database: float, took: float = 0.0) -> observation_window.ClockReading:
    return observation_window.ClockReading(monotonic, database, monotonic + took, database, 0.0)


def test_pulse_after_a_gap_restarts_the_window_and_nothing_expires(payments: Api) -> None:
    payments.register()
    ageing.age_leases(600)
    ageing.interrupt_observation(6)
    assert sweep().expired == 0
    observation_window.Pulse().record()
    assert sweep().expired == 0
    state = RegistryState.objects.get()
    assert state.window_reason == "gap"
    assert (state.observed_at - state.window_started_at).total_seconds() < 1


def test_pulse_in_time_keeps_the_window(payments: Api) -> None:
    ageing.set_window_age(100)
    before = RegistryState.objects.get()
    ageing.interrupt_observation(2)
    observation_window.Pulse().record()
    after = RegistryState.objects.get()
    assert after.window_started_at == before.window_started_at
    assert after.observed_at > before.observed_at


def test_clock_reading_tells_a_jump_from_a_slow_response() -> None:
    earlier = reading(100.0, 5000.0)
    assert not reading(110.0, 5010.0).disagrees_with(earlier)
    assert not reading(110.0, 5018.0, took=8.0).disagrees_with(earlier)
    assert reading(110.0, 5070.0).disagrees_with(earlier)
    assert reading(110.0, 4950.0).disagrees_with(earlier)


def test_pulse_after_a_clock_jump_restarts_the_window(payments: Api) -> None:
    ageing.set_window_age(100)
    pulse = observation_window.Pulse()
    pulse.record()
    pulse._earlier = reading(0.0, 0.0)
    pulse.record()
    state = RegistryState.objects.get()
    assert state.window_reason == "clock"
    assert (state.observed_at - state.window_started_at).total_seconds() < 1


def test_database_clock_set_back_expires_nothing(payments: Api) -> None:
    """Neither before the next pulse, which restarts the window, nor after it."""
    payments.register()
    ageing.age_leases(20)
    ageing.set_clock_back(MONTH)
    RegistryState.objects.update(window_started_at=Now() - timedelta(seconds=100))
    assert sweep().expired == 0
    observation_window.Pulse().record()
    assert sweep().expired == 0
    assert payments.listed() == ["web-1"]


@pytest.mark.parametrize("ahead", [11, MONTH])
def test_dead_instance_with_a_heartbeat_in_the_future_expires_by_the_window(payments: Api, ahead: int) -> None:
    """The clock was ahead and has been set back. The instance must not stay listed until that time has come."""
    payments.register()
    ageing.set_clock_back(ahead)
    observation_window.Pulse().record()
    ageing.set_window_age(32)
    assert sweep().expired == 0
    ageing.set_window_age(34)
    assert sweep().expired == 1


def test_heartbeat_a_little_in_the_future_renews_the_lease(payments: Api) -> None:
    """It arrives while the statement runs, or the clock was corrected by a little: the window goes on."""
    payments.register()
    ageing.set_window_age(100)
    Lease.objects.update(heartbeat_at=Now() + timedelta(seconds=3))
    assert sweep().expired == 0
    assert payments.heartbeat().json["lease"]["expires_at"] > RegistryState.objects.get().observed_at.isoformat()


def test_long_sweep_of_a_web_process_pulses_between_its_transactions(payments: Api) -> None:
    for start in range(0, 2000, 1000):
        payments.post("/registry/register", [registration(instance_id=f"w-{start + n}") for n in range(1000)])
    ageing.age_leases(60)
    pulses: list[int] = []
    assert sweep(between=lambda: pulses.append(1)).expired == 2000
    assert len(pulses) >= 4


def test_process_with_a_wrong_clock_answers_503(payments: Api) -> None:
    payments.register()
    pulse = observation_window.process_pulse()
    pulse.clock_is_wrong = True
    try:
        answer = payments.heartbeat()
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "unavailable", "1")
    finally:
        pulse.clock_is_wrong = False
