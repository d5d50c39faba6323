from __future__ import annotations

import pytest

from dspex.errors import WorkerStartError
from dspex.worker import forkserver as forkserver


def test_a_thread_that_is_just_leaving_the_kernels_list_is_no_reason_to_refuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = iter([3, 2, 2, 1])
    monkeypatch.setattr(forkserver, "_count_threads", lambda: next(seen))

    forkserver._check_threads("dspy")

    assert list(seen) == []


def test_a_thread_that_stays_is_refused_with_the_name_of_what_left_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forkserver, "_count_threads", lambda: 3)
    monkeypatch.setattr(forkserver, "_LEAVING", 0.0)

    with pytest.raises(WorkerStartError, match=r"importing my_app\.jobs left 2 thread") as refused:
        forkserver._check_threads("my_app.jobs")

    assert refused.value.code == "forkserver-not-single-threaded"
