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
interceptor turns a fault into a gRPC status with google.rpc.ErrorInfo (and BadRequest for fields); `fault_from_rpc`
turns it back. Anything else that is raised is a bug and leaks nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

ERROR_DOMAIN = "tollgate"


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


def status_from_fault(fault: Fault) -> grpc.Status:
    """The gRPC status of a fault, its reason and fields in the details."""
    details = [error_details_pb2.ErrorInfo(reason=fault.reason, domain=ERROR_DOMAIN)]
    status = status_pb2.Status(code=code_pb2.Code.Value(fault.code.name), message=fault.message)
    for detail in details:
        status.details.append(_packed(detail))
    if fault.violations:
        status.details.append(
            _packed(
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.message)
                        for v in fault.violations
                    ]
                )
            )
        )
    converted: grpc.Status = rpc_status.to_status(status)
    return converted


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def fault_from_rpc(error: grpc.aio.AioRpcError) -> Fault:
    """The fault that a server raised, or the nearest one for a status that is not ours (a proxy's, gRPC's own)."""
    reason, violations = error.code().name, []
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # details that disagree with the status: not ours
        status = None
    for detail in status.details if status is not None else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason = info.reason
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations = [FieldViolation(v.field, v.description) for v in bad.field_violations]
    message = error.details() or "no details"
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        fault = InvalidArgument(violations[0].field if violations else "request", message, reason, violations)
        fault.message = message
        return fault
    return _BY_CODE.get(error.code(), Unavailable)(reason, message)
