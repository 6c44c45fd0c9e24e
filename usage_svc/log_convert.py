"""Between the contract's logs and this service's."""

from protos.usage.v1 import usage_pb2 as pb
from usage_svc.convert import moment_us_from_pb, moment_us_to_pb
from usage_svc.logs import Log, Parts


def log_from_pb(log: pb.Log) -> Log:
    parts = Parts(0)
    for name in ("input", "output", "output_raw"):
        if log.HasField(name):
            parts |= Parts[name.upper()]
            if getattr(log, f"{name}_truncated"):
                parts |= Parts[f"{name.upper()}_TRUNCATED"]
    return Log(
        account_id=log.account_id,
        request_id=log.request_id,
        key_id=log.key_id,
        model_id=log.model_id,
        resource=int(log.resource),
        status_code=log.status_code,
        streamed=log.streamed,
        end_time_us=moment_us_from_pb(log.end_time),
        expire_time_us=moment_us_from_pb(log.expire_time),
        input_bytes=log.input_bytes,
        output_bytes=log.output_bytes,
        parts=int(parts),
        input=log.input if log.HasField("input") else None,
        output=log.output if log.HasField("output") else None,
        output_raw=log.output_raw if log.HasField("output_raw") else None,
    )


def log_to_pb(log: Log) -> pb.Log:
    """Bodies that were not read are there, and empty."""
    parts = Parts(log.parts)
    return pb.Log(
        request_id=log.request_id,
        account_id=log.account_id,
        key_id=log.key_id,
        model_id=log.model_id,
        resource=pb.Resource.ValueType(log.resource),
        status_code=log.status_code,
        streamed=bool(log.streamed),
        end_time=moment_us_to_pb(log.end_time_us),
        expire_time=moment_us_to_pb(log.expire_time_us),
        input_bytes=log.input_bytes,
        output_bytes=log.output_bytes,
        input=(log.input or b"") if parts & Parts.INPUT else None,
        output=(log.output or b"") if parts & Parts.OUTPUT else None,
        output_raw=(log.output_raw or b"") if parts & Parts.OUTPUT_RAW else None,
        input_truncated=bool(parts & Parts.INPUT_TRUNCATED),
        output_truncated=bool(parts & Parts.OUTPUT_TRUNCATED),
        output_raw_truncated=bool(parts & Parts.OUTPUT_RAW_TRUNCATED),
    )
