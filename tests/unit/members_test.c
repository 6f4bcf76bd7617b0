/*
 * The list of members: what the threads of one process do to it at the same time.
 */
#include "pool/members.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include <criterion/criterion.h>

#define ROUNDS 20000

static struct members members;
static atomic_int arrived;

/* Waits until both threads have come here for the Nth time. Spins, so that both go on at the
 * same moment. */
static void meet(int n)
{
    atomic_fetch_add(&arrived, 1);
    for (int spins = 1; atomic_load(&arrived) < 2 * n; spins++) {
        if (spins % 10000 == 0)
            sched_yield();
    }
}

static int entries(void)
{
    int n = 0;

    for (int i = 0; i < MEMBERS_MOST; i++)
        n += members.list[i] != 0;
    return n;
}

static void *join_each_time(void *unused)
{
    for (int n = 1; n <= ROUNDS; n++) {
        meet(2 * n - 1);
        members_join(&members);
        meet(2 * n);
    }
    return unused;
}

/* A second entry would stay when the process leaves, and count as another member. */
Test(members, threads_that_join_at_once, .timeout = 20)
{
    pthread_t thread;
    int most = 0;

    cr_assert(pthread_create(&thread, NULL, join_each_time, NULL) == 0);
    for (int n = 1; n <= ROUNDS; n++) {
        meet(2 * n - 1);
        members_join(&members);
        meet(2 * n);
        if (entries() > most)
            most = entries();
        cr_expect(!members_others_work(&members), "round %d", n);
        members_leave(&members);
        for (int i = 0; i < MEMBERS_MOST; i++)
            members.list[i] = 0;
    }
    cr_assert(pthread_join(thread, NULL) == 0);
    cr_expect(most == 1, "%d entries", most);
}
