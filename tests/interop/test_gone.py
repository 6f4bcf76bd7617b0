"""The memory of a request may be gone as soon as the request is sent; see gone.c."""

import pytest


def log_of(bench, built, call, request):
    below = built("below.c", flags=("-shared", "-fPIC"))
    outcome = bench.unnoticed([built("gone.c"), bench.server.port, call, request], after=[below])
    assert outcome.code == 0, outcome
    return bench.log()


@pytest.mark.parametrize("call", ("write", "writev", "send", "sendto", "sendmsg"))
@pytest.mark.parametrize("request_", ("get", "many", "set", "quiet"))
def test_account_is_right(bench, built, call, request_):
    log = log_of(bench, built, call, request_)
    assert "not kept" not in log and "discarded" not in log
    # The fence behind a quiet request is not always answered by the time the next user comes.
    assert log.count(": kept") == 4 and "reused as" in log


@pytest.mark.parametrize("call", ("sendmmsg", "pwritev2"))
@pytest.mark.parametrize("request_", ("get", "many", "set", "quiet"))
def test_unknown_account_is_a_refusal(bench, built, call, request_):
    """The kernel reports only in the message itself how much of it was sent."""
    assert log_of(bench, built, call, request_).count("not kept: UNTRACKED_IO") == 4


def test_reply_heard_by_another_thread(bench, built):
    assert log_of(bench, built, "send", "threads").count("not kept: UNSOLICITED") == 4


@pytest.mark.parametrize("call", ("sendmsg", "sendmmsg", "SYS_sendmsg"))
def test_message_that_passes_a_connection(bench, built, call):
    assert log_of(bench, built, call, "passed").count("not kept: PASSED") == 4


def test_event_of_a_registration(bench, built):
    log = log_of(bench, built, "epoll_ctl", "watched")
    assert log.count(": kept") == 4 and "reused as" in log
