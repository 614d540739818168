from __future__ import annotations

import os
import signal
import threading

import pytest

from infra.signals import ENDING, Interrupted, SignalNote


@pytest.mark.parametrize("number", ENDING)
def test_the_first_signal_is_noted_once_there_is_something_to_save(number: int) -> None:
    with SignalNote() as note:
        assert note.number is None
        note.begin()
        os.kill(os.getpid(), number)
        assert note.number == number


def test_before_and_after_the_first_signals_end_the_process() -> None:
    with SignalNote() as note:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(SystemExit) as exit_:
            os.kill(os.getpid(), signal.SIGTERM)
        assert exit_.value.code == 143
        note.begin()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    with SignalNote():
        assert [signal.getsignal(number) for number in ENDING] != before
    assert [signal.getsignal(number) for number in ENDING] == before


def test_other_threads_note_nothing() -> None:
    notes = []

    def work() -> None:
        with SignalNote() as note:
            note.begin()
            notes.append(note.number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert notes == [None]


def test_an_interruption_names_signal_and_step() -> None:
    assert str(Interrupted(7, signal.SIGTERM)).startswith("SIGTERM: stopped after step 7, which is saved")
