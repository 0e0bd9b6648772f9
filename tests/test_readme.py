"""README.md: its tables of error codes and paths, compared with the code."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_readme_lists_every_error_code() -> None:
    from service_registry.http import problems

    codes = {str(error.code) for error in problems.STATUS_BY_ERROR if hasattr(error, "code")}
    codes |= {*problems.CODE_BY_STATUS.values(), "internal", "unavailable"}
    readme = (ROOT / "README.md").read_text()
    assert {code for code in codes if f"`{code}`" not in readme} == set()


def test_readme_lists_every_path() -> None:
    from service_registry.api.urls import urlpatterns

    readme = (ROOT / "README.md").read_text()
    for pattern in urlpatterns:
        path = re.sub(r"\(\?P<(\w+)>\[\^/\]\+\)", r"{\1}", str(pattern.pattern)).strip("^$?").removesuffix("/")
        assert f"/registry/{path}`" in readme, path
