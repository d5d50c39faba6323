"""Segments of shared memory, their sender and their receiver, both in this process."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import socket
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.memory import MIB, Link, segments_of, shared_memory, sockets
from tests.support.processes import descriptors_left

from dspex import _segments
from dspex._core import Region
from dspex._segments import SharedSegment, create
from dspex.errors import WireError
from dspex.protocol.memory import GONE, MESSAGE, NEW, memory_pair
from dspex.protocol.memory_receiver import Receiver
from dspex.protocol.memory_sender import Sender

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memory passes by descriptor here")


@pytest.fixture
def link() -> Iterator[Link]:
    link = Link()
    yield link
    link.close()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Whatever a test does, no descriptor, mapping or page of it stays."""
    gc.collect()
    descriptors, segments, shared = psutil.Process().num_fds(), sorted(segments_of()), shared_memory()
    yield
    gc.collect()
    assert psutil.Process().num_fds() == descriptors
    assert sorted(segments_of()) == segments
    assert shared_memory() <= shared + MIB  # what else is shared here is no segment


def cross(link: Link, *contents: bytes) -> list[memoryview]:
    views = link.cross(*contents)
    assert views is not None
    return views


# --- what crosses ---


def test_parts_are_read_where_they_are_and_cannot_be_written_to(link: Link) -> None:
    views = cross(link, b"first", b"", b"x" * 1000)
    assert [bytes(view) for view in views] == [b"first", b"", b"x" * 1000]
    assert all(view.readonly and view.format == "B" for view in views)
    assert not np.frombuffer(views[2], dtype="u1").flags.writeable
    assert not pa.py_buffer(views[0]).is_mutable


@pytest.mark.parametrize("way", ["place", "put"])
def test_parts_are_written_in_place_or_put_there_and_as_well_over_what_was_there(
    link: Link, way: str
) -> None:
    for contents in ([b"longer than the next", b"and longer"], [b"next", b"", b"x" * 100]):
        sizes = [len(content) for content in contents]
        placed = link.sender.put(contents) if way == "put" else link.sender.place(sizes)
        assert placed is not None
        if way == "place":
            for part, content in zip(placed.parts, contents, strict=True):
                part[:] = content
        views = link.receiver.views(1, list(zip(placed.offsets, sizes, strict=True)))
        assert [bytes(view) for view in views] == contents
        del views
        link.take_back()


def test_parts_are_aligned_for_arrow(link: Link) -> None:
    for view in cross(link, *(b"x" * size for size in (1, 63, 64, 65, 1000, 1))):
        assert np.frombuffer(view, dtype="u1").ctypes.data % 64 == 0


def test_what_is_written_later_is_seen_by_no_copy(link: Link) -> None:
    placed = link.sender.place([3])
    assert placed is not None
    (view,) = link.receiver.views(placed.number, [(placed.offsets[0], 3)])
    placed.parts[0][:] = b"abc"
    assert bytes(view) == b"abc"


def test_one_segment_has_all_parts_of_a_frame_and_each_frame_its_own(link: Link) -> None:
    first, second = link.sender.place([10, 20, 30]), link.sender.place([10])
    assert first is not None
    assert second is not None
    assert len(first.parts) == 3
    assert second.number != first.number
    link.sender.released([first.number, second.number])


# --- when it is released ---

KEPT_BY: dict[str, Callable[[memoryview], Any]] = {
    "the view": lambda view: view,
    "a slice of a slice": lambda view: view[1:][1:],
    "an array": lambda view: np.frombuffer(view, dtype="u1"),
    "a view of an array": lambda view: np.frombuffer(view, dtype="u1")[3:].reshape(1, -1),
    "a buffer of Arrow's": lambda view: pa.py_buffer(view),
    "a slice of an Arrow array": lambda view: pa.Array.from_buffers(
        pa.uint8(), len(view), [None, pa.py_buffer(view)]
    ).slice(2),
}


@pytest.mark.parametrize("kept", KEPT_BY)
def test_a_segment_is_released_once_when_the_last_that_reads_it_has_gone(link: Link, kept: str) -> None:
    views = cross(link, b"other part", b"a part that is kept")
    keeper = KEPT_BY[kept](views[1])
    del views
    gc.collect()
    assert link.released == []
    assert bytes(memoryview(keeper).cast("B") if kept == "the view" else b"") in b"a part that is kept"
    del keeper
    gc.collect()
    assert link.released == [1]


def test_a_view_that_dies_in_another_thread_releases_its_segment(link: Link) -> None:
    holder = [cross(link, b"content")]
    thread = threading.Thread(target=holder.clear)
    thread.start()
    thread.join()
    assert link.released == [1]


def test_a_view_in_a_cycle_is_released_by_the_collector(link: Link) -> None:
    holder: list[Any] = [cross(link, b"content")]
    holder.append(holder)
    del holder
    assert link.released == []
    gc.collect()
    assert link.released == [1]


def test_a_frame_whose_parts_nobody_wants_is_released_at_once(link: Link) -> None:
    placed = link.sender.place([10])
    assert placed is not None
    assert link.receiver.views(placed.number, []) == []
    assert link.released == [placed.number]


def test_nothing_is_released_after_close_and_views_stay_valid(link: Link) -> None:
    (view,) = cross(link, b"content")
    link.close()
    assert bytes(view) == b"content"
    del view
    gc.collect()
    assert link.released == []


# --- reuse ---


def test_a_released_segment_is_used_again_without_a_new_one(link: Link) -> None:
    for round_ in range(5):
        (view,) = cross(link, b"%d" % round_)
        assert bytes(view) == b"%d" % round_
        del view
        assert link.released == [1]
        link.take_back()
    assert link.sender.size == link.receiver.size == MIB


def test_the_smallest_idle_segment_that_fits_is_taken_and_none_much_too_large(link: Link) -> None:
    sizes = [MIB, 3 * MIB, 16 * MIB]
    numbers = [placed.number for size in sizes if (placed := link.sender.place([size])) is not None]
    link.sender.released(reversed(numbers))
    taken = [link.sender.place([size]) for size in (2 * MIB, MIB, MIB)]
    assert [placed.number if placed else 0 for placed in taken] == [numbers[1], numbers[0], 4]


def test_what_is_idle_beyond_what_is_kept_ends_and_the_peer_hears_of_it() -> None:
    link = Link(keep=2 * MIB)
    views = [cross(link, b"content") for _ in range(4)]
    assert link.receiver.size == 4 * MIB
    del views
    link.take_back()
    assert link.sender.size == 2 * MIB
    assert link.receiver.receive()
    assert link.receiver.size == 2 * MIB
    assert len(set(segments_of())) == 2
    link.close()


def test_trimming_ends_what_was_not_used_since_the_last_time(link: Link) -> None:
    views = [cross(link, b"content") for _ in range(3)]
    del views
    link.take_back()
    link.sender.trim()
    assert link.sender.size == 3 * MIB
    cross(link, b"one is used")
    link.take_back()
    link.sender.trim()
    assert link.sender.size == MIB
    link.sender.trim()
    assert link.sender.size == 0
    assert link.receiver.receive()
    assert link.receiver.size == 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_a_live_view_shows_is_never_overwritten(data: st.DataObject) -> None:
    keep = data.draw(st.sampled_from([0, 2 * MIB, 64 * MIB]))
    with contextlib.closing(Link(keep=keep, limit=12 * MIB)) as link:
        send_and_let_go(link, data)


def send_and_let_go(link: Link, data: st.DataObject) -> None:
    live: list[tuple[list[memoryview], list[bytes]]] = []
    for step in range(data.draw(st.integers(1, 40))):
        action = data.draw(st.sampled_from(["send", "send", "let go", "take back", "trim"]))
        if action == "send":
            sizes = data.draw(st.lists(st.sampled_from([0, 1, 65, 5000, MIB, 2 * MIB]), max_size=4))
            contents = [bytes([step]) * size for size in sizes]
            views = link.cross(*contents)
            assert views is not None or link.sender.size + sum(sizes) > 6 * MIB
            if views is not None:
                live.append((views, contents))
            del views
        elif action == "let go" and live:
            del live[data.draw(st.integers(0, len(live) - 1))]
        elif action == "take back":
            link.take_back()
        elif action == "trim":
            link.sender.trim()
        assert link.sender.size <= 12 * MIB
        for views, contents in live:
            assert [bytes(view) for view in views] == contents
    link.close()
    for views, contents in live:
        assert [bytes(view) for view in views] == contents


def test_ten_thousand_frames_leave_descriptors_and_memory_as_they_were(link: Link) -> None:
    kept: list[list[memoryview]] = []
    figures = []
    for number in range(10_000):
        kept.append(cross(link, b"%d" % number * 100, b"x"))
        if number % 7 == 0:
            kept.clear()
            link.take_back()
        if number in (100, 9_999):
            kept.clear()
            figures.append((psutil.Process().num_fds(), len(segments_of()), link.sender.size))
    assert figures[0] == figures[1]


# --- limits ---


def test_beyond_the_limit_nothing_is_placed_until_something_is_released() -> None:
    link = Link(limit=4 * MIB)
    views = cross(link, b"x" * 3 * MIB)
    assert link.sender.place([2 * MIB]) is None
    assert link.sender.place([5 * MIB]) is None
    del views
    link.take_back()
    cross(link, b"x" * 4 * MIB)  # the idle one makes room
    assert link.receiver.size == link.sender.size == 4 * MIB
    link.close()


def test_a_peer_that_passes_more_than_the_limit_is_refused() -> None:
    link = Link(limit=8 * MIB, receiver_limit=4 * MIB)
    with pytest.raises(WireError, match="5242880 bytes was passed; 4194304 may be") as refused:
        link.cross(b"x" * 5 * MIB)
    assert refused.value.code == "bad-frame"
    link.close()


def test_all_that_a_peer_has_passed_counts_against_the_limit() -> None:
    link = Link(limit=8 * MIB, receiver_limit=4 * MIB)
    views = [cross(link, b"x" * 2 * MIB) for _ in range(2)]
    with pytest.raises(WireError, match="1048576 bytes was passed; 0 may be"):
        link.cross(b"x")
    assert link.receiver.size == 4 * MIB
    del views
    link.close()


def test_without_a_descriptor_left_nothing_is_placed_and_what_was_passed_can_be_read(link: Link) -> None:
    placed = link.sender.place([7])
    assert placed is not None
    placed.parts[0][:] = b"content"
    with descriptors_left(0):
        assert link.sender.place([5]) is None
        (view,) = link.receiver.views(placed.number, [(0, 7)])
        assert bytes(view) == b"content"
    assert link.sender.place([5]) is not None


def test_a_full_queue_places_nothing_and_an_emptied_one_does() -> None:
    link = Link(limit=4096 * MIB)
    while link.sender.place([1]) is not None:
        pass
    assert link.sender.size < 4096 * MIB  # it was the queue, not the limit
    descriptors = psutil.Process().num_fds()
    for _ in range(10):
        assert link.sender.place([1]) is None
    assert psutil.Process().num_fds() == descriptors
    assert link.receiver.receive()
    assert link.receiver.size == link.sender.size
    assert link.sender.place([1]) is not None
    link.close()


def test_the_end_of_segments_that_a_full_queue_did_not_take_is_told_later() -> None:
    link = Link(keep=0, limit=4096 * MIB)
    numbers = []
    while (placed := link.sender.place([1])) is not None:
        numbers.append(placed.number)
    size = link.sender.size
    link.sender.released(numbers)
    assert link.sender.size == size  # the peer has them still
    while link.receiver.size < size or link.sender.size:
        assert link.receiver.receive()
        link.sender.released([])
    assert link.receiver.receive()
    assert link.receiver.size == 0
    link.close()


@pytest.mark.parametrize("refuses", [OSError(38, "no such call"), OSError(12, "no memory")], ids=str)
def test_a_system_that_refuses_segments_places_nothing(
    link: Link, refuses: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> int:
        raise refuses

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert link.sender.place([1]) is None
    with pytest.raises(OSError, match="no "):
        SharedSegment([b"content"])


def test_a_kernel_that_does_not_know_the_newest_flag_has_segments(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_memfd = os.memfd_create

    def older(name: str, flags: int) -> int:
        if flags & ~(os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING):
            raise OSError(22, "Invalid argument")
        return create_memfd(name, flags)

    monkeypatch.setattr(os, "memfd_create", older)
    assert bytes(cross(link, b"content")[0]) == b"content"


@pytest.mark.parametrize(("owner", "name"), [(os, "memfd_create"), (socket, "send_fds")])
def test_a_system_without_what_it_takes_has_no_memory_sockets(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(owner, name)
    assert memory_pair() is None
    if owner is os:
        with pytest.raises(OSError, match="no memory that is passed"):
            SharedSegment([b"content"])


def test_a_peer_that_is_gone_gets_nothing_placed(link: Link) -> None:
    (view,) = cross(link, b"content")
    link.sockets[1].close()
    assert link.sender.place([1]) is None
    link.sender.released([1])
    assert link.sender.place([1]) is not None  # the segment that it had: nobody reads the frame either
    assert bytes(view)[1:] == b"ontent"


def test_a_receiver_says_when_the_peer_is_gone(link: Link) -> None:
    assert link.receiver.receive()
    (view,) = cross(link, b"content")
    link.sockets[0].close()
    assert not link.receiver.receive()
    assert bytes(view) == b"content"
    link.receiver.close()
    assert not link.receiver.receive()


def test_a_closed_sender_places_and_shares_nothing_and_takes_everything_back(link: Link) -> None:
    shared = SharedSegment([b"content"])
    placed = link.sender.place([1])
    assert placed is not None
    link.sender.close()
    assert link.sender.place([1]) is None
    assert link.sender.share(shared) is None
    link.sender.released([placed.number])
    link.sender.trim()
    assert link.sender.size == 0


# --- what a peer may not send ---


@pytest.mark.parametrize(
    "place",
    [
        (0, MIB + 1),
        (MIB, 1),
        (-1, 1),
        (0, -1),
        (-1, 0),
        (2**70, 1),
        (1,),
        (0, 1, 2),
        ("0", 1),
        (0, None),
        5,
        "01",
    ],
    ids=str,
)
def test_a_part_that_is_not_in_its_segment_is_refused(link: Link, place: Any) -> None:
    placed = link.sender.place([100])
    assert placed is not None
    with pytest.raises(WireError, match="no part of segment 1, of 1048576 bytes") as refused:
        link.receiver.views(placed.number, [(0, 100), place])
    assert refused.value.code == "bad-frame"


@pytest.mark.parametrize("number", [0, 2, -1, 2**70, "1", 1.0, True, None, [1]], ids=str)
def test_a_segment_that_was_not_passed_is_refused(link: Link, number: Any) -> None:
    assert link.sender.place([100]) is not None
    with pytest.raises(WireError, match="which was not passed") as refused:
        link.receiver.views(number, [(0, 1)])
    assert refused.value.code == "bad-frame"


def test_a_segment_that_is_still_read_is_refused(link: Link) -> None:
    views = cross(link, b"content")
    with pytest.raises(WireError, match="segment 1, which is still read"):
        link.receiver.views(1, [(0, 1)])
    assert bytes(views[0]) == b"content"


@pytest.mark.parametrize("number", [2, 0, -1, "1", None, True, [1], {}], ids=str)
def test_a_release_of_what_is_not_in_use_is_refused(link: Link, number: Any) -> None:
    assert link.sender.place([1]) is not None
    with pytest.raises(WireError, match="not in use"):
        link.sender.released([number])
    link.sender.released([1])
    with pytest.raises(WireError, match="not in use"):
        link.sender.released([1])


def memfd(size: int, seals: int, content: bytes = b"") -> int:
    descriptor = os.memfd_create("hostile", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, content)
    os.ftruncate(descriptor, size)
    _segments._add_seals(descriptor, seals)
    return descriptor


def file(size: int) -> int:
    descriptor, name = tempfile.mkstemp()
    os.unlink(name)
    os.ftruncate(descriptor, size)
    return descriptor


def plain_memfd(size: int) -> int:
    descriptor = os.memfd_create("hostile", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    return descriptor


def in_shm(size: int) -> int:
    descriptor, name = tempfile.mkstemp(dir="/dev/shm")
    os.unlink(name)
    os.ftruncate(descriptor, size)
    return descriptor


HOSTILE: dict[str, Callable[[], int]] = {
    "not sealed": lambda: memfd(4096, 0),
    "may shrink": lambda: memfd(4096, 0x04 | 0x10 | 0x01),
    "may grow": lambda: memfd(4096, 0x02 | 0x10 | 0x01),
    "may be written to by anybody": lambda: memfd(4096, 0x02 | 0x04 | 0x01),
    "empty": lambda: memfd(0, 0x1F),
    "beyond the limit": lambda: memfd(1024 * MIB, 0x1F),
    "cannot be sealed": lambda: plain_memfd(4096),
    "a file": lambda: file(4096),
    "a file in /dev/shm": lambda: in_shm(4096),
    "a pipe's end": lambda: os.dup(0),
    "a socket": lambda: socket.socket().detach(),
    "a directory": lambda: os.open("/", os.O_RDONLY),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_descriptor_of_anything_but_a_sealed_segment_is_not_mapped(link: Link, what: str) -> None:
    descriptor = HOSTILE[what]()
    socket.send_fds(link.sockets[0], [MESSAGE.pack(NEW, 1)], [descriptor])
    os.close(descriptor)
    with pytest.raises(WireError, match="passed") as refused:
        link.receiver.views(1, [(0, 1)])
    assert refused.value.code == "bad-frame"
    assert link.receiver.size == 0
    assert link.receiver.receive()  # it is out of the queue


MESSAGES: dict[str, tuple[bytes, int]] = {
    "no descriptor": (MESSAGE.pack(NEW, 1), 0),
    "two descriptors": (MESSAGE.pack(NEW, 1), 2),
    "a kind that there is not": (MESSAGE.pack(7, 1), 1),
    "too short": (b"\x01", 1),
    "too long": (MESSAGE.pack(NEW, 1) + b"x", 1),
    "an end of what was not passed": (MESSAGE.pack(GONE, 1), 0),
    "an end with a descriptor": (MESSAGE.pack(GONE, 1), 1),
}


@pytest.mark.parametrize("what", MESSAGES)
def test_a_message_that_is_none_is_refused_and_its_descriptors_are_closed(link: Link, what: str) -> None:
    message, count = MESSAGES[what]
    descriptor = memfd(4096, 0x1F)
    socket.send_fds(link.sockets[0], [message], [descriptor] * count)
    os.close(descriptor)
    with pytest.raises(WireError) as refused:
        link.receiver.receive()
    assert refused.value.code == "bad-frame"
    assert link.receiver.size == 0


def test_a_segment_that_is_passed_twice_or_ended_while_it_is_read_is_refused(link: Link) -> None:
    (view,) = cross(link, b"content")
    link.sockets[0].send(MESSAGE.pack(GONE, 1))
    with pytest.raises(WireError, match="segment 1 was ended, and is read"):
        link.receiver.receive()
    link.close()
    again = Link()
    descriptor = memfd(4096, 0x1F)
    for _ in range(2):
        socket.send_fds(again.sockets[0], [MESSAGE.pack(NEW, 1)], [descriptor])
    os.close(descriptor)
    with pytest.raises(WireError, match="passed twice"):
        again.receiver.receive()
    again.close()
    assert bytes(view) == b"content"


# --- segments themselves ---


def test_only_the_first_mapping_of_a_segment_can_write_to_it_and_its_size_is_for_ever() -> None:
    descriptor, region = create(4096)
    region.view()[:5] = b"first"
    for forbidden in (
        lambda: mmap.mmap(descriptor, 4096),
        lambda: os.pwrite(descriptor, b"x", 0),
        lambda: os.ftruncate(descriptor, 0),
        lambda: os.ftruncate(descriptor, 8192),
        lambda: _segments._add_seals(descriptor, 0),
        lambda: Region(descriptor, 4096, writable=True),
    ):
        with pytest.raises(PermissionError):
            forbidden()
    assert bytes(Region(descriptor, 4096).view()[:5]) == b"first"
    os.close(descriptor)


def test_a_region_is_a_buffer_that_outlives_its_descriptor() -> None:
    descriptor, region = create(4096)
    os.close(descriptor)
    region.view()[:4] = b"abcd"
    again = region.again()
    died: list[object] = []
    watch = weakref.ref(again, died.append)
    view = again.view()[1:3]
    assert len(again) == 4096
    del again
    assert not died
    with pytest.raises(TypeError, match="read-only"):
        view[0] = 1
    del region
    assert bytes(view) == b"bc"
    view.release()
    assert died == [watch]


@pytest.mark.parametrize(("descriptor", "size"), [(-1, 4096), (10**6, 4096), (0, 2**62)])
def test_a_region_of_nothing_is_an_error_of_the_system(descriptor: int, size: int) -> None:
    with pytest.raises(OSError, match="os error"):
        Region(descriptor, size)


# --- shared segments ---


def test_a_shared_segment_is_passed_once_to_each_peer_and_read_by_any_number() -> None:
    first, second = Link(), Link()
    floats: Any = np.arange(4.0)
    shared = SharedSegment([b"settings", floats, b""])
    numbers = [link.sender.share(shared) for link in (first, second, first, second)]
    assert numbers == [1, 1, 1, 1]
    ranges = list(zip(shared.offsets, shared.sizes, strict=True))
    seen = [link.receiver.views(1, ranges) for link in (first, second, first)]
    assert all(bytes(views[0]) == b"settings" and len(views[2]) == 0 for views in seen)
    assert np.frombuffer(seen[2][1]).tolist() == [0.0, 1.0, 2.0, 3.0]
    assert [bytes(view) for view in shared.views()] == [bytes(view) for view in seen[0]]
    del seen
    assert first.released == second.released == []
    first.close()
    second.close()


def test_the_end_of_a_shared_segment_is_told_to_those_who_have_it(link: Link) -> None:
    shared = SharedSegment([b"content"])
    number = link.sender.share(shared)
    (view,) = link.receiver.views(number, [(0, 7)])
    thread = threading.Thread(target=lambda held: held.clear(), args=([shared],))
    del shared
    thread.start()
    thread.join()
    del thread
    gc.collect()
    assert link.sender.size == 0
    assert link.receiver.receive()
    assert link.receiver.size == 0
    assert bytes(view) == b"content"


def test_nothing_can_write_to_a_shared_segment() -> None:
    shared = SharedSegment([b"content"])
    for forbidden in (
        lambda: os.pwrite(shared._descriptor, b"x", 0),
        lambda: mmap.mmap(shared._descriptor, shared.size),
        lambda: os.open(f"/proc/self/fd/{shared._descriptor}", os.O_RDWR | os.O_TRUNC),
    ):
        with pytest.raises(OSError, match=r"not permitted|Permission denied|Bad file"):
            forbidden()
    assert not any(not view.readonly for view in shared.views())


def test_shared_segments_count_against_the_limit() -> None:
    link = Link(limit=4 * MIB)
    shared = SharedSegment([b"x" * 3 * MIB])
    assert link.sender.share(shared) is not None
    assert link.sender.place([2 * MIB]) is None
    assert link.sender.share(SharedSegment([b"x" * 2 * MIB])) is None
    cross(link, b"x" * MIB)
    link.take_back()
    assert link.sender.size == 4 * MIB
    del shared
    gc.collect()
    cross(link, b"x" * 4 * MIB)
    link.close()


def test_a_shared_segment_that_a_full_queue_did_not_take_is_passed_later() -> None:
    link = Link(limit=4096 * MIB)
    shared = SharedSegment([b"content"])
    while link.sender.place([1]) is not None:
        pass
    assert link.sender.share(shared) is None
    assert link.receiver.receive()
    number = link.sender.share(shared)
    assert bytes(link.receiver.views(number, [(0, 7)])[0]) == b"content"
    link.close()


def test_a_sender_that_has_gone_is_not_kept_by_what_it_shared() -> None:
    shared = SharedSegment([b"content"])
    ends = sockets()
    sender = Sender(ends[0], keep=0, limit=MIB)
    gone = weakref.ref(sender)
    assert sender.share(shared) == 1
    del sender
    gc.collect()
    assert gone() is None
    receiver = Receiver(ends[1], on_release=print, limit=MIB)
    assert receiver.receive()
    for closing in (receiver, *ends):
        closing.close()


def test_what_a_part_of_a_shared_segment_may_be() -> None:
    parts: list[Any] = [
        b"a",
        bytearray(b"b"),
        memoryview(b"cc")[1:],
        np.ones((2, 3)),
        np.zeros((0, 3)),
        pa.py_buffer(b"d"),
    ]
    strided: Any = np.ones((3, 3)).T[1:]
    shared = SharedSegment(parts)
    assert shared.sizes == [1, 1, 1, 48, 0, 1]
    assert [at % 64 for at in shared.offsets] == [0] * 6
    assert repr(shared).endswith(f": 6 parts, {shared.size} bytes>")
    with pytest.raises(TypeError):
        SharedSegment([strided])
    assert SharedSegment([]).views() == []


def test_nothing_is_seen_in_dev_shm(link: Link) -> None:
    before = sorted(os.listdir("/dev/shm"))
    views = cross(link, b"content")
    shared = SharedSegment([b"content"])
    assert sorted(path.name for path in Path("/dev/shm").iterdir()) == before
    del views, shared
