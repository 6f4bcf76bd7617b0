/*
 * What the log says of the bytes at which the wire tracker stopped. The tracker keeps the
 * beginning of a word, without a NUL behind it.
 */
#include "pool/report.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sanitizer/asan_interface.h>

#include <criterion/criterion.h>

#include "conn/endpoint.h"
#include "stats/log.h"

static struct config config = {.log_level = LOG_INFO};
static struct endpoint endpoint = {.text = "127.0.0.1:11211"};
static struct conn *conn;

static void set_up(void)
{
    int fd;

    strcpy(config.log_path, "/tmp/mcpool-unit-XXXXXX");
    fd = mkstemp(config.log_path);
    cr_assert(fd >= 0);
    close(fd);
    log_start(&config);
    cr_assert(conn_start());
    conn = conn_new(3, AF_INET);
    cr_assert(conn);
    conn->endpoint = &endpoint;
}

static void tear_down(void)
{
    unlink(config.log_path);
}

TestSuite(report, .init = set_up, .fini = tear_down);

/* What the log has, which is one line. */
static const char *logged(void)
{
    static char line[512];
    int fd = open(config.log_path, O_RDONLY);
    ssize_t n = read(fd, line, sizeof(line) - 1);

    close(fd);
    line[n < 0 ? 0 : n] = '\0';
    return line;
}

static void expect_logged(const char *end)
{
    const char *line = logged();
    size_t n = strlen(line), length = strlen(end);

    cr_expect(n >= length && strcmp(line + n - length, end) == 0, "%s", line);
}

/* Reports while no byte behind the text of the tracker may be read. */
static void report_with_poisoned_tail(enum reason reason, const void *tail)
{
    size_t n = (size_t)((const char *)(&conn->wire + 1) - (const char *)tail);

    ASAN_POISON_MEMORY_REGION(tail, n);
    report_refused(conn, reason);
    ASAN_UNPOISON_MEMORY_REGION(tail, n);
}

Test(report, reads_no_byte_behind_a_long_command)
{
    static const char request[] = "abcdefghijklmnopqrstuvwxyz\r\n";

    wire_sent(&conn->wire, request, sizeof(request) - 1);
    report_with_poisoned_tail(REASON_UNKNOWN_COMMAND, &conn->wire.reply);
    expect_logged("; at the request, word 1: 'abcdefghijklmnopqrstuv'\n");
}

Test(report, reads_no_byte_behind_a_long_error)
{
    static const char reply[] =
        "SERVER_ERROR 45678901234567890123456789012345678901234567890123456789 and more\r\n";

    wire_sent(&conn->wire, "get a\r\n", 7);
    wire_received(&conn->wire, reply, sizeof(reply) - 1);
    report_with_poisoned_tail(REASON_ERROR_REPLY, &conn->wire.queue);
    expect_logged("'SERVER_ERROR 456789012345678901234567890123456789012345678901234'\n");
}

/* A NUL is a byte like others, and ends nothing. */
Test(report, shows_bytes_that_are_not_printable_as_question_marks)
{
    static const char reply[] = "ERROR a\0b\x80\x7f\tc\r\n";

    wire_sent(&conn->wire, "get a\r\n", 7);
    wire_received(&conn->wire, reply, sizeof(reply) - 1);
    report_refused(conn, REASON_ERROR_REPLY);
    expect_logged("; at the reply, word 1: 'ERROR a?b???c'\n");
}
