"""How values become bytes, beside what peers do: `python benches/bench_wire.py [--write]`.

Encoding and decoding in one process: a dict of 200 bytes, 10,000 like rows, an embedding as a list and as an
array, the selection alone. Then the crossing points: from how many floats, and from how many rows, a column
costs less than MessagePack; `--write` writes them into `dspex.wire._select` and the plot into
docs/benchmarks.md. What is decoded is compared before anything is timed. Rounds take turns; figures are
medians in microseconds.
"""

from __future__ import annotations

import argparse
import pickle
import random
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np
import pyarrow as pa

from dspex._core import has_large
from dspex.wire._msgpack import MessagePack
from dspex.wire._select import DEFAULT, Worth, select

try:
    import msgspec
    import orjson
except ImportError:  # only the comparison needs them
    msgspec = orjson = None

ROUNDS = 9
CODEC = MessagePack()

SMALL = {
    "question": "Where is the town of Ithaca, and who founded it?",
    "k": 5,
    "threshold": 0.25,
    "tags": ["history", "greece"],
    "user": {"id": 17, "name": "ada", "tenant": "a shop of books"},
    "stream": True,
    "model": "openai/gpt-4o-mini",
}


def rows(count: int) -> list[dict[str, Any]]:
    draw = random.Random(7)
    return [
        {"id": n, "title": f"document {n}", "score": draw.random(), "lang": "en", "rank": n % 100}
        for n in range(count)
    ]


def floats(count: int) -> list[float]:
    draw = random.Random(7)
    return [draw.random() for _ in range(count)]


class Way(NamedTuple):
    """One way to make bytes and values."""

    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


OURS = Way("dspex", lambda value: CODEC.encode(select(value)), CODEC.decode)
PLAIN = Way("dspex, no columns", CODEC.encode, CODEC.decode)
COLUMNS = {
    name: Way("dspex, columns", lambda value, worth=worth: CODEC.encode(select(value, worth)), CODEC.decode)
    for name, worth in {"floats": Worth(floats=1), "rows": Worth(rows=1)}.items()
}
PICKLE = Way("pickle 5", lambda value: pickle.dumps(value, 5), pickle.loads)
MSGPACK = Way("msgpack", msgpack.packb, lambda body: msgpack.unpackb(body, strict_map_key=False))
ARROW = Way(
    "pyarrow, rows",
    lambda value: pa.Table.from_pylist(value),
    lambda table: table.to_pylist(),
)
PEERS = [PICKLE, MSGPACK]
if msgspec is not None:
    PEERS += [
        Way("msgspec", msgspec.msgpack.encode, msgspec.msgpack.decode),
        Way("orjson", orjson.dumps, orjson.loads),
    ]


def once(call: Callable[..., Any], times: int, *given: Any) -> float:
    begun = time.perf_counter()
    for _ in range(times):
        call(*given)
    return (time.perf_counter() - begun) / times * 1e6


def measure(ways: list[Way], value: Any, times: int) -> dict[str, tuple[float, float, int]]:
    """Median microseconds to encode and to decode, and the bytes, of each way; rounds take turns."""
    bodies = {way.name: way.encode(value) for way in ways}
    for way in ways:
        assert same(way.decode(bodies[way.name]), value), way.name
    took: dict[str, list[tuple[float, float]]] = {way.name: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            body = bodies[way.name]
            took[way.name].append((once(way.encode, times, value), once(way.decode, times, body)))
    return {
        name: (
            statistics.median(out for out, _ in rounds),
            statistics.median(back for _, back in rounds),
            getattr(bodies[name], "nbytes", None) or len(bodies[name]),
        )
        for name, rounds in took.items()
    }


def same(back: Any, value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return type(back) is np.ndarray and bool((back == value).all())
    return type(back) is type(value) and back == value


def table(title: str, measured: dict[str, tuple[float, float, int]]) -> None:
    best = min(out + back for name, (out, back, _) in measured.items() if not name.startswith("dspex"))
    print(f"\n{title}\n{'':22}{'encode':>10}{'decode':>10}{'both':>10}{'of best':>9}{'bytes':>12}")
    for name, (out, back, size) in measured.items():
        both = out + back
        print(f"{name:22}{out:10.2f}{back:10.2f}{both:10.2f}{both / best:9.2f}{size:12,}")


def selection() -> None:
    print("\nselection alone")
    for name, value in {
        "the small dict": SMALL,
        "10,000 texts": ["text"] * 10_000,
        "lists in lists in lists": [[["a"] * 20] * 20] * 20,
        "10,000 unlike rows": [{"a": n, "b": [n] * (n % 7)} for n in range(10_000)],
    }.items():
        took = statistics.median(once(has_large, 2_000, value, *DEFAULT) for _ in range(ROUNDS))
        print(f"{name:26}{took:8.2f}")


class Crossing(NamedTuple):
    """From where on columns cost less, and the figures that say so."""

    at: int
    sizes: list[int]
    plain: list[float]
    columns: list[float]


def crossing(columns_of: Way, make: Callable[[int], Any], sizes: list[int]) -> Crossing:
    """The smallest size from which on a column is never dearer than MessagePack."""
    plain, columns = [], []
    for size in sizes:
        measured = measure([PLAIN, columns_of], make(size), max(3, 20_000 // size))
        plain.append(sum(measured[PLAIN.name][:2]))
        columns.append(sum(measured[columns_of.name][:2]))
    at = sizes[-1]
    for size, one, other in zip(reversed(sizes), reversed(plain), reversed(columns), strict=True):
        if other > one:
            break
        at = size
    return Crossing(at, sizes, plain, columns)


def told(name: str, found: Crossing) -> None:
    print(f"\n{name}: columns cost less from {found.at} on\n{'items':>8}{'msgpack':>10}{'column':>10}")
    for size, one, other in zip(found.sizes, found.plain, found.columns, strict=True):
        print(f"{size:8}{one:10.2f}{other:10.2f}")


def write(floats_at: Crossing, rows_at: Crossing) -> None:
    """Put the crossing points where they are used, and their plot where they are read."""
    root = Path(__file__).parents[1]
    home = root / "python/dspex/wire/_select.py"
    text = home.read_text()
    text = re.sub(r"floats: int = \d+", f"floats: int = {floats_at.at}", text)
    text = re.sub(r"rows: int = \d+", f"rows: int = {rows_at.at}", text)
    home.write_text(text)
    page = root / "docs/benchmarks.md"
    text = page.read_text()
    for name, found in (("floats", floats_at), ("rows", rows_at)):
        head, _, tail = re.split(
            rf"(?<=<!-- {name} -->\n)(.*?)(?=\n<!-- end -->)", text, maxsplit=1, flags=re.DOTALL
        )
        text = head + plot(name, found) + tail
    page.write_text(text)


def plot(name: str, found: Crossing) -> str:
    """The share of MessagePack's time that a column takes, as a chart of Mermaid."""
    shares = [round(other / one, 2) for one, other in zip(found.plain, found.columns, strict=True)]
    top = max(2.0, *shares)
    return "\n".join(
        [
            "```mermaid",
            "xychart-beta",
            f'    title "Time of a column of {name}, MessagePack = 1; crossing at {found.at}"',
            f"    x-axis [{', '.join(map(str, found.sizes))}]",
            f'    y-axis "share" 0 --> {top:g}',
            f"    line [{', '.join(map(str, shares))}]",
            f"    line [{', '.join('1' for _ in shares)}]",
            "```",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make the measured points the defaults")
    options = parser.parse_args()

    table("a dict of 200 bytes", measure([OURS, *PEERS], SMALL, 5_000))
    table("10,000 rows", measure([OURS, PLAIN, *PEERS, ARROW], rows(10_000), 1))
    table("1,536 floats in a list", measure([OURS, PLAIN, *PEERS], floats(1536), 200))
    table("1,536 floats in an array", measure([OURS, PICKLE], np.array(floats(1536)), 2_000))
    selection()
    floats_at = crossing(COLUMNS["floats"], floats, [32, 64, 128, 192, 256, 384, 512, 1024, 4096])
    told("floats", floats_at)
    rows_at = crossing(COLUMNS["rows"], rows, [4, 8, 12, 16, 24, 32, 64, 128, 512])
    told("rows", rows_at)
    if options.write:
        write(floats_at, rows_at)


if __name__ == "__main__":
    main()
