"""What one request asks for: the few things that the edge decides by, and the bytes to forward."""

from __future__ import annotations

import msgspec

from edge.openai.body import Members, scan
from edge.openai.content import Finding

CHAT, RESPONSES = "chat", "responses"
# Upstreams hold counts in 32 bits; a larger one would wrap there.
COUNT_MAX = 2**31 - 1

INCLUDE_USAGE, CONTINUOUS_USAGE = "include_usage", "continuous_usage_stats"

_encode = msgspec.json.Encoder().encode


class Ask(msgspec.Struct, frozen=True, gc=False):
    """One request, read. Counts are tokens or pieces; `None` means that the client did not say."""

    resource: str  # CHAT or RESPONSES
    body: bytes
    members: Members
    model: str
    stream: bool = False
    include_usage: bool | None = None  # chat: in so many words; null, `{}` and a null inside count as not said
    n: int = 1
    max_output_tokens: int | None = None  # the largest output limit given
    opaque: bool = False  # something is in it whose tokens its bytes do not bound: hold the whole context
    images: int = 0
    findings: tuple[Finding, ...] = ()  # what a deployment may refuse (refuse.py)

    @property
    def text_bytes(self) -> int:
        """An upper bound of the prompt's text in UTF-8: all of it stands in the body, escaped or not."""
        return len(self.body)

    def upstream_body(self, model: str | None, include_usage: bool, continuous_usage: bool = False) -> bytes:
        """The body as one deployment gets it: byte for byte, but for at most two splices.

        model: the deployment's own name for the model; None where it has none of its own.
        include_usage, continuous_usage: set these members of `stream_options`; only on streamed chat, since other
        requests that carry `stream_options` are refused by upstreams.
        """
        splices: list[tuple[int, int, bytes]] = []
        if model is not None and model != self.model:
            member = self.members.find("model")
            assert member is not None
            splices.append((member.start, member.end, _encode(model)))
        if self.stream and self.resource == CHAT:
            include_usage = include_usage and self.include_usage is not True
            if include_usage or continuous_usage:
                on = ((INCLUDE_USAGE, include_usage), (CONTINUOUS_USAGE, continuous_usage))
                splices += _stream_options_splices(self.members, [name for name, wanted in on if wanted])
        if not splices:
            return self.body
        pieces: list[bytes] = []
        at = 0
        for start, end, piece in sorted(splices):
            pieces += (self.body[at:start], piece)
            at = end
        pieces.append(self.body[at:])
        return b"".join(pieces)


def asks_continuous_usage(ask: Ask) -> bool:
    """Whether the client itself asks for usage in every chunk."""
    return any(finding.name == CONTINUOUS_USAGE for finding in ask.findings)


def _stream_options_splices(members: Members, wanted: list[str]) -> list[tuple[int, int, bytes]]:
    """Replacements that make each wanted member of `stream_options` true, touching nothing that is so already."""
    inside = b",".join(b'"%b":true' % name.encode() for name in wanted)
    member = members.find("stream_options")
    if member is None:
        end = len(members.body.rstrip(b" \t\n\r")) - 1  # the closing brace; there is a `model` before it
        return [(end, end, b',"stream_options":{' + inside + b"}")]
    value = members.value(member)
    if value == b"null":
        return [(member.start, member.end, b"{" + inside + b"}")]
    options = scan(value)
    splices = []
    missing = []
    for name in wanted:
        option = options.find(name)
        if option is None:
            missing.append(b'"%b":true' % name.encode())
        elif options.value(option) != b"true":
            splices.append((member.start + option.start, member.start + option.end, b"true"))
    if missing:
        after_brace = member.start + 1
        splices.append((after_brace, after_brace, b",".join(missing) + (b"," if options.values else b"")))
    return splices
