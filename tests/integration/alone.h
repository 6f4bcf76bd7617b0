/*
 * Tests that run in a child, whose exit code is the result. Criterion's process has threads of
 * its own that wait and wake up, and its checks do so too, so they do not work in a child: here
 * are others of the same names. Include this last.
 */
#ifndef MCPOOL_TEST_ALONE_H
#define MCPOOL_TEST_ALONE_H

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "harness.h"

static int failures;

#define SAY_FAILED(condition, ...)                                                             \
    (fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition),                           \
     fprintf(stderr, " " __VA_ARGS__), fprintf(stderr, "\n"))
#undef cr_assert
#define cr_assert(condition, ...)                                                              \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            SAY_FAILED(condition, __VA_ARGS__);                                                \
            _exit(1);                                                                          \
        }                                                                                      \
    } while (0)
#undef cr_expect
#define cr_expect(condition, ...)                                                              \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            SAY_FAILED(condition, __VA_ARGS__);                                                \
            failures++;                                                                        \
        }                                                                                      \
    } while (0)

/* For tests that check something in their own process: the .fini of their suite. */
static inline void fail_if_any_failed(void)
{
    if (failures > 0)
        _exit(1);
}

/* Runs BODY in a child. */
static inline void alone(void (*body)(void))
{
    pid_t child = fork();

    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* the parent may come to the end of its time */
        body();
        _exit(failures > 0);
    }
    expect_good_end(child);
}

#endif
