"""GET /openapi.json, /llms.txt and /docs/*.md: read once when the edge starts, and public."""

import re
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path

from edge.http.answer import Answer, Sent, simple_answer
from edge.http.protocol import Request
from edge.http.record import RequestRecord
from edge.reference.openapi import openapi_json

MARKDOWN_TYPE = "text/markdown; charset=utf-8"
TEXT_TYPE = "text/plain; charset=utf-8"
# What customers read first; the other pages follow by name.
_FIRST = ("http-api", "management-api", "errors", "billing")
_CACHED = [("cache-control", "public, max-age=300")]

Handler = Callable[[Request, RequestRecord], Awaitable[Sent]]


def documentation_dir() -> Path | None:
    """Where the pages are: beside the code in a checkout, or where the package's data files go; None without them."""
    for folder in (Path(__file__).parents[2] / "docs", Path(sys.prefix) / "share" / "tollgate" / "docs"):
        if (folder / "http-api.md").is_file():
            return folder
    return None


def documentation(folder: Path | None) -> dict[str, str]:
    """The pages by name, in the order of the index."""
    if folder is None:
        return {}
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}
    found = {name: _with_links_that_work(text, texts.keys()) for name, text in texts.items()}
    return {name: found[name] for name in sorted(found, key=lambda name: (_place(name), name))}


def llms_txt(pages: Mapping[str, str]) -> str:
    """The index (https://llmstxt.org): a title, a summary, and a list of links with what is behind each."""
    lines = [
        "# Tollgate",
        "",
        "> An OpenAI-compatible LLM API. Any OpenAI client works with another `base_url` and `api_key`; usage is in "
        "every answer, streams included. Keys with the scope `management` also manage keys, balance and usage.",
        "",
        "## API",
        "",
        "- [OpenAPI 3.1](/openapi.json): every path, parameter, body and answer",
        "- [Models](/v1/models): the live catalog with prices; needs a key",
    ]
    if pages:
        lines += ["", "## Docs", ""]
        lines += [f"- [{_title(name, text)}](/docs/{name}.md): {_summary(text)}" for name, text in pages.items()]
    return "\n".join(lines) + "\n"


def page_handlers() -> dict[str, Handler]:
    """A handler for each path."""
    pages = documentation(documentation_dir())
    return {
        "/openapi.json": _serving(Answer(200, openapi_json(), headers=_CACHED)),
        "/llms.txt": _serving(Answer(200, llms_txt(pages).encode(), TEXT_TYPE, _CACHED)),
        **{
            f"/docs/{name}.md": _serving(Answer(200, text.encode(), MARKDOWN_TYPE, _CACHED))
            for name, text in pages.items()
        },
    }


def _with_links_that_work(text: str, names: Collection[str]) -> str:
    """Links to other pages and hosts stay; of what only the repository has, and of pictures, stay the words."""

    def kept(link: re.Match[str]) -> str:
        target = link[2].partition("#")[0]
        elsewhere = target.startswith(("https://", "http://"))
        return link[0] if not target or elsewhere or target.removesuffix(".md") in names else link[1]

    return re.sub(r"!?\[([^\]]*)\]\(([^)\s]+)\)", kept, text)


def _serving(answer: Answer) -> Handler:
    async def serve(request: Request, record: RequestRecord) -> Sent:
        return simple_answer(request, answer, request_id=record.request_id)

    return serve


def _place(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _title(name: str, text: str) -> str:
    heading = re.search("^# (.+)$", text, re.MULTILINE)
    return heading.group(1) if heading else name


def _summary(text: str) -> str:
    """The first paragraph's first sentence, links as their words."""
    body = re.sub(r"^# .+$", "", text, count=1, flags=re.MULTILINE).strip()
    paragraph = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", body.partition("\n\n")[0].replace("\n", " "))
    return re.split(r"(?<=\.) ", paragraph, maxsplit=1)[0].rstrip(".:")
