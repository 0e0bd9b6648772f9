"""Serve a front end with deliberate mistakes: `python -m tests.front_ends.mistakes asgi|wsgi PORT`.

`POST /mistakes/NAME` makes one mistake and undoes the previous one; `none` only undoes. Each answer lists all mistakes
with the cases that must find them. The process ends at its start when the code that a mistake replaces is gone.
"""

import json
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_project.settings")
django.setup(set_prefix=False)

import registry_project.urls  # noqa: E402, F401 - a mistake is made in what is imported
from service_registry.caller import Caller  # noqa: E402
from service_registry.http import strict_json, validation  # noqa: E402
from service_registry.permissions import Action  # noqa: E402

CONTROL_PATH = "/mistakes"
NOTHING_NEEDED = (frozenset[str](),)

# An object, the name of an attribute, and the attribute's wrong value.
Change = tuple[Any, str, Any]


def instead_of(original: Any, replacement: Any) -> Iterator[Change]:
    """Yield a change for each module of the registry that has the object as a global."""
    modules = [module for name, module in sys.modules.items() if name.startswith("service_registry")]
    for module in modules:
        for name, value in vars(module).items():
            if value is original:
                yield module, name, replacement


def in_sql(package: ModuleType, part: str, replacement: str) -> Iterator[Change]:
    """Yield a change for each SQL statement in the modules of a package that contains the part."""
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = import_module(found.name)
        for name, value in vars(module).items():
            if isinstance(value, str) and part in value:
                yield module, name, value.replace(part, replacement)


def unchecked_model(model: Any, document: Any) -> Any:
    return model.model_construct(**document)


def unchecked_models(model: Any, documents: list[Any]) -> list[Any]:
    return [model.model_construct(**document) if isinstance(document, dict) else document for document in documents]


def unchecked_query(model: Any, query: Any, **path_parameters: Any) -> Any:
    known = {name: value for name, value in query.items() if name in model.model_fields}
    return model.model_construct(**path_parameters | known)


def of_rules() -> Iterator[tuple[str, str, Iterable[Change]]]:
    """Yield mistakes in rules that all front ends share: name, cases that must find it, changes."""
    from service_registry import manager

    yield "no permission is needed", "permissions", [(Action, "missing", lambda _self, _granted: None)]
    yield "registrations have no owner", "ownership", [(Caller, "owns", lambda _self, _owners: True)]
    yield "heartbeats have no owner", "ownership", in_sql(manager, "false) AS owned", "false) OR true AS owned")
    yield "objects are not validated", "fields", instead_of(validation.validate_one, unchecked_model)
    yield "items are not validated", "items", instead_of(validation.validate_many, unchecked_models)
    yield "queries are not validated", "queries", instead_of(validation.validate_query, unchecked_query)
    yield "JSON is read leniently", "JSON", [(strict_json, "parse_json", json.loads)]


def of_views() -> Iterator[tuple[str, str, Iterable[Change]]]:
    """Yield, for each action of a DRF view, the mistake that its permission is not checked."""
    from rest_framework.viewsets import ViewSet

    for view in ViewSet.__subclasses__():
        allowed: dict[str, Action] = getattr(view, "allowed_to", {})
        for name in allowed:
            others = {other: action for other, action in allowed.items() if other != name}
            yield f"{view.__name__} does not check {name}", "permissions", [(view, "allowed_to", others)]


class Unchecking:
    """An authenticator that checks the token and no permission."""

    def __init__(self, authenticator: Any) -> None:
        self.authenticator = authenticator

    async def authenticate(self, request: Any, action: Action) -> Any:
        return await self.authenticator.authenticate(request, replace(action, alternatives=NOTHING_NEEDED))


def of_handlers() -> Iterator[tuple[str, str, Iterable[Change]]]:
    """Yield, for each ASGI handler, the mistake that it does not check the permission."""
    from registry_project.asgi import application

    for route in application.routes.values():
        handler: Any = route.handler
        if authenticator := getattr(handler, "authenticator", None):
            change = handler, "authenticator", Unchecking(authenticator)
            yield f"the handler of {route.operation} does not check", "permissions", [change]


class Mistakes:
    """The mistakes that this process can make, and how to undo the current one."""

    def __init__(self, *kinds: Callable[[], Iterable[tuple[str, str, Iterable[Change]]]]) -> None:
        self.found_by: dict[str, str] = {}
        self.changes: dict[str, list[Change]] = {"none": []}
        self.undo: list[Change] = []
        for kind in kinds:
            for name, found_by, changes in kind():
                self.found_by[name] = found_by
                self.changes[name] = list(changes)
                assert self.changes[name], f"nothing to change for: {name}"

    def answer(self, path: str) -> bytes:
        """Make the mistake that the path names, and return the list of all as JSON."""
        name = path.removeprefix(CONTROL_PATH).removeprefix("/")
        if name:
            for owner, attribute, value in self.undo:
                setattr(owner, attribute, value)
            # `getattr` would bind methods to the class.
            self.undo = [(owner, attribute, vars(owner)[attribute]) for owner, attribute, _ in self.changes[name]]
            for owner, attribute, value in self.changes[name]:
                setattr(owner, attribute, value)
        return json.dumps(self.found_by).encode()


def serve_asgi(port: int) -> None:
    import uvicorn

    from registry_project.asgi import application

    mistakes = Mistakes(of_rules, of_views, of_handlers)

    async def mistaken(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith(CONTROL_PATH):
            body = mistakes.answer(scope["path"])
            headers = [(b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await application(scope, receive, send)

    uvicorn.run(
        mistaken,
        port=port,
        http="registry_project.asgi:Connection",
        lifespan="on",
        access_log=False,
        log_level="warning",
    )


def serve_wsgi(port: int) -> None:
    from registry_project.wsgi import application
    from tests.front_ends.wsgi_server import serve

    mistakes = Mistakes(of_rules, of_views)

    def mistaken(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not environ["PATH_INFO"].startswith(CONTROL_PATH):
            return application(environ, start_response)
        body = mistakes.answer(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    serve(mistaken, port)


if __name__ == "__main__":
    {"asgi": serve_asgi, "wsgi": serve_wsgi}[sys.argv[1]](int(sys.argv[2]))
