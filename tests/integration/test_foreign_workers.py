"""A worker that is written from docs/protocol.md, without dspex, serves a pool's calls."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.pools import OpenPool
from tests.support.processes import until

import dspex
from dspex import errors
from dspex.pool import FunctionRequest, Limits, PoolSpec, Timeouts, load_pools

PROGRAM = Path(__file__).parents[1] / "support" / "foreign_worker.py"
# Isolated and without site-packages: nothing of this environment can be imported.
COMMAND = [sys.executable, "-I", "-S", str(PROGRAM)]
QUICK = Timeouts(stop=2.0, cancel=0.5)


def says(**changes: Any) -> dict[str, str]:
    """The environment in which the program says something else in its READY."""
    return {"READY": json.dumps(changes)}


async def test_it_answers_calls(open_pool: OpenPool) -> None:
    pool = await open_pool(command=COMMAND)

    assert await pool.run("words:upper", "naïve") == "NAÏVE"
    assert await pool.run("words:same", 1, 2.0, None, key=[True, {"a": "b"}]) == [
        [1, 2.0, None],
        {"key": [True, {"a": "b"}]},
    ]
    assert pool.versions == {"worker": "words 1.0"}


async def test_it_is_sent_json_and_nothing_else(open_pool: OpenPool) -> None:
    pool = await open_pool(command=COMMAND)
    assert await pool.run("words:codec") == 2


async def test_values_that_it_does_not_know_come_back_as_they_were(open_pool: OpenPool) -> None:
    """A tuple is to it an object with two members, which it gives back."""
    pool = await open_pool(command=COMMAND)
    value = {"t": (1, {2}), "b": b"\x00\xff", "n": float("inf"), 3: "int key", "h": "half \ud83d"}

    assert await pool.run("words:same", value) == [[value], {}]


async def test_many_calls_at_once_each_get_their_own_answer(open_pool: OpenPool) -> None:
    pool = await open_pool(command=COMMAND, workers=2)
    answers = await pool.batch([FunctionRequest("words:upper", [f"w{number}"]) for number in range(200)])
    assert answers == [f"W{number}" for number in range(200)]


async def test_its_errors_are_the_callers(open_pool: OpenPool) -> None:
    pool = await open_pool(command=COMMAND)

    with pytest.raises(errors.RemoteError, match="ValueError: no word"):
        await pool.run("words:fail", "no word")
    with pytest.raises(errors.WireError, match="there is no 'words:none'") as unknown:
        await pool.run("words:none")
    assert unknown.value.code == "unknown-operation"
    assert await pool.run("words:upper", "on") == "ON"


@pytest.mark.parametrize("operation", ["echo", "predict", "module"])
async def test_what_it_does_not_serve_is_one_clear_error(open_pool: OpenPool, operation: str) -> None:
    pool = await open_pool(command=COMMAND)
    calls: dict[str, Any] = {
        "echo": lambda: pool.echo(1),
        "predict": lambda: pool.predict("question -> answer", {"question": "?"}),
        "module": lambda: pool.module("my_app:Program", {"question": "?"}),
    }

    with pytest.raises(errors.WireError, match=f"have no operation '{operation}'") as refused:
        await calls[operation]()

    assert (refused.value.code, refused.value.hint) == ("unknown-operation", "there are: function")


async def test_a_module_of_a_runtime_gets_that_error_too() -> None:
    lm = dspex.LM("openai/test", api_base="http://127.0.0.1:1", api_key="none")
    async with dspex.Runtime(lm, pools=PoolSpec(name="words", command=COMMAND)) as runtime:
        qa = dspex.Predict("question -> answer", runtime=runtime)
        with pytest.raises(errors.WireError, match="the workers of pool 'words' have no operation 'predict'"):
            await qa.acall(question="?", route="pool:words")


async def test_what_a_worker_says_it_serves_is_sent_to_it(open_pool: OpenPool) -> None:
    pool = await open_pool(command=COMMAND, env=says(operations=["function", "echo"]))
    with pytest.raises(errors.WireError, match="there is no 'echo'"):
        await pool.echo(1)


async def test_a_cancelled_call_ends_there_and_the_worker_goes_on(open_pool: OpenPool) -> None:
    pool = await open_pool(command=COMMAND)
    pid = pool.status().workers[0].pid
    call = asyncio.ensure_future(pool.run("words:sleep", 600))
    await until(lambda: pool.status().workers[0].inflight)

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    await until(lambda: not pool.status().workers[0].inflight)
    assert await pool.run("words:upper", "on") == "ON"
    assert pool.status().workers[0].pid == pid


async def test_a_call_has_a_deadline(open_pool: OpenPool) -> None:
    pool = await open_pool(command=COMMAND)
    with pytest.raises(errors.DeadlineExceeded):
        await pool.with_options(timeout=0.2).run("words:sleep", 600)
    assert await pool.run("words:upper", "on") == "ON"


async def test_a_call_that_does_not_stop_costs_the_worker_its_life(open_pool: OpenPool) -> None:
    pool = await open_pool(command=COMMAND, timeouts=QUICK)
    with pytest.raises(errors.DeadlineExceeded):
        await pool.with_options(timeout=0.2).run("words:deaf")

    await until(lambda: pool.status().deaths == 1)
    assert await pool.run("words:upper", "on") == "ON"


async def test_its_death_is_told_with_its_last_words(open_pool: OpenPool) -> None:
    pool = await open_pool(command=COMMAND)
    with pytest.raises(errors.WorkerDiedError, match="exited with status 3") as died:
        await pool.run("words:die")
    assert "farewell" in died.value.output
    assert await pool.run("words:upper", "on") == "ON"


@pytest.mark.parametrize(
    ("function", "what"),
    [("words:garbage", "a frame starts with 0xd5"), ("words:no_json", "JSON has no NaN")],
)
async def test_garbage_ends_the_worker_and_nothing_else(
    open_pool: OpenPool, function: str, what: str
) -> None:
    pool = await open_pool(command=COMMAND)
    with pytest.raises(errors.WorkerDiedError, match=what):
        await pool.run(function)
    assert await pool.run("words:upper", "on") == "ON"


async def test_answers_in_parts_come_as_fast_as_they_are_taken(open_pool: OpenPool) -> None:
    pool = await open_pool(command=COMMAND)

    parts = [part async for part in pool.stream(FunctionRequest("words:count", [100]))]

    assert parts == list(range(100))
    with pytest.raises(errors.ConfigError, match="ask for it in parts"):
        await pool.run("words:count", 3)


async def test_it_calls_functions_of_the_service(open_pool: OpenPool) -> None:
    pool = await open_pool(command=COMMAND)

    async def double(number: int) -> int:
        return 2 * number

    with_double = pool.with_options(host_functions={"double": double})
    assert await with_double.run("words:ask", "double", 21) == 42
    with pytest.raises(errors.ConfigError, match="no host call 'triple'"):
        await with_double.run("words:ask", "triple", 21)


async def test_its_hello_says_what_the_page_says(open_pool: OpenPool) -> None:
    pool = await open_pool(command=COMMAND, max_inflight=7, lm={"model": "m", "api_key": "sk-of-a-test"})

    hello = await pool.run("words:hello")

    assert hello == {
        "protocol": 1,
        "dspex": dspex.__version__,
        "codecs": ["msgpack", "json"],
        "max_inflight": 7,
        "limits": {},
        "lm": {"model": "m", "api_key": "sk-of-a-test"},
    }


async def test_one_that_is_stopped_sends_no_heartbeat_and_is_ended(open_pool: OpenPool) -> None:
    pool = await open_pool(command=COMMAND, timeouts=QUICK.replace(heartbeat=1.5))
    pid = pool.status().workers[0].pid
    assert pid is not None

    os.kill(pid, signal.SIGSTOP)

    await until(lambda: pool.status().deaths == 1)
    assert await pool.run("words:upper", "on") == "ON"


@pytest.mark.parametrize(
    ("ready", "codec", "code", "what"),
    [
        ({"codecs": ["xml"]}, "auto", "no-common-codec", "reads xml, the service writes msgpack, json"),
        ({"codecs": []}, "auto", "no-common-codec", "reads nothing"),
        ({}, "msgpack", "no-common-codec", "reads json, the service writes msgpack"),
        ({"codecs": "json"}, "auto", "start-exit", "lists of names"),
        ({"protocol": 99}, "auto", "start-exit", "speaks protocol 99"),
    ],
    ids=["another codec", "no codec", "the pool's own", "no list", "another protocol"],
)
async def test_a_start_that_cannot_be_says_why(
    open_pool: OpenPool, ready: dict[str, Any], codec: str, code: str, what: str
) -> None:
    with pytest.raises(errors.WorkerStartError, match=what) as failed:
        await open_pool(command=COMMAND, codec=codec, env=says(**ready))
    assert failed.value.code == code


async def test_a_command_that_is_no_worker_is_told_with_its_output(open_pool: OpenPool) -> None:
    with pytest.raises(errors.WorkerStartError, match="did not start") as failed:
        await open_pool(command=[sys.executable, "-c", "print('hello'); raise SystemExit(7)"])
    assert "hello" in failed.value.output


async def test_it_is_held_to_the_pools_limits(open_pool: OpenPool) -> None:
    cpu = min(os.sched_getaffinity(0))
    pool = await open_pool(command=COMMAND, limits=Limits(nice=3, cpus=[cpu], memory=2**30))

    nice, cpus = await pool.run("words:limits")

    assert (nice, cpus) == (os.getpriority(os.PRIO_PROCESS, 0) + 3, [cpu])
    soft = subprocess.run(
        ["prlimit", "--pid", str(pool.status().workers[0].pid), "--data", "--noheadings", "--output", "SOFT"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert int(soft.stdout) == 2**30


async def test_it_ends_with_its_service(tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text(
        "import asyncio, sys\n"
        "from dspex.pool import Pool, PoolSpec\n"
        "async def main():\n"
        "    pool = Pool(PoolSpec(workers=1, command=sys.argv[1:]))\n"
        "    await pool.start()\n"
        "    asyncio.ensure_future(pool.run('words:deaf'))\n"
        "    print(pool.status().workers[0].pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    service = subprocess.Popen([sys.executable, str(script), *COMMAND], stdout=subprocess.PIPE, text=True)
    try:
        assert service.stdout is not None
        pid = int(await asyncio.to_thread(service.stdout.readline))
        os.kill(service.pid, signal.SIGKILL)
        await until(lambda: not _runs(pid))
    finally:
        service.kill()
        service.communicate()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "path", "what"),
    [
        ({"command": "worker"}, "command", "a list"),
        ({"command": ["/no/such/worker"]}, "command", "no executable file at /no/such/worker"),
        ({"command": COMMAND, "python": sys.executable}, "python", "for dspex's own workers"),
        ({"command": COMMAND, "preload": ["json"]}, "preload", "for dspex's own workers"),
        ({"command": COMMAND, "start": "spawn"}, "start", "for dspex's own workers"),
        ({"codec": "pickle"}, "codec", "one of 'auto', 'msgpack', 'json'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any], path: str, what: str) -> None:
    with pytest.raises(errors.ConfigError, match=what) as refused:
        PoolSpec(**settings)
    assert refused.value.path == f"pool.general.{path}"


def test_a_program_beside_the_file_is_named_from_there(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "worker"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    file = tmp_path / "pools.toml"
    file.write_text('[pool.words]\ncommand = ["bin/worker", "a/b"]\ncodec = "json"\n')

    spec = load_pools(file)["words"]

    assert (spec.command, spec.codec) == ((str(program), "a/b"), "json")


def test_a_command_found_on_the_path_is_one() -> None:
    assert PoolSpec(command=["sh"]).command == ("sh",)
