"""The people who can sign in: one for each of the registry's role groups."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Person:
    subject: str
    name: str
    groups: tuple[str, ...]

    @property
    def email(self) -> str:
        return f"{self.subject}@example.test"


PEOPLE = {
    person.subject: person
    for person in (
        Person("alice", "Alice, administrator", ("registry-admins",)),
        Person("oscar", "Oscar, operator", ("registry-operators",)),
        Person("rita", "Rita, reader", ("registry-readers",)),
        Person("sam", "Sam, of the payments team", ("registry-services", "team-payments")),
    )
}
