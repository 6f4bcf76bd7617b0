/*
 * Refusals because of what was sent or received, each by its own reason.
 */
#include "harness.h"

#include <stdio.h>
#include <unistd.h>

struct dialogue {
    const char *request;
    const char *read_first; /* how much of the answer is read before the close */
    const char *reason;
};

static void say_and_close(int port, const struct dialogue *dialogue)
{
    char expected[64];
    int fd = dial(port);

    if (dialogue->request[0] != '\0')
        send_text(fd, dialogue->request);
    if (dialogue->read_first[0] != '\0')
        expect_text(fd, dialogue->read_first);
    cr_expect(close(fd) == 0);
    snprintf(expected, sizeof(expected), ": not kept: %s ", dialogue->reason);
    cr_expect(strstr(last_event(), expected) != NULL, "'%s': expected %s, the log says '%s'",
              dialogue->request, dialogue->reason, last_event());
}

Test(reasons_wire, against_memcached, .timeout = 20)
{
    static const struct dialogue dialogues[] = {
        {"", "", "UNUSED"},
        {"get a", "", "REQUEST_PARTIAL"},
        {"set a 0 0 3\r\nab", "", "REQUEST_PARTIAL"},
        {"get nothing\r\nget b", "END\r\n", "REQUEST_PARTIAL"},
        {"me nothing\r\n", "EN\r\n", "META"},
        {"\x16\x03\x01", "", "TLS"},
        {"get nothing\r\nquit\r\n", "END\r\n",
         "QUIT"}, /* in one chunk: a reply is outstanding */
        {"watch\r\n", "OK\r\n", "TAKEOVER"},
        {"verbosity 0\r\n", "OK\r\n", "TAKEOVER"},
        {"bogus\r\n", "ERROR\r\n", "UNKNOWN_COMMAND"},
        {"get nothing\n", "END\r\n", "BAD_REQUEST"},
        {"set a 0 0 x\r\n", "", "BAD_REQUEST"},
        {"set word 0 0 3\r\nx y\r\n", "STORED\r\n", "MAYBE_AUTH"},
    };

    for (size_t i = 0; i < sizeof(dialogues) / sizeof(dialogues[0]); i++)
        say_and_close(server_port(), &dialogues[i]);
    cr_expect(log_count(": kept") == 0);
}

/* The reason is TLS whatever else was done to the connection: node calls shutdown(). */
Test(reasons_wire, encrypted_and_shut_down, .timeout = 20)
{
    static const char hello[] = "\x16\x03\x01\x02";
    int fd = dial_server();

    cr_assert(send(fd, hello, sizeof(hello) - 1, 0) == sizeof(hello) - 1);
    cr_expect(shutdown(fd, SHUT_WR) == 0);
    close(fd);
    EXPECT_NOT_KEPT("TLS");
    fd = dial_server();
    exchange(fd);
    cr_expect(shutdown(fd, SHUT_RD) == 0);
    close(fd);
    EXPECT_NOT_KEPT("SHUT_DOWN");
}

/* Clients put any flags and expiry into a `set` that is a login. */
Test(reasons_wire, login_of_another_form, .timeout = 20)
{
    int fd = dial_server();

    send_text(fd, "set _ _ _ 10\r\nbob secret\r\n");
    close(fd);
    EXPECT_NOT_KEPT("AUTH");
}

Test(reasons_wire, pipeline_too_deep, .timeout = 20)
{
    int fd = dial_server();

    for (int i = 0; i < 100; i++)
        send_text(fd, "get nothing\r\nversion\r\n");
    close(fd);
    EXPECT_NOT_KEPT("TOO_DEEP");
}

Test(reasons_wire, error_reply, .timeout = 20)
{
    say_and_close(scripted_server("SERVER_ERROR out of memory writing get response\r\n", 0),
                  &(struct dialogue){"get a\r\n",
                                     "SERVER_ERROR out of memory writing get response\r\n",
                                     "ERROR_REPLY"});
}

Test(reasons_wire, unexpected_reply, .timeout = 20)
{
    say_and_close(scripted_server("STORED\r\n", 0),
                  &(struct dialogue){"get a\r\n", "STORED\r\n", "UNEXPECTED_REPLY"});
}

Test(reasons_wire, unsolicited_bytes, .timeout = 20)
{
    say_and_close(scripted_server("END\r\nEND\r\n", 0),
                  &(struct dialogue){"get a\r\n", "END\r\nEND\r\n", "UNSOLICITED"});
}

Test(reasons_wire, authentication_asked_for, .timeout = 20)
{
    say_and_close(scripted_server("CLIENT_ERROR unauthenticated\r\n", 0),
                  &(struct dialogue){"get a\r\n", "CLIENT_ERROR unauthenticated\r\n", "AUTH"});
}

/* Returns a connection that may be logged in. What comes now is later by any clock. */
static int dial_suspect(void)
{
    int suspect = dial_server();

    send_text(suspect, "set word 0 0 3\r\nx y\r\n");
    expect_text(suspect, "STORED\r\n");
    usleep(60000);
    return suspect;
}

/* The server has answered another connection without a login since, so no client logs in. */
Test(reasons_wire, no_login_where_no_client_logs_in, .timeout = 20)
{
    int suspect = dial_suspect();

    park();
    close(suspect);
    EXPECT_KEPT();
    cr_expect_eq(log_count("MAYBE_AUTH"), 0);
}

/* What was shown before does not count: a server that asks for logins may have replaced this
 * one, which has ended the connections that it answered without one. */
Test(reasons_wire, a_login_where_none_was_asked_for_before, .timeout = 20)
{
    int earlier = dial_server(), idle, suspect;

    send_text(earlier, "get nothing\r\n");
    expect_text(earlier, "END\r\n");
    park();
    idle = dial_server(); /* reused, and unused */
    EXPECT_EVENT(": reused");
    suspect = dial_suspect();
    close(earlier);
    close(idle);
    close(suspect);
    EXPECT_EVENT(": not kept: MAYBE_AUTH");
}

Test(reasons_wire, what_is_kept, .timeout = 20)
{
    static const char *const dialogues[][2] = {
        {"get nothing\r\n", "END\r\n"},
        {"set a 0 0 1\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"},
        {"delete nothing noreply\r\nget nothing\r\n", "END\r\n"},
        {"mn\r\nset a 0 0 1 noreply\r\nx\r\nget nothing\r\n", "MN\r\nEND\r\n"},
        {"incr nothing 1\r\ntouch nothing 0\r\n", "NOT_FOUND\r\nNOT_FOUND\r\n"},
    };

    for (size_t i = 0; i < sizeof(dialogues) / sizeof(dialogues[0]); i++) {
        int fd = dial_server();

        send_text(fd, dialogues[i][0]);
        expect_text(fd, dialogues[i][1]);
        close(fd);
        EXPECT_KEPT();
    }
    cr_expect(log_count(": reused") == (int)(sizeof(dialogues) / sizeof(dialogues[0])) - 1);
}
