"""Many connections that follow the journal: each hears all, the journal is read once for all, slow ones are cut off."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web

from gpusched.scheduler.api.traffic import send

FOLLOWERS = 150


def follow(plane) -> socket.socket:
    stream = socket.create_connection(("127.0.0.1", plane.server.port))
    stream.settimeout(20)
    stream.sendall(
        f"GET /v1/events?follow=1&after=0 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {plane.server.token}\r\n\r\n".encode()
    )
    assert stream.recv(200).startswith(b"HTTP/1.1 200")
    return stream


def heard(stream: socket.socket, words: bytes) -> bool:
    found = b""
    while words not in found:
        data = stream.recv(1 << 16)
        assert data, "the stream ended"
        found += data
    return True


def test_every_follower_hears_of_a_job_and_the_journal_is_not_read_for_each(plane):
    streams = [follow(plane) for _ in range(FOLLOWERS)]
    before = plane.service.tail.reads
    job = plane.submit("true", gpus=1)
    plane.wait(job["id"])
    assert all(heard(stream, b"event: succeeded") for stream in streams)
    assert plane.service.tail.reads - before < FOLLOWERS
    for stream in streams:
        stream.close()


def test_a_reader_that_reads_nothing_is_cut_off():
    cut = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await send(response, b"x" * 100_000, 0.2)
        except ConnectionResetError:
            cut.set()
            raise

    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(cut.wait(), 20)
        writer.close()
        await runner.cleanup()

    asyncio.run(serve())
