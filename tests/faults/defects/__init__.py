"""Deliberate mistakes that the suite must catch. See `__main__`."""


def variables() -> dict[str, str]:
    """What makes the started processes run with the defect that `FAULTS_DEFECT` names."""
    return {}
