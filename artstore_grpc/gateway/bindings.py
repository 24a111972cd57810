"""Which HTTP requests the methods of the API answer: their `google.api.http` annotations, read from the descriptors.

The grammar is `google/api/http.proto`'s, as far as this API uses it: variables that stand for one segment
(`{id}`, `{service_account.id}`), and a body that is everything (`*`), one field or none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from artstore_grpc.rpc.descriptors import full_name, walked

OAUTH_SERVICE = "TokenService"
"""Its routes speak OAuth's dialect and are written by hand (oauth.py, discovery.py)."""

VERBS = {"get": "GET", "put": "PUT", "post": "POST", "delete": "DELETE", "patch": "PATCH"}
VARIABLE = re.compile(r"\{([a-z0-9_.]+)\}")


@dataclass(frozen=True, slots=True)
class Binding:
    """One HTTP request form of a method: `variables` are the field paths of the path's variables, in order; `body` is
    `*`, a field's name or empty."""

    method: MethodDescriptor
    verb: str
    path: str
    variables: tuple[str, ...]
    body: str
    ordinal: int = 0
    """Which of the method's bindings it is."""

    @property
    def full_name(self) -> str:
        """As policy.py writes it: `package.Service/Method`."""
        return full_name(self.method)

    @property
    def request(self) -> type[Message]:
        return GetMessageClass(self.method.input_type)

    @property
    def route(self) -> str:
        """The path with its variables numbered, alike for every method of one path."""
        numbers = iter(range(len(self.variables)))
        return VARIABLE.sub(lambda _: f"{{v{next(numbers)}}}", self.path)

    @property
    def route_template(self) -> str:
        """The path with `{id}` for every variable that ends in it, alike for every method of one path."""
        return VARIABLE.sub(lambda found: f"{{{found[1].rpartition('.')[2]}}}", self.path)

    @property
    def operation_id(self) -> str:
        return f"{self.method.name}{self.ordinal + 1}" if self.ordinal else self.method.name


def bindings() -> list[Binding]:
    """Every binding of every method, additional ones too, in the protos' order."""
    return [binding(method, rule, ordinal) for method in walked() for ordinal, rule in enumerate(rules(method))]


def rules(method: MethodDescriptor) -> list[Any]:
    """The annotation and its additional bindings; none for a method that HTTP has no form of."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    return [each for each in (rule, *rule.additional_bindings) if each.WhichOneof("pattern")]


def binding(method: MethodDescriptor, rule: Any, ordinal: int) -> Binding:
    pattern = rule.WhichOneof("pattern")
    path = getattr(rule, pattern)
    return Binding(method, VERBS[pattern], path, tuple(VARIABLE.findall(path)), rule.body, ordinal)
