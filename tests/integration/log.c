/*
 * What the log says of refusals: where the tracker gave up, without keys and values, and once a
 * second for each reason.
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void refuse(const char *request, const char *answer)
{
    int fd = dial_server();

    send_text(fd, request);
    if (answer[0] != '\0')
        expect_text(fd, answer);
    cr_expect(close(fd) == 0);
}

Test(places, of_requests, .timeout = 20)
{
    static const struct {
        const char *request;
        const char *place;
    } cases[] = {
        {"set secret 0 0 12x\r\n", "; at the request set, word 5: '12x'"},
        {"bogus secret\r\n", "; at the request, word 1: 'bogus'"},
        {"SECRET secret\r\n", "; at the request, word 1: 6 bytes"},
        {"set secret 0 0 9\r\nsecret",
         "; at the request set, 3 bytes before the end of its data"},
        {"get secret", "; at the request get, word 2: 6 bytes"},
        {"gat 10 secret-secret\n", "; at the request gat, word 2: 13 bytes"},
        {"watch secret\r\n", "; at the request watch, word 1: 'watch'"},
        {"mg secret v v\r\n", "; at the request mg, word 4: 'v'"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        refuse(cases[i].request, "");
        cr_expect(strstr(last_event(), cases[i].place) != NULL,
                  "expected '%s', the log says '%s'", cases[i].place, last_event());
    }
}

Test(places, of_replies, .timeout = 20)
{
    static const struct {
        const char *answer;
        const char *place;
    } cases[] = {
        {"SERVER_ERROR out of luck\r\n", "; at the reply, word 1: 'SERVER_ERROR out of luck'"},
        {"STORED\r\n", "; at the reply STORED, word 1: 6 bytes"},
        {"secret\r\n", "; at the reply, word 1: 6 bytes"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int fd = dial(scripted_server(cases[i].answer, 0));

        send_text(fd, "get secret\r\n");
        expect_text(fd, cases[i].answer);
        close(fd);
        cr_expect(strstr(last_event(), cases[i].place) != NULL,
                  "expected '%s', the log says '%s'", cases[i].place, last_event());
    }
    cr_expect(log_count("secret") == 0);
}

Test(places, of_packets, .timeout = 20)
{
    static const char packet[24] = "\x80\x7f";
    int fd = dial_server();

    cr_assert(send(fd, packet, sizeof(packet), 0) == sizeof(packet));
    close(fd);
    EXPECT_NOT_KEPT("UNKNOWN_COMMAND");
    EXPECT_EVENT("; at the binary request 127");
}

Test(rare, once_a_second_for_each_reason, .timeout = 20)
{
    for (int i = 0; i < 50; i++)
        refuse("get nothing\r\nget ", "END\r\n");
    refuse("bogus\r\n", "ERROR\r\n");
    cr_expect(log_count(": not kept: REQUEST_PARTIAL ") < 10);
    cr_expect(log_count(": not kept: UNKNOWN_COMMAND ") == 1);
    cr_expect(log_count(": kept") == 0 && log_count(": reused") == 0);
    sleep(2);
    refuse("get nothing\r\nget ", "END\r\n");
    cr_expect(log_count(" more like this before") >= 1);
}

Test(rare, a_child_begins_anew, .timeout = 20)
{
    pid_t child;

    refuse("get nothing\r\nget ", "END\r\n");
    refuse("get nothing\r\nget ", "END\r\n");
    child = fork();
    if (child == 0) {
        sleep(2);
        refuse("get nothing\r\nget ", "END\r\n");
        _exit(log_count(": not kept: REQUEST_PARTIAL ") == 1 && log_count("more like this") == 0
                  ? 0
                  : 1);
    }
    expect_good_end(child);
}

/* A write beyond this limit would raise SIGXFSZ. */
Test(places, limited_size_of_files, .timeout = 20)
{
    struct stat before, after;
    struct rlimit limit;

    park();
    cr_assert(stat(getenv("MCPOOL_LOG"), &before) == 0);
    limit.rlim_cur = limit.rlim_max = (rlim_t)before.st_size + 10;
    cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    close(dial_server());
    cr_assert(stat(getenv("MCPOOL_LOG"), &after) == 0);
    cr_expect(after.st_size == before.st_size);
}
