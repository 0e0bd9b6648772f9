"""Malformed, forbidden and unknown requests to read the registry."""

import pytest

from tests.client import Api


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/registry/services/web?status=up", "status"),
        ("/registry/services/web?state=dead", "state"),
        ("/registry/services/web?namespace=A", "namespace"),
        ("/registry/services/web?namespace=a&namespace=b", "namespace"),
        ("/registry/services/web?nonsense=1", "nonsense"),
        ("/registry/services/web?protected=yes", "protected"),
        ("/registry/services/web?name=x", "name"),
        ("/registry/services/W%00b", "name"),
        ("/registry/services?limit=0", "limit"),
        ("/registry/services?limit=501", "limit"),
        ("/registry/services?limit=%D9%A1", "limit"),
        ("/registry/services?limit=9223372036854775808", "limit"),
        ("/registry/services?after=nonsense", "after"),
        ("/registry/services?after=WyJhIl0", "after"),
        ("/registry/services?namespace=%00", "namespace"),
        ("/registry/services?name=a*b", "name"),
        ("/registry/services?view=half", "view"),
        ("/registry/services?zone=a%20b", "zone"),
        ("/registry/services?tag=%C3%A9", "tag"),
        ("/registry/services?metadata.a=%00", "metadata"),
        ("/registry/services?metadata.a=1&metadata.a=2", "metadata"),
        ("/registry/services?metadata.a%20b=1", "metadata"),
        ("/registry/services?metadata=1", "metadata"),
        ("/registry/services?metadata=1&metadata.a=b", "metadata"),
        ("/registry/services/web?metadata=1&metadata.a=b", "metadata"),
        ("/registry/instance/web-1?service_name=web", "service_name"),
        ("/registry/services?after=WyIwMDAwMDAwMC0xIiwiXHVkODAwIiwiYSJd", "after"),
        ("/registry/services?owner=", "owner"),
        ("/registry/services?status=", "status"),
        ("/registry/instance/web/web-1?namespace=%FF", "namespace"),
        ("/registry/instance/web/a%20b", "instance_id"),
    ],
)
def test_read_with_a_malformed_value_names_its_field(reader: Api, path: str, field: str) -> None:
    answer = reader.get(path)
    assert (answer.status, answer.code) == (400, "invalid")
    assert [name.partition(".")[0] for name in answer.json["errors"]] == [field]


@pytest.mark.parametrize("path", ["/registry/services", "/registry/services/web", "/registry/instance/web-1"])
def test_read_without_permission_is_forbidden_and_not_empty(db: None, path: str) -> None:
    answer = Api("team-payments").get(path)
    assert (answer.status, answer.code) == (403, "permission_denied")


@pytest.mark.parametrize("path", ["/registry/services/", "/registry/services"])
def test_read_with_and_without_a_trailing_slash_succeeds(reader: Api, path: str) -> None:
    assert reader.get(path).status == 200


def test_list_with_another_method_is_not_allowed(reader: Api) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        answer = reader.call(method, "/registry/services")
        assert (answer.status, answer.code) == (405, "method_not_allowed")


def test_unknown_path_is_not_found(reader: Api) -> None:
    answer = reader.get("/registry/nowhere")
    assert (answer.status, answer.code) == (404, "not_found")


def test_request_id_is_kept_only_when_it_is_well_formed(reader: Api) -> None:
    assert reader.get("/registry/services", X_Request_Id="abc-1").headers["x-request-id"] == "abc-1"
    assert reader.get("/registry/services", X_Request_Id="<script>").headers["x-request-id"] != "<script>"


def test_read_with_too_many_parameters_is_invalid(reader: Api) -> None:
    answer = reader.get("/registry/services?" + "&".join(["tag=a"] * 1001))
    assert (answer.status, answer.code) == (400, "invalid")
