"""Check that vacuum can remove the dead rows that heartbeats leave."""

from datetime import timedelta

from service_registry.database.dead_rows import Slot, TableRows, Transaction, read_rows, read_slots, read_transactions
from service_registry.management.doctor.database import fetch_row
from service_registry.management.doctor.finding import Finding, ok, warn
from service_registry.management.doctor.registry import format_duration
from service_registry.sql import LEASE

# No transaction of the registry takes longer than ten seconds.
LONG_SECONDS = 60
# Where no time is visible. Under load heartbeats take a hundred transactions a second and more.
MANY_TRANSACTIONS = 50_000
# A page of the lease table has as many dead rows as live ones before it is pruned (fillfactor 50). The statistics are
# a second late, in which a busy registry replaces thousands of rows.
MANY_DEAD_ROWS = 10_000
LARGE_SHARE = 0.75

MEBIBYTE = 2**20


def check_transactions() -> Finding:
    return judge_transactions(read_transactions())


def judge_transactions(found: list[Transaction]) -> Finding:
    timed = [each for each in found if each.seconds is not None]
    hidden = [each for each in found if each.kind == "transaction" and each.seconds is None]
    sentences = []
    if timed:
        sentences.append(describe_transaction(max(timed, key=lambda each: each.seconds or 0)))
    sentences += [describe_standby(each) for each in found if each.kind == "standby"]
    if hidden:
        sentences.append(
            f"age and state of {len(hidden)} of other roles are not visible, {hidden[0].held} transactions began since"
        )
    message = "; ".join(sentences) or "none keeps dead rows"
    if any((each.seconds or 0) > LONG_SECONDS or each.held > MANY_TRANSACTIONS for each in found):
        return warn(message, advice_on_transactions(found))
    return ok(message)


def describe_transaction(oldest: Transaction) -> str:
    age = format_duration(timedelta(seconds=oldest.seconds or 0))
    if oldest.kind == "prepared":
        return f"the oldest was prepared {age} ago by {oldest.application}: {oldest.name!r}"
    application = oldest.application or "an unnamed application"
    return f"the oldest began {age} ago: process {oldest.name}, {application}, {oldest.state}"


def describe_standby(standby: Transaction) -> str:
    return f"{standby.held} transactions began since the oldest query of standby {standby.application}"


def advice_on_transactions(found: list[Transaction]) -> str:
    ways = {
        "transaction": "pg_terminate_backend(pid) ends a process",
        "prepared": "COMMIT PREPARED or ROLLBACK PREPARED ends a prepared transaction",
        "standby": "end long queries of the standby, or set its hot_standby_feedback to off",
    }
    kinds = {each.kind for each in found}
    advice = ["heartbeats become slower until it ends", *(way for kind, way in ways.items() if kind in kinds)]
    if any(each.kind == "transaction" and each.seconds is None for each in found):
        advice.append("GRANT pg_read_all_stats to the registry's role shows the sessions of others")
    return "; ".join(advice)


def check_slots() -> Finding:
    return judge_slots(read_slots())


def judge_slots(slots: list[Slot]) -> Finding:
    if not slots:
        return ok("no replication slot")
    unused = [slot for slot in slots if not slot.active]
    message = f"{len(slots)}, the oldest is {describe_slot(slots[0])}"
    if unused:
        largest = max(unused, key=lambda slot: slot.wal_bytes)
        return warn(
            f"{message}; {len(unused)} unused, the largest is {describe_slot(largest)}",
            "start what reads it, or remove it with pg_drop_replication_slot: it fills the disk and keeps dead rows",
        )
    if slots[0].held > MANY_TRANSACTIONS:
        return warn(message, "see why its reader is late; until then heartbeats become slower")
    return ok(message)


def describe_slot(slot: Slot) -> str:
    return f"{slot.name}, which keeps {slot.held} transactions and {slot.wal_bytes // MEBIBYTE} MiB of WAL"


def check_lease_table() -> Finding:
    (autovacuum,) = fetch_row("SELECT current_setting('autovacuum')")
    return judge_rows(read_rows(LEASE), runs_by_itself=autovacuum == "on")


def judge_rows(rows: TableRows, *, runs_by_itself: bool) -> Finding:
    share = rows.dead / max(rows.live + rows.dead, 1)
    vacuumed = "never vacuumed"
    if rows.vacuumed_seconds is not None:
        vacuumed = f"vacuumed {format_duration(timedelta(seconds=rows.vacuumed_seconds))} ago"
    message = f"{rows.dead} of {rows.live + rows.dead} rows of leases are dead ({share:.0%}); {vacuumed}"
    if not runs_by_itself:
        return warn(f"{message}; autovacuum is off", "set autovacuum to on: dead rows make heartbeats slower")
    if rows.dead > MANY_DEAD_ROWS and share > LARGE_SHARE:
        return warn(message, "end what the checks transactions and slots show; autovacuum then removes them")
    return ok(message)
