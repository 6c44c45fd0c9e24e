"""Structured logs: JSON lines on a pipe, pretty on a terminal.

One line per state transition and one per request. Never a prompt, a completion, a secret or a database password.
"""

import logging
import sys

import structlog


def configure(level: str, process: str) -> None:
    """Sets logging up for this process; standard library loggers go the same way."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: list[structlog.typing.Processor]
    if sys.stderr.isatty():
        plain = structlog.dev.plain_traceback  # rich_traceback, the default, shows local variables
        renderer = [structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    else:
        # Never with local variables, as structlog would by default: they hold prompts and keys.
        without_locals = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderer = [structlog.processors.ExceptionRenderer(without_locals), structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Two lines at every look at a schema's revision, and nothing that we do not say ourselves.
    logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(process=process)


def logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger for a module. Safe at import: nothing is configured until it is used."""
    bound: structlog.typing.FilteringBoundLogger = structlog.get_logger(name)
    return bound
