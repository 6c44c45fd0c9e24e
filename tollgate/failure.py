"""How a command fails: one line that says what is wrong, and what to do next."""

import json
import sys
from collections.abc import Sequence

from chassis.faults import Fault

# What to do next in terms of this command, which the service that raised the fault cannot know. By reason.
_NEXT_STEPS = {
    "ACCOUNT_NOT_FOUND": "`tollgate accounts list` shows them all",
    "ACCOUNT_NAME_TAKEN": "or use the account that has it: `tollgate accounts show NAME`",
    "KEY_NOT_FOUND": "`tollgate keys list ACCOUNT` shows an account's keys with their ids",
    "MODEL_NOT_FOUND": "`tollgate models list` shows them all",
    "CATALOG_EMPTY": "apply a document: `tollgate models apply FILE`",
    "INSUFFICIENT_FUNDS": "`tollgate balance ACCOUNT` shows what there is; --force takes it all the same",
    "REQUEST_NOT_FOUND": "`tollgate balance ACCOUNT --entries 100` shows the latest charges with their requests",
    "REQUEST_ID_REUSED": "leave --request-id away to make a new one",
}
# What the service says to callers of its gRPC methods instead.
_SERVICES_STEPS = {"KEY_NOT_FOUND": ": see ListKeys", "MODEL_NOT_FOUND": ": list the models to see their ids"}


class CommandFailed(Exception):
    """The command cannot do what it was asked to. `reason` is UPPER_SNAKE and stable; the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def report(failure: CommandFailed | Fault, *, as_json: bool) -> None:
    """Tells on standard error what went wrong: lines for people, or one JSON object."""
    violations = failure.violations if isinstance(failure, Fault) else ()
    message = failure.message
    if as_json:
        error: dict[str, object] = {"reason": failure.reason, "message": message}
        if violations:
            error["violations"] = [{"field": each.field, "message": each.message} for each in violations]
        print(json.dumps({"error": error}), file=sys.stderr)
        return
    lines = [
        each.message if failure.reason == "CATALOG_INVALID" else f"{each.field}: {each.message}" for each in violations
    ]
    if len(lines) > 1 and message.endswith(violations[0].message):
        message = f"{message.removesuffix(violations[0].message).rstrip(' ;')}:"  # the first is told with the others
    print(f"tollgate: {_with_next_step(failure.reason, message)}", file=sys.stderr)
    for line in _untold(lines, message):
        print(f"  {line}", file=sys.stderr)


def _with_next_step(reason: str, message: str) -> str:
    step = _NEXT_STEPS.get(reason)
    message = message.removesuffix(_SERVICES_STEPS.get(reason, ""))
    return f"{message.rstrip('.')}; {step}" if step and step not in message else message


def _untold(lines: Sequence[str], message: str) -> list[str]:
    """The violations that the message does not tell already."""
    return [line for line in lines if line not in message and line.partition(": ")[2] not in message]
