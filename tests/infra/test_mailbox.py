from __future__ import annotations

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
