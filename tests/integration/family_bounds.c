/*
 * The family: how many connections its queues hold.
 */
#include "harness.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "family.h"

TestSuite(family_bounds, .init = share_memory, .timeout = 60);

/* The process leaves the family and has one of its own. */
static void have_another_family(int ready)
{
    cr_assert(syscall(SYS_setuid, getuid()) == 0); /* which counts as a change */
    use_one();
    in_child(by_exit_now);
    cr_assert(count_queues() == QUEUES);
    cr_assert(poll(NULL, 0, 1200) == 0); /* the counters say so */
    cr_assert(write(ready, "", 1) == 1);
    pause();
}

/* As many programs of one user. */
static pid_t another_family(void)
{
    int ready[2];
    pid_t child;

    cr_assert(pipe(ready) == 0);
    child = start(have_another_family, ready[1]);
    cr_assert(read(ready[0], &(char){0}, 1) == 1);
    close(ready[0]);
    close(ready[1]);
    return child;
}

static int families;

#define AT_ONCE 30

/* Has many connections at the same time as others, until the pipe GO ends. */
static void give_many(int go)
{
    int fds[AT_ONCE];

    for (int i = 0; i < AT_ONCE; i++)
        ask(fds[i] = dial_server());
    __atomic_fetch_add(&told->result, 1, __ATOMIC_SEQ_CST);
    cr_assert(read(go, &(char){0}, 1) == 0);
    for (int i = 0; i < AT_ONCE; i++)
        close(fds[i]);
}

/* More than there is room for. */
static void let_many_give(void)
{
    pid_t children[3];
    int go[2];

    cr_assert(pipe(go) == 0);
    told->result = 0;
    for (int i = 0; i < 3; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            close(go[1]);
            give_many(go[0]);
            _exit(0);
        }
    }
    while (__atomic_load_n(&told->result, __ATOMIC_SEQ_CST) < 3)
        cr_assert(poll(NULL, 0, 20) == 0);
    close(go[1]);
    for (int i = 0; i < 3; i++)
        wait_for(children[i]);
    close(go[0]);
}

/* A sixteenth of 1,024, divided by the number of families. */
static void queues_are_bounded(void)
{
    unsigned int most = 1024 / 16 / (unsigned int)families, queued;
    pid_t others[16];

    for (int i = 1; i < families; i++)
        others[i] = another_family();
    in_child(give_one);
    cr_assert(poll(NULL, 0, 1200) == 0); /* this process looks after the queue */
    let_many_give();
    queued = count_queued();
    cr_expect(queued <= most && queued >= most / 2, "%u of %u", queued, most);
    for (int i = 1; i < families; i++)
        stop(others[i]);
}

Test(family_bounds, the_queues_of_one)
{
    families = 1;
    alone(queues_are_bounded);
}

Test(family_bounds, the_queues_of_four)
{
    families = 4;
    alone(queues_are_bounded);
}

Test(family_bounds, the_queues_of_sixteen)
{
    families = 16;
    alone(queues_are_bounded);
}

/* Shares, has nothing left, and blocks. Its short wait is a promise to look after the queues,
 * for a second. */
static void end_for_good_and_block(int listener)
{
    struct timespec longer = {1, 200000000};

    use_one();
    cr_assert(poll(NULL, 0, 50) == 0);
    end_for_good(dial_server());
    unseen(SYS_nanosleep, &longer, NULL);
    told->result = 1;
    accept(listener, NULL, NULL);
}

static void have_three_and_block(int listener)
{
    int fds[3];

    for (int i = 0; i < 3; i++)
        ask(fds[i] = dial_server());
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    told->result = 2;
    accept(listener, NULL, NULL);
}

/* Not in a call that looks after the queues. */
static void wait_unseen(int result)
{
    struct timespec moment = {0, 100000000};

    for (int i = 0; i < 100 && __atomic_load_n(&told->result, __ATOMIC_SEQ_CST) != result; i++)
        unseen(SYS_nanosleep, &moment, NULL);
    for (int i = 0; i < 3; i++)
        unseen(SYS_nanosleep, &moment, NULL);
}

/* A member that blocks counts as blocked, with or without connections. */
static void the_last_at_work_leaves_one(void)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    pid_t first, last;

    cr_assert(listen(listener, 1) == 0);
    told->result = 0;
    first = start(end_for_good_and_block, listener);
    wait_unseen(1);
    last = start(have_three_and_block, listener);
    wait_unseen(2);
    cr_expect(count_queued() == 1, "%u", count_queued());
    stop(first);
    stop(last);
}

Test(family_bounds, the_last_at_work_leaves_one)
{
    alone(the_last_at_work_leaves_one);
}

/* Has no counters, so it does not know how many families there are. */
static void use_one_uncounted(void)
{
    cr_assert(setrlimit(RLIMIT_FSIZE, &(struct rlimit){0, 0}) == 0);
    use_one();
}

/* It is killed, as in an orderly end the last process at work closes nearly all. */
static void look_after_queues_uncounted(void)
{
    use_one_uncounted();
    cr_assert(poll(NULL, 0, 4000) == 0);
    raise(SIGKILL);
}

static void a_count_holds(void)
{
    unsigned int before, after;
    pid_t child;

    in_child(give_one);
    cr_assert(poll(NULL, 0, 1200) == 0);
    let_many_give();
    before = count_queued();
    child = fork();
    if (child == 0)
        look_after_queues_uncounted();
    cr_assert(waitpid(child, NULL, 0) == child);
    after = count_queued();
    cr_expect(before >= 32 && after + 2 >= before, "%u, then %u", before, after);
}

Test(family_bounds, a_count_holds_for_a_member_that_cannot_count)
{
    alone(a_count_holds);
}

static void give_one_uncounted(void)
{
    use_one_uncounted();
    exit(0);
}

/* The first bursts of a service that has just started. */
static void the_first_count(void)
{
    unsigned int queued;

    in_child(give_one_uncounted);
    let_many_give();
    queued = count_queued();
    cr_expect(queued >= 32, "%u", queued);
}

Test(family_bounds, the_first_member_that_can_count_does_so_at_once)
{
    alone(the_first_count);
}
