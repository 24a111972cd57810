"""The API routes: JSON over HTTP ⇄ the methods that are annotated with `google.api.http`; no route is written by hand.

Success is 200 whatever the verb, as `google.api.http` has it: a created account has no other address than the one in
its `id`, so 201 would tell nothing new. A PATCH without `update_mask` changes the fields its body names.
"""

from __future__ import annotations

from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from artstore_grpc.call import Backend
from artstore_grpc.gateway import bodies
from artstore_grpc.gateway.answers import UNSUPPORTED_MEDIA_TYPE, Answer, Refused, encoded
from artstore_grpc.gateway.bindings import OAUTH_SERVICE, Binding, bindings
from artstore_grpc.gateway.dialects import API_HEADERS
from artstore_grpc.gateway.endpoint import Handler
from artstore_grpc.gateway.exchange import Exchange
from artstore_grpc.gateway.messages import Reader, located, to_json
from artstore_grpc.gateway.values import FIELD_MASK

OUTPUT_ONLY = field_behavior_pb2.OUTPUT_ONLY
ETAG = "etag"
"""Says which version a change is meant for (AIP-154); never itself a change."""


def routes(backend: Backend) -> dict[str, dict[str, Handler]]:
    """The handlers of every annotated method by route and verb."""
    found: dict[str, dict[str, Handler]] = {}
    for binding in bindings():
        if binding.method.containing_service.name != OAUTH_SERVICE:
            found.setdefault(binding.route, {})[binding.verb] = handler(backend, binding)
    return found


def templates() -> dict[str, str]:
    """Each of these routes as a reader knows it, with `{id}` where it has a number."""
    return {binding.route: binding.route_template for binding in bindings()}


def handler(backend: Backend, binding: Binding) -> Handler:
    async def handle(exchange: Exchange) -> Answer:
        request = request_of(binding, exchange)
        answer = await backend(request, exchange.prepared(binding.full_name))
        return Answer(200, API_HEADERS, encoded(to_json(answer)))

    return handle


def request_of(binding: Binding, exchange: Exchange) -> Message:
    """The message that a request means. Raises InvalidRequest with every violation, Refused for another media type."""
    request, reader = binding.request(), Reader()
    body = read_body(exchange) if binding.body else {}
    if binding.body == "*":
        reader.document(request, body)
    elif binding.body:
        reader.document(getattr(request, binding.body), body, f"{binding.body}.")
        getattr(request, binding.body).SetInParent()
    bind_path(binding, request, exchange.scope.get("path_params", {}), reader)
    bind_query(binding, request, exchange, reader)
    if binding.verb == "PATCH":
        derive_mask(binding, request, body)
    reader.check()
    return request


def read_body(exchange: Exchange) -> dict[str, Any]:
    """The JSON object of the body; no body at all is an empty one."""
    kinds = exchange.values(b"content-type")
    if b"content-encoding" in exchange.headers or len(kinds) > 1:
        raise Refused(UNSUPPORTED_MEDIA_TYPE)
    if kinds and bodies.media_type(kinds[0].decode("latin-1")) != bodies.JSON:
        raise Refused(UNSUPPORTED_MEDIA_TYPE)
    return bodies.json_object(exchange.body) if exchange.body else {}


def bind_path(binding: Binding, request: Message, values: dict[str, str], reader: Reader) -> None:
    """Sets the fields of the path's variables. A body that names another account is refused, unless it does so in an
    output-only field, which is ignored (AIP-203)."""
    for index, name in enumerate(binding.variables):
        owner, field = located(request, name)
        assert field is not None
        value = values[f"v{index}"]
        if getattr(owner, field.name) not in ("", value) and not output_only(field):
            reader.fault(name, "differs from the path")
        setattr(owner, field.name, value)


def bind_query(binding: Binding, request: Message, exchange: Exchange, reader: Reader) -> None:
    parameters = bodies.form(exchange.scope["query_string"])
    taken = {name.partition(".")[0] for name in binding.variables} | {binding.body}
    if binding.body == "*":
        taken |= set(request.DESCRIPTOR.fields_by_name)
    reader.parameters(request, parameters, frozenset(taken))


def derive_mask(binding: Binding, request: Any, body: dict[str, Any]) -> None:
    """Fills an absent field mask with the fields the body names (AIP-134), but for those that no change can touch."""
    mask = next((f for f in request.DESCRIPTOR.fields if is_mask(f)), None)
    if mask is None or request.HasField(mask.name):
        return
    resource: Descriptor = request.DESCRIPTOR.fields_by_name[binding.body].message_type
    fields = resource.fields_by_name
    named = [name for name in body if name in fields and name != ETAG and not output_only(fields[name])]
    getattr(request, mask.name).paths.extend(named)


def is_mask(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == FIELD_MASK


def output_only(field: FieldDescriptor) -> bool:
    return OUTPUT_ONLY in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
