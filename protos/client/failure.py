"""What went wrong with a call: the status, and the google.rpc details that Tollgate's services put beside it."""

from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of the request that is wrong, and what would be right."""

    field: str
    message: str


class CallFailed(Exception):
    """A call that was not answered.

    code: gRPC's. reason: UPPER_SNAKE and stable, for programs; the code's name where the server gave none (a proxy's
    answer, gRPC's own). message: for people. violations: the fields that are wrong, for INVALID_ARGUMENT. request_id:
    what the server's log has the call under; empty where none was told.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        violations: tuple[Violation, ...] = (),
        request_id: str = "",
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.code, self.reason, self.message = code, reason, message
        self.violations, self.request_id = violations, request_id


def failure_from_rpc(error: grpc.RpcError) -> CallFailed:
    """Reads ErrorInfo, BadRequest and RequestInfo from an error of gRPC, whether the call was asyncio's or blocked."""
    assert isinstance(error, grpc.aio.AioRpcError | grpc.Call)  # what a call raises is both

    reason, violations, request_id = error.code().name, [], ""
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # details that disagree with the status: not Tollgate's
        status = None
    for detail in status.details if status is not None else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason = info.reason
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations = [Violation(v.field, v.description) for v in bad.field_violations]
        elif detail.Is(error_details_pb2.RequestInfo.DESCRIPTOR):
            about = error_details_pb2.RequestInfo()
            detail.Unpack(about)
            request_id = about.request_id
    return CallFailed(error.code(), reason, error.details() or "no details", tuple(violations), request_id)
