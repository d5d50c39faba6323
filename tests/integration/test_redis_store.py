"""What `dspex.stores.Redis` does on a real server: processes, crashes, and errors."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.certificates import Authority
from tests.support.processes import until
from tests.support.redis_server import RedisServer, needs_redis

from dspex import errors
from dspex.stores import Redis, StepRow
from dspex.stores._sessions import Changes, NewSession, Use

RUN: dict[str, Any] = {"pipeline": "qa", "fingerprint": b"{}", "inputs": b"in", "owner": "one", "lease": 30.0}
OWNED: dict[str, Any] = {"owner": "one", "lease": 30.0}


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    redis_server.said(b"FLUSHALL")
    redis_server.said(b"SCRIPT FLUSH")
    return redis_server


@pytest.fixture
def kept() -> Iterator[RedisServer]:
    needs_redis()
    made = RedisServer(keeps=True)
    yield made
    made.close()


CLAIM = """
import asyncio, sys
from dspex import errors
from dspex.stores import Redis

async def main():
    store = Redis(sys.argv[1])
    try:
        claimed = await store.claim_session("s1", owner=sys.argv[2], lease=60.0)
        print(claimed.lease.epoch)
    except errors.SessionBusy:
        print("busy")
    await store.close()

asyncio.run(main())
"""


async def test_of_processes_that_claim_one_session_at_once_one_wins(server: RedisServer) -> None:
    store = Redis(server.url)
    await store.release_session(await store.create_session(NewSession("s1"), **OWNED))
    await store.close()
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM, server.url, f"p{number}"], stdout=subprocess.PIPE, text=True
        )
        for number in range(4)
    ]
    said = [process.communicate(timeout=60)[0].strip() for process in racing]
    assert sorted(said) == ["2", "busy", "busy", "busy"]


async def test_a_server_that_is_killed_is_an_error_and_what_it_said_is_there_when_it_is_back(
    kept: RedisServer,
) -> None:
    store = Redis(kept.url)
    lease = await store.create_session(NewSession("s1"), **OWNED)
    written, failed = 0, None
    while failed is None:
        try:
            await store.commit_session(lease, Changes(turns=[b"%d" % written]), seconds=30.0)
        except errors.StoreError as error:
            failed = error
        else:
            written += 1
        if written == 20:
            kept.kill()
    assert (failed.code, failed.retryable) == ("store-unreachable", True)
    kept.start()
    assert [int(turn.value) for turn in await store.session_turns("s1")] == list(range(written))
    assert (await store.commit_session(lease, Changes(turns=[b"on"]), seconds=30.0)).turns == written + 1
    await store.close()


WRITE = """
import asyncio, sys
from dspex.stores import Redis
from dspex.stores._sessions import Changes, NewSession

async def main():
    store = Redis(sys.argv[1])
    lease = await store.create_session(NewSession("s1"), owner="one", lease=30.0)
    print("begun", flush=True)
    for number in range(1_000_000):
        value = b"%d" % number + b" " * 100_000
        changes = Changes({"a": value, "b": value, "n": b"%d" % number})
        await store.commit_session(lease, changes, seconds=30.0)

asyncio.run(main())
"""


async def test_a_client_that_is_killed_in_the_middle_of_a_write_leaves_all_or_nothing_of_it(
    server: RedisServer,
) -> None:
    store = Redis(server.url)
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITE, server.url], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"begun\n"
        async with asyncio.timeout(60):
            while (info := await store.session("s1")) is None or info.version < 5:
                await asyncio.sleep(0)
        writer.kill()
        writer.wait(60)
        writer.stdout.close()
        entries = await store.session_entries("s1")
        assert len({(each.version, each.value.strip()) for each in entries.values()}) == 1
        await store.drop_session("s1")
    await store.close()


async def test_the_server_s_time_decides_and_its_keys_end_by_themselves(server: RedisServer) -> None:
    store = Redis(server.url)
    new = NewSession("s1", "p", "u", idle_ttl=0.2)
    lease = await store.create_session(new, **OWNED)
    await store.commit_session(lease, Changes({"a": b"1"}, turns=[b"t"]), seconds=30.0)
    async with asyncio.timeout(30):
        while server.said(b"KEYS dspex:session:*") != b"*0\r\n":
            await asyncio.sleep(0.01)
    assert await store.session("s1") is None
    assert await store.renew_sessions([Use(lease, 0.0)], 30.0) == ["s1"]
    assert await store.expire_sessions() == ["s1"]
    left = sorted(server.said(b"KEYS *").split()[2::2])
    assert left == [b"dspex:epoch", b"dspex:schema"]
    await store.create_session(NewSession("s1", "p", "u"), most_of_pool=1, most_of_user=1, **OWNED)
    await store.close()


async def test_a_dropped_run_leaves_no_key(server: RedisServer) -> None:
    store = Redis(server.url)
    lease = await store.create_run("r1", **RUN)
    await store.record_steps(lease, [StepRow("a", "ok", b"d", b"f", b"out", 0.5)])
    assert await store.drop_run("r1")
    assert sorted(server.said(b"KEYS *").split()[2::2]) == [
        b"dspex:epoch",
        b"dspex:schema",
        b"dspex:sequence",
    ]
    await store.close()


def test_a_store_serves_loops_one_after_the_other_and_at_once(server: RedisServer) -> None:
    store = Redis(server.url)

    async def begin(name: str) -> None:
        await store.create_run(name, **RUN)

    asyncio.run(begin("a"))
    asyncio.run(begin("b"))
    several = [threading.Thread(target=asyncio.run, args=(begin(f"t{n}"),)) for n in range(4)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join(60)

    async def names() -> list[str]:
        found = sorted(run.run_id for run in await store.runs())
        await store.close()
        return found

    assert asyncio.run(names()) == ["a", "b", "t0", "t1", "t2", "t3"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_of_a_fork_has_its_own_connections(server: RedisServer) -> None:
    code = f"""
import asyncio, os
from dspex.stores import Redis
store, new = Redis({server.url!r}), {RUN!r}
async def begin(name):
    await store.create_run(name, **new)
asyncio.run(begin("parent"))
if (pid := os.fork()) == 0:
    asyncio.run(begin("child"))
    asyncio.run(store.close())
    os._exit(0)
asyncio.run(begin("meanwhile"))
assert os.waitpid(pid, 0)[1] == 0
asyncio.run(begin("again"))
print(sorted(run.run_id for run in asyncio.run(store.runs())))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "['again', 'child', 'meanwhile', 'parent']", done.stderr


async def test_closing_ends_thread_and_connections_and_the_store_can_be_used_again(
    server: RedisServer,
) -> None:
    before = threading.active_count()
    store = Redis(server.url)
    await asyncio.gather(*(store.create_run(f"r{number}", **RUN) for number in range(10)))
    await store.close()
    assert [each.name for each in threading.enumerate() if each.name == "dspex-redis-store"] == []
    assert threading.active_count() <= before + 1  # what `close` waited in
    async with asyncio.timeout(30):
        while server.said(b"CLIENT LIST").count(b"id=") > 1:
            await asyncio.sleep(0.01)
    assert len(await store.runs()) == 10
    await store.close()


# -- what goes wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("commands", "code"),
    [
        ([b"HSET dspex:schema application dspex version 2"], "store-newer-schema"),
        ([b"HSET dspex:schema application other version 1"], "store-not-ours"),
        ([b"SET dspex:schema theirs"], "store-not-ours"),
        ([b"SET dspex:something theirs"], "store-not-ours"),
        ([b"HSET dspex:schema application dspex version 1", b"SET dspex:runs theirs"], "store-not-ours"),
    ],
)
async def test_data_that_are_none_of_ours_are_refused_and_left_as_they_are(
    server: RedisServer, commands: list[bytes], code: str
) -> None:
    for command in commands:
        assert not server.said(command).startswith(b"-")
    before = server.said(b"KEYS *")
    store = Redis(server.url)
    for asked in (store.runs(), store.runs()):
        with pytest.raises(errors.StoreError) as raised:
            await asked
        assert raised.value.code == code
    assert server.said(b"KEYS *") == before
    await store.close()
    other = Redis(server.url, prefix="other:")
    await other.create_run("r1", **RUN)
    await other.close()


@pytest.mark.parametrize(
    ("command", "undo", "code"),
    [
        (b"CONFIG SET maxmemory 1", b"CONFIG SET maxmemory 0", "store-full"),
        (b"REPLICAOF 127.0.0.1 1", b"REPLICAOF NO ONE", "store-readonly"),
    ],
)
async def test_a_server_that_takes_no_writes_says_why_and_the_store_works_afterwards(
    server: RedisServer, command: bytes, undo: bytes, code: str
) -> None:
    store = Redis(server.url)
    lease = await store.create_run("r1", **RUN)
    assert server.said(command) == b"+OK\r\n"
    try:
        with pytest.raises(errors.StoreError) as raised:
            await store.update_run(lease, fingerprint=b"x")
        assert (raised.value.code, raised.value.retryable) == (code, False)
    finally:
        server.said(undo)
    await store.update_run(lease, fingerprint=b"y")
    await store.close()


async def test_a_server_that_gives_no_answer_is_waited_for_no_longer_than_was_said(kept: RedisServer) -> None:
    patient, store = Redis(kept.url, timeout=60.0), Redis(kept.url, timeout=0.2)
    lease = await patient.create_run("r1", **RUN)
    kept.signal(signal.SIGSTOP)
    try:
        with pytest.raises(errors.StoreError) as raised:
            await store.renew_lease(lease, 30.0)
        assert (raised.value.code, raised.value.retryable) == ("store-unreachable", True)
    finally:
        kept.signal(signal.SIGCONT)
    await patient.renew_lease(lease, 30.0)
    await patient.close()
    await store.close()


async def test_a_script_that_the_server_has_forgotten_is_sent_again(server: RedisServer) -> None:
    store = Redis(server.url)
    lease = await store.create_run("r1", **RUN)
    await store.renew_lease(lease, 30.0)
    server.said(b"SCRIPT FLUSH")
    await store.renew_lease(lease, 30.0)
    await store.close()


async def test_a_wrong_password_is_an_error_that_does_not_show_it() -> None:
    needs_redis()
    server = RedisServer(arguments=("--requirepass", "right"))
    try:
        store = Redis(f"unix://:sesame@{server.path}")
        with pytest.raises(errors.StoreError) as raised:
            await store.run("r1")
        error = raised.value
        shown = f"{error} {error!r} {error.hint} {store!r} {error.to_public_dict()} {error.__cause__}"
        assert (error.code, error.retryable, "sesame" in shown) == ("store", False, False)
        await store.close()
    finally:
        server.close()


@pytest.mark.parametrize("rules", ["-@scripting", "resetkeys ~other:*", "-@write"])
async def test_a_user_that_may_not_do_all_is_an_error_until_it_may(server: RedisServer, rules: str) -> None:
    assert server.said(f"ACL SETUSER clerk on >sesame ~* +@all {rules}".encode()) == b"+OK\r\n"
    store = Redis(f"unix://clerk:sesame@{server.path}")
    try:
        with pytest.raises(errors.StoreError) as raised:
            await store.create_run("r1", **RUN)
        error = raised.value
        assert (error.code, error.retryable) == ("store", False)
        assert "refuses the user" in error.message
        assert "sesame" not in f"{error} {error!r} {store!r}"
        server.said(b"ACL SETUSER clerk ~* +@all")
        await store.create_run("r1", **RUN)
    finally:
        await store.close()
        server.said(b"ACL DELUSER clerk")


async def test_a_user_needs_no_more_rights_than_the_docs_say(server: RedisServer) -> None:
    rules = b"resetkeys ~dspex:* -@all +@read +@write +@scripting +time"
    assert server.said(b"ACL SETUSER clerk on >sesame " + rules) == b"+OK\r\n"
    store = Redis(f"unix://clerk:sesame@{server.path}")
    run = await store.create_run("r1", **RUN)
    await store.end_run(run, "done", b"out")
    session = await store.create_session(NewSession("s1", "p", "u", b"", 10.0, 10.0), **OWNED)
    await store.commit_session(session, Changes(entries={"k": b"v"}), seconds=30.0)
    assert [len(await store.runs()), len(await store.sessions())] == [1, 1]
    await store.renew_sessions([Use(session, 0.0)], 30.0)
    await store.release_session(session)
    assert [await store.drop_run("r1"), await store.drop_session("s1")] == [True, True]
    assert [await store.prune_runs(0.0), await store.expire_sessions()] == [0, []]
    await store.close()
    server.said(b"ACL DELUSER clerk")


async def test_a_server_that_could_not_write_its_disk_takes_no_writes(tmp_path: Path) -> None:
    needs_redis()
    gone = tmp_path / "gone"
    gone.mkdir()
    server = RedisServer(arguments=("--dir", str(gone), "--save", "1000 1"))
    store = Redis(server.url)
    try:
        lease = await store.create_run("r1", **RUN)
        gone.rmdir()
        server.said(b"BGSAVE")
        await until(lambda: b"rdb_last_bgsave_status:err" in server.said(b"INFO persistence"))
        with pytest.raises(errors.StoreError) as raised:
            await store.update_run(lease, fingerprint=b"x")
        assert (raised.value.code, raised.value.retryable) == ("store-readonly", False)
        server.said(b"CONFIG SET stop-writes-on-bgsave-error no")
        await store.update_run(lease, fingerprint=b"x")
    finally:
        await store.close()
        server.close()


async def test_a_server_with_tls_is_reached_by_who_trusts_its_certificate(tmp_path: Path) -> None:
    needs_redis()
    authority = Authority(tmp_path)
    certificate, key = authority.files("localhost")
    with socket.create_server(("localhost", 0)) as taken:
        port = str(taken.getsockname()[1])
    server = RedisServer(
        arguments=(
            *("--tls-port", port, "--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
            *("--tls-ca-cert-file", str(authority.ca_file), "--tls-auth-clients", "no"),
        )
    )
    trusting = Redis(f"rediss://localhost:{port}/0?ssl_ca_certs={authority.ca_file}")
    strange = Redis(f"rediss://:sesame@localhost:{port}/0")
    plain = Redis(f"redis://localhost:{port}/0", timeout=2.0)
    try:
        await trusting.create_run("r1", **RUN)
        assert (await trusting.run("r1")) is not None
        for store in (strange, plain):
            with pytest.raises(errors.StoreError) as raised:
                await store.run("r1")
            assert (raised.value.code, raised.value.retryable) == ("store-unreachable", True)
            assert "sesame" not in f"{raised.value}{store!r}"
    finally:
        for store in (trusting, strange, plain):
            await store.close()
        server.close()


async def test_a_server_that_is_not_there_is_worth_another_try(tmp_path: Any) -> None:
    store = Redis(f"unix://:sesame@{tmp_path}/none")
    with pytest.raises(errors.StoreError) as raised:
        await store.run("r1")
    assert (raised.value.code, raised.value.retryable) == ("store-unreachable", True)
    assert "sesame" not in f"{raised.value}{store!r}"
    await store.close()


@pytest.mark.parametrize(
    "settings",
    [{"prefix": ""}, {"prefix": "a*"}, {"prefix": "x" * 65}, {"url": "http://:sesame@host"}, {"timeout": 0}],
)
def test_a_setting_that_is_none_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigError) as raised:
        Redis(**{"url": "redis://localhost", **settings})
    assert raised.value.code in ("bad-store", "bad-timeout")
    assert "sesame" not in str(raised.value)


@pytest.mark.parametrize(("name", "code"), [("", "store-bad-name"), ("x" * 1_025, "store-too-large")])
async def test_names_that_are_empty_or_huge_are_refused(server: RedisServer, name: str, code: str) -> None:
    store = Redis(server.url)
    for asked in (store.create_run(name, **RUN), store.create_session(NewSession(name), **OWNED)):
        with pytest.raises(errors.StoreError) as raised:
            await asked
        assert raised.value.code == code
    await store.close()


async def test_names_of_any_characters_stay_apart(server: RedisServer) -> None:
    store = Redis(server.url)
    names = ["a", "a}", "{a}", "a}:steps", "a:steps", "*", "\n", "\ud800", "ä", "a b"]
    for name in names:
        lease = await store.create_run(name, **{**RUN, "inputs": name.encode("utf-8", "surrogatepass")})
        await store.record_steps(lease, [StepRow(name, "ok", b"d", b"f", b"out", 0.5)])
    assert [run.run_id for run in await store.runs()] == names[::-1]
    for name in names:
        assert [each.path for each in await store.steps(name)] == [name]
    await store.close()


def test_without_redis_py_the_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["redis"] = None
import dspex
try:
    dspex.stores.Redis("redis://localhost")
except dspex.errors.ConfigError as error:
    print(error.code, error.hint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "no-redis `pip install 'dspex[redis]'`", done.stderr
