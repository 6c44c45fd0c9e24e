"""Expected trouble, as one tree that crosses the wire.

    Fault
    +-- InvalidArgument      the caller sent something wrong; names the field
    +-- Unauthenticated      who is calling is not known
    +-- PermissionDenied     who is calling may not do this
    +-- NotFound
    +-- AlreadyExists
    +-- FailedPrecondition   right request, wrong state; says which state is needed
    +-- ResourceExhausted    a limit was reached
    +-- Unavailable          try again later
    +-- DeadlineExceeded     took too long
    +-- Unimplemented        not offered by this server
    +-- Internal             a bug on the other side

A fault carries a stable UPPER_SNAKE `reason` for programs and a message for people that says what to do next. The
interceptor turns a fault into a gRPC status with google.rpc.ErrorInfo (and BadRequest for fields); `fault_from_failure`
turns it back. Anything else that is raised is a bug and leaks nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from protos.client import CallFailed

ERROR_DOMAIN = "tollgate"
# An error travels as metadata, which no caller takes without end: what is longer would lose the whole of it.
MAX_MESSAGE_CHARS = 1000
MAX_VIOLATIONS_BYTES = 32 * 1024


class PortTaken(Exception):
    """An address cannot be listened on; the message says which and what to do. Ends a start, never crosses the wire."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that is wrong, and what would be right."""

    field: str
    message: str


class Fault(Exception):
    """Expected trouble with a stable reason. Raise a subclass."""

    code: ClassVar[grpc.StatusCode]

    def __init__(self, reason: str, message: str, violations: Sequence[FieldViolation] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class InvalidArgument(Fault):
    """The caller sent something wrong."""

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(
        self, field: str, message: str, reason: str = "INVALID_FIELD", violations: Sequence[FieldViolation] = ()
    ) -> None:
        super().__init__(reason, f"{field}: {message}", violations or (FieldViolation(field, message),))


class Unauthenticated(Fault):
    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(Fault):
    code = grpc.StatusCode.PERMISSION_DENIED


class NotFound(Fault):
    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(Fault):
    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(Fault):
    code = grpc.StatusCode.FAILED_PRECONDITION


class ResourceExhausted(Fault):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(Fault):
    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(Fault):
    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Unimplemented(Fault):
    code = grpc.StatusCode.UNIMPLEMENTED


class Internal(Fault):
    code = grpc.StatusCode.INTERNAL


_BY_CODE: dict[grpc.StatusCode, type[Fault]] = {
    fault.code: fault
    for fault in (
        Unauthenticated,
        PermissionDenied,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
        Unimplemented,
        Internal,
    )
}


def status_from_fault(fault: Fault, request_id: str) -> grpc.Status:
    """The gRPC status of a fault; its reason, its fields and the call's id in the details."""
    status = status_pb2.Status(code=code_pb2.Code.Value(fault.code.name), message=_cut(fault.message))
    status.details.append(_packed(error_details_pb2.ErrorInfo(reason=fault.reason, domain=ERROR_DOMAIN)))
    status.details.append(_packed(error_details_pb2.RequestInfo(request_id=request_id)))
    if fault.violations:
        bad = error_details_pb2.BadRequest()
        for violation in fault.violations:
            bad.field_violations.add(field=violation.field, description=_cut(violation.message))
            if bad.ByteSize() > MAX_VIOLATIONS_BYTES:
                del bad.field_violations[-1]
                break
        status.details.append(_packed(bad))
    converted: grpc.Status = rpc_status.to_status(status)
    return converted


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE_CHARS else text[: MAX_MESSAGE_CHARS - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def fault_from_failure(failure: CallFailed) -> Fault:
    """The fault that a server raised, or the nearest one for a status that is not ours (a proxy's, gRPC's own)."""
    violations = [FieldViolation(each.field, each.message) for each in failure.violations]
    if failure.code is grpc.StatusCode.INVALID_ARGUMENT:
        fault = InvalidArgument(
            violations[0].field if violations else "request", failure.message, failure.reason, violations
        )
        fault.message = failure.message
        return fault
    return _BY_CODE.get(failure.code, Unavailable)(failure.reason, failure.message)
