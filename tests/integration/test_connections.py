"""The connections of an LM: used again, in line, through proxies and TLS, after a fork."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.support.certificates import Authority
from tests.support.processes import until
from tests.support.raw_server import RawServer, answer, raw_server, read_request, reset
from tests.support.transports import (
    ASKED,
    FAULTS,
    KEY,
    OVER,
    SAID,
    Make,
    asking,
    broken_once,
    say_it,
    streamed,
    whole,
)

import dspex
from dspex import LM, errors
from dspex.lm import TLS, LMRequest, NativeTransport


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@OVER
async def test_connections_are_used_again_and_a_server_that_closes_idle_ones_is_no_failure(
    transport: Make,
) -> None:
    async with raw_server(say_it) as state, asking(state, transport) as lm:
        for ask in (whole, streamed, whole, streamed):
            assert await ask(lm) == "it is said"
        assert state.connections == 1
        for writer in state.open:
            writer.close()
        await until(lambda: not state.open)
        assert await whole(lm) == "it is said"
        assert state.connections == 2


@OVER
async def test_a_transport_that_lms_were_given_is_closed_by_who_made_it(transport: Make) -> None:
    async with raw_server(say_it) as state, transport() as carrier:
        lms = [
            LM("openai/m", api_base=f"http://127.0.0.1:{state.port}/v1", api_key=KEY, transport=carrier)
            for _ in range(2)
        ]
        for lm in lms:
            async with lm:
                assert await whole(lm) == "it is said"
        assert state.connections == 1
        await carrier.aclose()
        await until(lambda: not state.open)
        assert await whole(lms[0]) == "it is said"


@OVER
async def test_a_reset_when_a_connection_is_used_again_is_told_and_not_hidden(
    transport: Make,
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
        await read_request(reader, state)
        writer.write(answer(SAID))
        await read_request(reader, state)
        if state.connections == 1:
            reset(writer)
        else:
            writer.write(answer(SAID))
            await reader.read()

    async with raw_server(script) as state, asking(state, transport) as lm:
        assert await whole(lm) == "it is said"
        with pytest.raises(errors.LMConnectionError) as caught:
            await whole(lm)
        assert caught.value.retryable
        assert len(state.requests) == 2, "nothing is asked twice behind the caller's back"
        assert await whole(lm) == "it is said"


async def test_what_follows_an_answer_is_never_the_answer_of_the_next_call() -> None:
    other = answer(SAID.replace(b"it is said", b"smuggled"))

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
        while True:
            await read_request(reader, state)
            writer.write(answer(SAID) + (other if len(state.requests) % 2 else b""))

    async with raw_server(script) as state, asking(state, NativeTransport) as lm:
        assert [await whole(lm) for _ in range(6)] == ["it is said"] * 6


# --- connecting, TLS, proxies --------------------------------------------------------------------------


@OVER
async def test_a_server_that_accepts_nobody_is_a_connect_timeout(transport: Make) -> None:
    with socket.socket() as listening, ExitStack() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):  # fill its queue, so that the kernel answers no more
            other = waiting.enter_context(socket.socket())
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.connect(listening.getsockname())
        state = RawServer(listening.getsockname()[1])
        async with asking(state, transport, connect_timeout=0.3) as lm:
            with pytest.raises(errors.LMTimeoutError) as caught:
                await whole(lm)
            assert (caught.value.code, caught.value.timeout) == ("lm-connect-timeout", 0.3)
            with pytest.raises(errors.DeadlineExceeded):
                await lm.complete(LMRequest(ASKED.messages, timeout=0.1))


@OVER
async def test_a_name_that_does_not_resolve_says_so(transport: Make) -> None:
    async with asking(RawServer(80), transport, host="llm.invalid") as lm:
        for _ in range(2):
            with pytest.raises(errors.LMConnectionError) as caught:
                await whole(lm)
            assert caught.value.code == "lm-unknown-host"


@OVER
async def test_tls_serves_calls_and_checks_certificates_and_names(
    transport: Make, authority: Authority, tmp_path: Path
) -> None:
    trusted = TLS(ca_file=authority.ca_file)
    async with raw_server(say_it, authority.server("127.0.0.1")) as state:
        async with asking(state, transport, scheme="https", tls=trusted) as lm:
            for ask in (whole, streamed, whole):
                assert await ask(lm) == "it is said"
            assert state.connections == 1
        strangers = [
            (authority.server("127.0.0.1"), None),
            (authority.server("127.0.0.1"), TLS(ca_file=Authority(tmp_path).ca_file)),
            (authority.server("other.example"), trusted),
        ]
    for context, tls in strangers:
        async with raw_server(say_it, context) as state:
            async with asking(state, transport, scheme="https", tls=tls) as lm:
                with pytest.raises(errors.LMConnectionError) as caught:
                    await whole(lm)
                assert caught.value.code == "lm-certificate"
            assert state.requests == []


@OVER
async def test_a_server_that_asks_for_a_certificate_gets_the_clients(
    transport: Make, authority: Authority
) -> None:
    certificate, key = authority.client()
    async with raw_server(say_it, authority.server("127.0.0.1", asks_client=True)) as state:
        known = TLS(ca_file=authority.ca_file, cert_file=certificate, key_file=key)
        async with asking(state, transport, scheme="https", tls=known) as lm:
            assert await whole(lm) == "it is said"
        async with asking(state, transport, scheme="https", tls=TLS(ca_file=authority.ca_file)) as lm:
            with pytest.raises(errors.LMConnectionError):
                await whole(lm)


@OVER
async def test_a_server_without_tls_at_an_https_address_is_told(transport: Make) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with raw_server(plain) as state, asking(state, transport, scheme="https") as lm:
        with pytest.raises(errors.LMConnectionError) as caught:
            await whole(lm)
        assert caught.value.code in ("lm-tls-failed", "lm-unreachable")


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
    """A proxy that wants a password, tunnels, and hands plain requests on."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    state.requests.append((head, b""))
    if "Proxy-Authorization: Basic bWU6d0ByZA==" not in head:
        writer.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
        return
    method, target, _ = head.split("\r\n")[0].split(" ")
    where = target if method == "CONNECT" else target.split("/")[2]
    host, _, port = where.rpartition(":")
    there_reader, there_writer = await asyncio.open_connection(host, int(port))
    if method == "CONNECT":
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    else:
        there_writer.write(head.encode())
    try:
        await asyncio.gather(pipe(reader, there_writer), pipe(there_reader, writer))
    finally:
        there_writer.close()


@OVER
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_a_proxy_is_gone_through_with_its_password_and_the_key_stays_inside_tls(
    transport: Make, authority: Authority, secure: bool
) -> None:
    context = authority.server("127.0.0.1") if secure else None
    settings: dict[str, Any] = {"scheme": "https", "tls": TLS(ca_file=authority.ca_file)} if secure else {}
    async with raw_server(say_it, context) as state, raw_server(proxy) as between:
        address = f"http://me:w%40rd@127.0.0.1:{between.port}"
        async with asking(state, transport, proxy=address, **settings) as lm:
            assert "w%40rd" not in repr(lm)
            for ask in (whole, streamed, whole):
                assert await ask(lm) == "it is said"
        assert state.requests
        assert all("Proxy-Authorization" not in head for head, _ in state.requests) or not secure
        assert not secure or all(KEY not in head for head, _ in between.requests)


@OVER
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_a_proxy_that_refuses_or_is_not_there_is_told(
    transport: Make, authority: Authority, secure: bool
) -> None:
    settings: dict[str, Any] = {"scheme": "https", "tls": TLS(ca_file=authority.ca_file)} if secure else {}
    async with raw_server(say_it) as state, raw_server(proxy) as between:
        async with asking(state, transport, proxy=f"http://127.0.0.1:{between.port}", **settings) as lm:
            with pytest.raises(errors.LMError) as caught:
                await whole(lm)
            assert caught.value.code in ("lm-proxy", "lm-not-http", "lm-unreachable", "lm-request")
        closed = between.port
    async with asking(state, transport, proxy=f"http://127.0.0.1:{closed}", **settings) as lm:
        with pytest.raises(errors.LMConnectionError) as caught:
            await whole(lm)
        assert caught.value.code in ("lm-proxy", "lm-unreachable")


@pytest.mark.parametrize("address", ["socks5://h:1", "https://h", "h:80", "http://", "http://h:99999", ""])
def test_a_proxy_that_is_none_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        LM("openai/m", api_base="http://x/v1", proxy=address.replace("//h", "//me:secret@h"))
    assert caught.value.code == "lm-proxy-address"
    assert "secret" not in str(caught.value)


def test_files_that_are_no_certificates_are_refused_when_they_are_named(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    for settings in (
        {"ca_file": tmp_path / "none.pem"},
        {"ca_file": junk},
        {"cert_file": junk},
        {"key_file": junk},
        {"ca_file": 3.5},
    ):
        with pytest.raises(errors.ConfigError) as caught:
            TLS(**settings)
        assert caught.value.code == "lm-tls"


# --- the pool of connections ----------------------------------------------------------------------------


async def test_calls_beyond_the_limit_wait_in_line_and_none_goes_before_another() -> None:
    order: list[int] = []
    let = asyncio.Semaphore(0)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
        while True:
            _, body = await read_request(reader, state)
            order.append(json.loads(body)["seed"])
            await let.acquire()
            writer.write(answer(SAID))

    async def call(lm: LM, number: int) -> str:
        return (await lm.complete(LMRequest(ASKED.messages, {"seed": number}))).texts[0]

    two = partial(NativeTransport, max_connections=2)
    async with raw_server(script) as state, asking(state, two) as lm:
        calls = [asyncio.ensure_future(call(lm, number)) for number in range(8)]
        await until(lambda: len(order) == 2)
        calls[3].cancel()
        late = asyncio.ensure_future(lm.complete(LMRequest(ASKED.messages, {"seed": 99}, timeout=0.05)))
        with pytest.raises(errors.DeadlineExceeded):
            await late
        for answered in range(7):
            let.release()
            await until(lambda: len(order) == min(3 + answered, 7))  # noqa: B023 - it is over at once
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(text) for text in answers if text == "it is said"] == ["it is said"] * 7
    assert (sorted(order[:2]), order[2:]) == ([0, 1], [2, 4, 5, 6, 7])
    assert state.connections == 2


async def test_an_lm_that_is_let_go_of_leaves_no_connection() -> None:
    async with raw_server(say_it) as state:
        for ask in (whole, streamed):
            lm = LM("openai/m", api_base=f"http://127.0.0.1:{state.port}/v1", api_key=KEY)
            assert await ask(lm) == "it is said"
            del lm
            gc.collect()
            await until(lambda: not state.open)


async def test_the_place_of_a_connection_that_broke_goes_to_who_waits() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
        await read_request(reader, state)
        if len(state.requests) % 2:
            writer.write(answer(SAID, "Connection: close"))

    one = partial(NativeTransport, max_connections=1)
    async with raw_server(script) as state, asking(state, one) as lm:
        answers = await asyncio.gather(*(whole(lm) for _ in range(10)), return_exceptions=True)
    assert [getattr(text, "code", text) for text in answers] == ["it is said", "lm-cut"] * 5


DESCRIPTORS = """
import asyncio, os, resource, sys
import dspex
from dspex import LM, errors
from dspex.lm import LMRequest

async def main(port):
    async with LM("openai/m", api_base=f"http://127.0.0.1:{port}/v1", api_key="k") as lm:
        ask = lambda: lm.complete(LMRequest([{"role": "user", "content": "x"}]))
        await ask()
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 5, used + 5))
        answers = await asyncio.gather(*(ask() for _ in range(100)), return_exceptions=True)
        print(sum(not isinstance(each, Exception) for each in answers))
        held = []
        for _ in range(10):
            try:
                held.append(open("/dev/null"))
            except OSError:
                break
        async with LM("openai/m", api_base=f"http://127.0.0.1:{port}/v1", api_key="k") as another:
            try:
                await another.complete(LMRequest([{"role": "user", "content": "x"}]))
            except errors.LMConnectionError as error:
                print(error.code)

asyncio.run(main(int(sys.argv[1])))
"""


async def test_calls_share_the_connections_there_are_where_the_process_has_no_descriptors_left() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
        while True:
            await read_request(reader, state)
            writer.write(answer(SAID))

    async with raw_server(slow) as state:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", DESCRIPTORS, str(state.port), stdout=subprocess.PIPE
        )
        async with asyncio.timeout(60):
            out, _ = await child.communicate()
    assert out.decode().split() == ["100", "lm-descriptors"]


FORK = """
import asyncio, os, sys
from dspex import LM
from dspex.lm import LMRequest

lm = LM("openai/m", api_base=f"http://127.0.0.1:{sys.argv[1]}/v1", api_key="k")

async def ask(times):
    return [(await lm.complete(LMRequest([{"role": "user", "content": "x"}]))).texts[0] for _ in range(times)]

loop = asyncio.new_event_loop()
assert loop.run_until_complete(ask(2)) == ["it is said"] * 2
held = len(os.listdir("/proc/self/fd"))
child = os.fork()
if child == 0:
    kept = len(os.listdir("/proc/self/fd"))
    answers = asyncio.run(ask(2))
    os._exit(0 if answers == ["it is said"] * 2 and kept < held else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
again = loop.run_until_complete(ask(2))
loop.run_until_complete(lm.aclose())
loop.close()
print(status, *again, sep=",")
"""


async def test_a_used_lm_works_on_both_sides_of_a_fork() -> None:
    async with raw_server(say_it) as state:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-c", FORK, str(state.port), stdout=subprocess.PIPE
        )
        async with asyncio.timeout(60):
            out, _ = await child.communicate()
        assert out.decode().strip() == "0,it is said,it is said"
        assert state.connections == 2, "the parent's connection is still good after the child has gone"


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_it_works_on_uvloop(authority: Authority, secure: bool) -> None:
    async def main() -> None:
        context = authority.server("127.0.0.1") if secure else None
        settings: dict[str, Any] = (
            {"scheme": "https", "tls": TLS(ca_file=authority.ca_file)} if secure else {}
        )
        async with raw_server(say_it, context) as state, asking(state, NativeTransport, **settings) as lm:
            for ask in (whole, streamed, whole):
                assert await ask(lm) == "it is said"
            assert state.connections == 1
            assert await asyncio.gather(*(whole(lm) for _ in range(20))) == ["it is said"] * 20
        for name in ("nothing", "closed", "reset", "another protocol", "gzip bomb"):
            sent, then, codes, settings = FAULTS[name]
            async with (
                raw_server(broken_once(sent, then)) as state,
                asking(state, NativeTransport, **settings) as lm,
            ):
                with pytest.raises(errors.LMError) as caught:
                    await whole(lm)
                assert caught.value.code in codes.split()
                assert await whole(lm) == "it is said"

    uvloop.run(main())


async def test_a_runtime_warms_the_connections_of_its_model_and_comes_up_without_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with raw_server(say_it) as state:
        base = f"http://127.0.0.1:{state.port}/v1"
        group = LM.group([LM("openai/m", api_base=base, api_key=KEY) for _ in range(2)])
        async with dspex.Runtime(group, pools=0) as runtime:
            await runtime.awarmup()
            await until(lambda: state.connections == 2)
            assert state.requests == []
        lm = LM("openai/m", api_base=base, api_key=KEY)
    assert caplog.records == []
    async with dspex.Runtime(lm, pools=0) as runtime:
        await runtime.awarmup()
    assert "cannot be reached yet" in caplog.text
    with pytest.raises(errors.LMConnectionError):
        await group.warmup()


async def test_warming_leaves_a_connection_that_the_first_call_takes(authority: Authority) -> None:
    async with raw_server(say_it, authority.server("localhost")) as state:
        carrier = NativeTransport()
        lm = LM(
            "openai/m",
            api_base=f"https://localhost:{state.port}/v1",
            api_key=KEY,
            tls=TLS(ca_file=authority.ca_file),
            transport=carrier,
        )
        await lm.warmup()
        await until(lambda: state.connections == 1)
        assert state.requests == []
        assert await whole(lm) == "it is said"
        assert state.connections == 1
        await lm.warmup()
        assert state.connections == 1
        await carrier.aclose()
    with pytest.raises(errors.LMConnectionError):
        await lm.warmup()
