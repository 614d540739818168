from __future__ import annotations

import asyncio

from infra.mailbox import Mailbox


def test_news_are_taken_once_and_only_the_last() -> None:
    mailbox = Mailbox()
    assert mailbox.take() is None
    mailbox.post(1, {"loss": 2.0})
    mailbox.post(2, {"loss": 1.0})
    assert mailbox.take() == (2, {"loss": 1.0})
    assert mailbox.take() is None


def test_the_first_refusal_counts() -> None:
    mailbox = Mailbox()
    assert mailbox.refusal() == ""
    mailbox.refuse("the loss is nan")
    mailbox.refuse("connection closed by peer")
    assert mailbox.refusal() == "the loss is nan"


def test_the_last_failure_counts() -> None:
    mailbox = Mailbox()
    assert mailbox.failure() == ""
    mailbox.fail("no connection")
    mailbox.fail("out of space")
    assert mailbox.failure() == "out of space"


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


def test_an_early_end_is_told_once() -> None:
    mailbox = Mailbox()
    mailbox.stopped(7)
    assert mailbox.take_stopped() == 7
    assert mailbox.take_stopped() is None
