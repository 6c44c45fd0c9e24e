"""The rival: a bare aiohttp pass-through, as anybody would write it, with nothing checked and nothing read.

`python -m bench.baseline --upstream URL` prints its port as one line of JSON. No key, no parsing, no log, no limit on
connections, no decompression; bodies go on as they come, streamed or not.
"""

import argparse
import asyncio
import json
import logging

import aiohttp
import uvloop
from aiohttp import web

_SESSION = web.AppKey("session", aiohttp.ClientSession)
_UPSTREAM = web.AppKey("upstream", str)


async def _forward(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    headers = {"content-type": request.content_type, "authorization": "Bearer upstream"}
    url = request.app[_UPSTREAM] + request.path
    async with request.app[_SESSION].post(url, data=body, headers=headers) as upstream:
        if upstream.content_length is not None:
            return web.Response(body=await upstream.read(), status=upstream.status, content_type=upstream.content_type)
        response = web.StreamResponse(status=upstream.status)
        response.content_type = upstream.content_type
        await response.prepare(request)
        async for piece in upstream.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response


async def _serve(upstream: str) -> None:
    app = web.Application(client_max_size=1 << 25)
    app.router.add_post("/v1/chat/completions", _forward)
    connector = aiohttp.TCPConnector(limit=0)
    session = aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )
    # Clients of the bench that leave in mid-stream are no news.
    logging.getLogger("aiohttp.server").disabled = True
    async with session:
        app[_SESSION] = session
        app[_UPSTREAM] = upstream
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
        await site.start()
        print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A bare aiohttp pass-through.")
    parser.add_argument("--upstream", required=True)
    uvloop.run(_serve(parser.parse_args().upstream))
