from __future__ import annotations

import asyncio

from infra.mailbox import Board, Mailbox


def test_news_are_taken_once_and_only_the_last() -> None:
    mailbox = Mailbox()
    assert mailbox.take() is None
    mailbox.post(1, {"loss": 2.0})
    mailbox.post(2, {"loss": 1.0})
    assert mailbox.take() == (2, {"loss": 1.0})
    assert mailbox.take() is None


def test_the_first_refusal_counts_and_no_start_follows() -> None:
    mailbox = Mailbox()
    start = mailbox.begin()
    assert (start, mailbox.refusal()) == (1, "")
    mailbox.refuse(start, "the loss is nan")
    mailbox.refuse(start, "connection closed by peer")
    assert mailbox.refusal() == "the loss is nan"
    assert mailbox.begin() is None


def test_the_last_failure_counts() -> None:
    mailbox = Mailbox()
    start = mailbox.begin()
    assert (start, mailbox.failure()) == (1, "")
    mailbox.fail(start, "no connection")
    mailbox.fail(start, "out of space")
    assert mailbox.failure() == "out of space"


def test_what_a_worker_of_an_earlier_start_says_does_not_count() -> None:
    mailbox = Mailbox()
    cut_off, start = mailbox.begin(), mailbox.begin()
    assert (cut_off, start) == (1, 2)
    mailbox.refuse(cut_off, "attempt 2 has taken over")
    mailbox.fail(cut_off, "no connection")
    mailbox.stopped(cut_off, 7)
    assert (mailbox.refusal(), mailbox.failure(), mailbox.take_stopped()) == ("", "", None)
    assert mailbox.begin() == 3


def test_it_is_known_whether_there_are_workers() -> None:
    mailbox = Mailbox()
    assert mailbox.alone() is not None
    mailbox.begin()
    mailbox.enlist(0, "node", 42)
    mailbox.beat(0, 3)
    assert mailbox.alone() is None
    mailbox.lose()
    assert mailbox.alone() is not None
    assert (mailbox.silence(), mailbox.tell_silence()) == (0.0, ("", None))  # who is gone has not stalled


def test_a_stop_reaches_those_who_wait_and_those_who_come_later() -> None:
    mailbox = Mailbox()

    async def ask() -> None:
        waiting = asyncio.create_task(mailbox.wait_for_stop())
        await asyncio.sleep(0)
        assert not waiting.done()
        mailbox.stop()
        await asyncio.wait_for(waiting, 1)
        await asyncio.wait_for(mailbox.wait_for_stop(), 1)

    asyncio.run(ask())
    assert mailbox.begin() is None


def test_an_early_end_is_told_once() -> None:
    mailbox = Mailbox()
    mailbox.stopped(mailbox.begin() or 0, 7)
    assert mailbox.take_stopped() == 7
    assert mailbox.take_stopped() is None


def test_a_trial_is_asked_to_stop_for_itself_or_with_all() -> None:
    board = Board()

    async def ask() -> list[str]:
        waiting = [asyncio.create_task(board.wait(name)) for name in ("worse", "done", "better")]
        await asyncio.sleep(0)
        board.stop("worse")
        board.leave("done")
        await asyncio.sleep(0)
        assert not waiting[2].done()
        board.stop_all()
        verdicts = [await asyncio.wait_for(task, 1) for task in waiting]
        return [*verdicts, await board.wait("worse"), await board.wait("later")]

    assert asyncio.run(ask()) == ["trial", "", "sweep", "trial", "sweep"]
