/*
 * Which thread is elected to do the work, and what becomes of the fds that it waits for.
 */
#include "conn/waiter.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/owner.h"
#include "conn/fdmap.h"
#include "conn/limits.h"

/* Longer than a thread may be late. */
#define LONG_AGO ((msec_t)5000)

static int ends[2];

static void start(void)
{
    owner_adopt();
    cr_assert(pipe(ends) == 0);
}

TestSuite(waiter, .init = start, .timeout = 20);

static struct waiter elected(msec_t until)
{
    struct waiter waiter;

    cr_assert(waiter_elect(&waiter, until));
    return waiter;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

/* Closes FD as the hook of close() does. */
static void close_hooked(int fd)
{
    waiter_closing(fd, fdmap_word(fd));
    fdmap_replace(fd, FDMAP_WAITED, FDMAP_NONE);
    close(fd);
}

Test(waiter, one_is_enough)
{
    struct waiter first = elected(clock_now() + 1000), other;

    cr_expect(!waiter_is_wanted(clock_now() + 1000));
    cr_expect(!waiter_elect(&other, clock_now() + 2000));
    waiter_leave(&first);
    cr_expect(waiter_count == 0);
    cr_expect(waiter_elect(&other, clock_now() + 2000));
}

Test(waiter, for_earlier_work_another_is_elected)
{
    struct waiter later = elected(clock_now() + 50000);
    struct waiter sooner = elected(clock_now() + 1000);

    cr_expect(!waiter_is_wanted(clock_now() + 1000));
    cr_expect(waiter_go_on(&sooner, clock_now() + 40000));
    cr_expect(!waiter_go_on(&later, clock_now() + 50000), "one comes back before");
    waiter_leave(&later);
    waiter_leave(&sooner);
    cr_expect(waiter_count == 0);
}

Test(waiter, one_that_is_late_is_replaced)
{
    struct waiter late = elected(clock_now() - LONG_AGO), other;

    cr_assert(waiter_watch(&late, ends[0]));
    other = elected(clock_now() + 1000);
    cr_expect(fdmap_is_plain(ends[0]));
    cr_expect(!waiter_go_on(&late, clock_now() + 500));
    waiter_leave(&late);
    cr_expect(!waiter_is_wanted(clock_now() + 1000), "the other one still has its seat");
    waiter_leave(&other);
    cr_expect(waiter_count == 0);
}

Test(waiter, in_its_last_piece_it_does_no_work)
{
    struct waiter last = elected(clock_now() + 1000), other;

    cr_expect(!waiter_go_on(&last, 0));
    cr_assert(waiter_is_wanted(clock_now() + 1000));
    other = elected(clock_now() + 1000);
    waiter_leave(&last);
    waiter_leave(&other);
    cr_expect(waiter_count == 0);
}

/* Only so many, as each close looks into all lists. */
Test(waiter, seats_are_few)
{
    struct waiter waiter;
    int count = 0;

    while (waiter_elect(&waiter, clock_now() + 100000 - 1000 * count))
        count++;
    cr_expect(count == 4);
}

Test(waiter, a_closed_fd_has_a_copy)
{
    struct waiter waiter = elected(clock_now() + 1000);
    struct waiter_closed closed[WAITER_CLOSED_MOST];
    char byte;

    cr_assert(waiter_watch(&waiter, ends[0]) && waiter_watch(&waiter, -1));
    cr_expect(fdmap_word(ends[0]) == FDMAP_WAITED);
    cr_expect(waiter_closed(&waiter, closed) == 0);
    close_hooked(ends[0]);
    cr_assert(waiter_closed(&waiter, closed) == 1 && closed[0].fd == ends[0]);
    cr_expect(fdmap_word(closed[0].copy) == FDMAP_COPY);
    cr_assert(write(ends[1], "x", 1) == 1);
    cr_expect(read(closed[0].copy, &byte, 1) == 1 && byte == 'x');
    waiter_leave(&waiter);
    cr_expect(!is_open(closed[0].copy) && fdmap_is_plain(closed[0].copy));
}

/* Once its last piece has begun for sure, the kernel has the file. */
Test(waiter, a_late_one_gets_no_copy)
{
    struct waiter waiter = elected(clock_now() - LONG_AGO);
    struct waiter_closed closed[WAITER_CLOSED_MOST];

    cr_assert(waiter_watch(&waiter, ends[0]));
    close_hooked(ends[0]);
    cr_expect(waiter_closed(&waiter, closed) == 0);
}

Test(waiter, an_fd_that_another_one_closed_is_none_of_its_own)
{
    struct waiter later = elected(clock_now() + 9000), sooner = elected(clock_now() + 1000);
    struct waiter_closed closed[WAITER_CLOSED_MOST];

    cr_assert(waiter_watch(&later, ends[0]) && waiter_watch(&sooner, ends[1]));
    close_hooked(ends[0]);
    cr_expect(waiter_closed(&later, closed) == 1 && waiter_closed(&sooner, closed) == 0);
}

/* A thread that leaves takes no mark that another one needs. */
Test(waiter, two_watch_one_fd)
{
    struct waiter later = elected(clock_now() + 9000), sooner = elected(clock_now() + 1000);
    struct waiter_closed closed[WAITER_CLOSED_MOST];

    cr_assert(waiter_watch(&later, ends[0]) && waiter_watch(&sooner, ends[0]));
    waiter_leave(&sooner);
    cr_expect(fdmap_word(ends[0]) == FDMAP_WAITED);
    close_hooked(ends[0]);
    cr_expect(waiter_closed(&later, closed) == 1);
    waiter_leave(&later);
    cr_expect(fdmap_is_plain(ends[0]));
}

Test(waiter, knows_that_an_fd_was_closed_unseen)
{
    struct waiter waiter = elected(clock_now() + 1000);
    struct waiter_closed closed[WAITER_CLOSED_MOST];

    cr_assert(waiter_watch(&waiter, ends[0]));
    waiter_closed_unseen(ends[1]);
    cr_expect(waiter_closed(&waiter, closed) == 0);
    waiter_closed_unseen(ends[0]);
    cr_expect(waiter_closed(&waiter, closed) == 1 && closed[0].copy == -1);
}

Test(waiter, of_many_closed_fds_some_are_remembered)
{
    enum { MANY = WAITER_CLOSED_MOST + 4 };
    struct waiter waiter = elected(clock_now() + 1000);
    struct waiter_closed closed[WAITER_CLOSED_MOST];
    int fds[MANY], end;

    for (int i = 0; i < MANY; i++) {
        fds[i] = dup(ends[0]);
        cr_assert(fds[i] >= 0 && waiter_watch(&waiter, fds[i]));
    }
    for (int i = 0; i < MANY; i++)
        close_hooked(fds[i]);
    cr_expect(waiter_closed(&waiter, closed) == WAITER_CLOSED_MOST);
    end = fdmap_end();
    waiter_leave(&waiter);
    for (int i = 0; i < WAITER_CLOSED_MOST; i++)
        cr_expect(!is_open(closed[i].copy));
    for (int fd = 0; fd < end; fd++)
        cr_expect(fdmap_word(fd) == FDMAP_NONE, "%d", fd);
}

Test(waiter, does_not_watch_too_many)
{
    struct waiter waiter = elected(clock_now() + 1000);

    cr_expect(!waiter_watch(&waiter, FDMAP_SIZE));
    for (int i = 0; i < WAITER_FDS_MOST; i++)
        cr_assert(waiter_watch(&waiter, 1000 + i));
    cr_expect(!waiter_watch(&waiter, 999));
}

static msec_t at_once;
static pthread_barrier_t barrier;

static void *try_to_be_elected(void *count)
{
    struct waiter waiter;

    pthread_barrier_wait(&barrier);
    if (waiter_elect(&waiter, at_once))
        atomic_fetch_add((_Atomic int *)count, 1);
    return NULL;
}

#define THREADS 8

Test(waiter, of_several_at_once_one_is_elected)
{
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int round = 0; round < 300; round++) {
        pthread_t threads[THREADS];
        _Atomic int count = 0;

        at_once = clock_now() + 60000;
        for (int i = 0; i < THREADS; i++)
            cr_assert(pthread_create(&threads[i], NULL, try_to_be_elected, (void *)&count) ==
                      0);
        for (int i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        cr_assert(count == 1, "%d", count);
        waiter_after_fork_in_child();
    }
}

Test(waiter, a_child_has_none)
{
    struct waiter waiter = elected(clock_now() + 1000);
    struct waiter_closed closed[WAITER_CLOSED_MOST];
    pid_t child;
    int status;

    cr_assert(waiter_watch(&waiter, ends[0]) && waiter_watch(&waiter, ends[1]));
    close_hooked(ends[0]);
    cr_assert(waiter_closed(&waiter, closed) == 1);
    child = fork();
    if (child == 0) {
        waiter_after_fork_in_child();
        _exit(is_open(closed[0].copy) || !fdmap_is_plain(ends[1]) ||
              !waiter_is_wanted(clock_now() + 1000) || waiter_count != 0);
    }
    waitpid(child, &status, 0);
    cr_expect(status == 0);
    cr_expect(is_open(closed[0].copy));
}
