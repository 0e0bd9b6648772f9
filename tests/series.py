"""Time series of a scrape: their names and labels, with their values."""

from prometheus_client.parser import text_string_to_metric_families

Series = tuple[str, tuple[tuple[str, str], ...]]


def parse(text: str) -> dict[Series, float]:
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value_of(found: dict[Series, float], name: str, **labels: str) -> float:
    return found.get((name, tuple(sorted(labels.items()))), 0)
