"""A chat that survives `kill -9` of its worker, and of itself.

The model's server stands by itself. A service process answers the questions of one conversation: each answer
is a call of the session, with the history that came before and the notes that fit, which an object in the
session's worker finds. First the worker is ended by SIGKILL, then the service. Another service process goes
on with the same session: the model is sent every turn, and the notes are there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import dspex
from dspex.errors import WorkerDiedError
from dspex.pool import PoolSpec
from dspex.testing import ChatRequest, ModelServer

HERE = Path(__file__).parent
CONVERSATION = "ada's chat"
DEADLINE = 60.0
QUESTIONS = (
    "My boat is called Zephyr.",
    "Where does the Danube begin?",
    "What is my boat called?",
    "And how many things have I told you?",
)


# --- the service -------------------------------------------------------------------------------------------


async def serve(store: str, api_base: str) -> None:
    """Answer the lines that come, until there are no more."""
    chat = dspex.Predict("question, notes: list[str], history: dspy.History -> answer")
    pool = PoolSpec(workers=1, classes=("notes",))
    lm = dspex.LM("openai/model", api_base=api_base, api_key="none")
    async with dspex.Runtime(lm, pools=pool, sessions=store) as runtime:
        session = await runtime.session(id=CONVERSATION, create=True, affinity="strict", idle_ttl=1800)
        notes = await session.handle("notes:Notes", restore="state")

        async def answer(question: str) -> str:
            found = await notes.call("search", question)
            said = await session.call(chat, question=question, notes=found)
            await notes.call("add", question)
            session.state["questions"] = session.state.get("questions", 0) + 1
            return str(said.answer)

        async def answer_or_again(question: str) -> str:
            try:
                return str(await session.call(answer, question=question))
            except WorkerDiedError:  # nothing of that call was written; the model is asked a second time
                return str(await session.call(answer, question=question))

        while line := await asyncio.to_thread(sys.stdin.readline):
            said = {
                "answer": await answer_or_again(json.loads(line)),
                "turns": len(session.history),
                "questions": session.state["questions"],
                "worker": await notes.call("worker"),
            }
            print(json.dumps(said), flush=True)


class Service:
    """A service process as its user sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, store: str, api_base: str) -> Service:
        """Start one."""
        command = [sys.executable, str(HERE / "chat.py"), "--serve", store, api_base]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
        }
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*command, env=environment, stdin=pipe, stdout=pipe))

    async def ask(self, question: str) -> dict[str, Any]:
        """Ask a question, and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question).encode() + b"\n")
        await self.process.stdin.drain()
        async with asyncio.timeout(DEADLINE):
            line = await self.process.stdout.readline()
        if not line:
            raise SystemExit("the service has ended without an answer")
        said: dict[str, Any] = json.loads(line)
        print(f"  {question}\n      {said['answer']}")
        return said

    async def kill(self) -> None:
        """End it as a machine does that fails."""
        self.process.kill()
        await self.process.wait()


# --- the model, and what happens ---------------------------------------------------------------------------


def answer_of(request: ChatRequest) -> str:
    """What the model says: it knows what is in the messages, and nothing else."""
    users = [str(message["content"]) for message in request.messages if message["role"] == "user"]
    question = users[-1]
    if "how many things" in question:
        said = f"{len(users) - 1} so far."
    elif "boat called?" in question:
        said = "Zephyr." if "Zephyr" in users[0] else "I do not know."
        said += " There is a note of it." if "Zephyr" in question else ""
    elif "Danube" in question:
        said = "In the Black Forest."
    else:
        said = "I will remember that."
    return f"[[ ## answer ## ]]\n{said}\n\n[[ ## completed ## ]]"


async def main() -> None:
    """Ask, kill the worker, ask, kill the service, and ask again."""
    with tempfile.TemporaryDirectory() as directory:
        async with ModelServer(answer_of) as model:
            store = os.path.join(directory, "sessions.sqlite3")
            print("a service and its worker:")
            service = await Service.start(store, model.api_base)
            first = await service.ask(QUESTIONS[0])
            os.kill(first["worker"], signal.SIGKILL)
            print("the worker was killed:")
            second = await service.ask(QUESTIONS[1])
            assert second["worker"] != first["worker"]
            await service.kill()
            print("the service was killed; another one goes on:")
            service = await Service.start(store, model.api_base)
            for question in QUESTIONS[2:]:
                last = await service.ask(question)
            print(f"{last['turns']} turns, {last['questions']} questions counted: nothing was lost")
            await service.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", nargs=2, metavar=("STORE", "API_BASE"), help="be the service")
    arguments = parser.parse_args()
    asyncio.run(serve(*arguments.serve) if arguments.serve else main())
