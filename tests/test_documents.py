"""The documents name every path, error code and make target of the code, and their links lead somewhere."""

import re
from pathlib import Path

import pytest

from service_registry.api.request_log import readable_route
from service_registry.api.urls import urlpatterns
from service_registry.health.result import Cause
from service_registry.http import problems
from service_registry.http.strict_json import OBJECT_BYTES
from service_registry.schemas import Registration
from service_registry.schemas.fields import METADATA_BYTES, METADATA_VALUE_BYTES

ROOT = Path(__file__).parents[1]
API = (ROOT / "docs" / "api.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def test_every_error_code_is_in_the_api_document() -> None:
    codes = {str(error.code) for error in problems.STATUS_BY_ERROR if hasattr(error, "code")}
    codes |= {*problems.CODE_BY_STATUS.values(), "internal", "unavailable"}
    assert {code for code in codes if f"`{code}`" not in API} == set()


def test_every_path_is_in_the_api_document() -> None:
    documentation = {"/schema", "/docs"}
    paths = {readable_route(str(pattern.pattern)) for pattern in urlpatterns} - documentation
    assert {path for path in paths if f"/registry{path}`" not in API} == set()
    assert all(f"/registry{path}`" in API for path in documentation)


def test_every_cause_of_a_check_is_in_the_health_document() -> None:
    document = (ROOT / "docs" / "health.md").read_text()
    assert [cause for cause in Cause if f"\n| `{cause}` | {cause.level} |" not in document] == []


def test_limits_of_every_field_are_in_the_api_document() -> None:
    fields = {*Registration.model_fields}
    assert {field for field in fields if f"\n| `{field}` |" not in API} == set()
    limits = (METADATA_BYTES, METADATA_VALUE_BYTES, OBJECT_BYTES)
    assert {limit for limit in limits if f" {limit // 1024} KiB" not in API} == set()


def test_routing_table_is_in_the_architecture_document() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text()
    source = (ROOT / "service_registry" / "asgi" / "app.py").read_text()
    paths = re.findall(r'\("[A-Z]+", "([^"]+)"\): Route', source)
    assert len(paths) > 5
    names = {path.removeprefix("/registry") for path in paths}
    assert {name for name in names if name not in table} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_documents_lead_to_files(path: Path) -> None:
    targets = [link for link in LINK.findall(path.read_text()) if "://" not in link]
    assert [link for link in targets if not (path.parent / link).exists()] == []


def test_every_make_target_of_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name for path in DOCUMENTS for name in re.findall(r"(?:^    |`)make ([a-z-]+)", path.read_text(), re.MULTILINE)
    }
    assert named - targets == set()
