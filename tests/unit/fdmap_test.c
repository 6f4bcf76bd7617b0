/*
 * The fd map: its bounds, its changes, and two threads that change the same word.
 */
#include "conn/fdmap.h"

#include <limits.h>
#include <pthread.h>
#include <stddef.h>

#include <criterion/criterion.h>

Test(fdmap, bounds)
{
    cr_expect(fdmap_is_plain(-1) && fdmap_is_plain(FDMAP_SIZE));
    cr_expect(fdmap_is_plain(INT_MAX) && fdmap_is_plain(INT_MIN));
    cr_expect(fdmap_get(-1) == FDMAP_NONE && fdmap_get(FDMAP_SIZE) == FDMAP_NONE);
    cr_expect(fdmap_get(INT_MAX) == FDMAP_NONE && fdmap_get(INT_MIN) == FDMAP_NONE);
    cr_expect(fdmap_is_plain(FDMAP_SIZE - 1));
    cr_expect(fdmap_exchange(FDMAP_SIZE - 1, 5) == FDMAP_NONE);
    cr_expect(!fdmap_is_plain(FDMAP_SIZE - 1) && fdmap_get(FDMAP_SIZE - 1) == 5);
    cr_expect(fdmap_end() == FDMAP_SIZE);
    cr_expect(fdmap_is_plain(0) && fdmap_is_plain(FDMAP_SIZE - 2));
}

Test(fdmap, replace_needs_what_it_expects)
{
    cr_expect(fdmap_end() == 0);
    cr_expect(fdmap_replace(9, FDMAP_NONE, 1) && fdmap_end() == 10);
    cr_expect(!fdmap_replace(9, FDMAP_NONE, 2) && fdmap_get(9) == 1);
    cr_expect(!fdmap_replace(9, 1 | FDMAP_CLOSING, 2) && fdmap_get(9) == 1, "marks count");
    cr_expect(fdmap_exchange(9, FDMAP_NONE) == 1 && fdmap_is_plain(9));
}

/* A bound for walks: it may be too high but never too low. */
Test(fdmap, end_only_grows)
{
    fdmap_exchange(9, 1);
    fdmap_exchange(20, FDMAP_NONE);
    cr_expect(fdmap_end() == 10, "emptying a word is no use of it");
    fdmap_exchange(9, FDMAP_NONE);
    fdmap_exchange(3, 1);
    cr_expect(fdmap_end() == 10);
    fdmap_replace(10, FDMAP_NONE, 1);
    cr_expect(fdmap_end() == 11);
}

Test(fdmap, marks_and_index_are_apart)
{
    cr_expect((FDMAP_INDEX & (FDMAP_CLOSING | FDMAP_SHADOW | FDMAP_EPOLL)) == 0);
    cr_expect((FDMAP_CLOSING & FDMAP_SHADOW) == 0 && (FDMAP_SHADOW & FDMAP_EPOLL) == 0);
}

#define ROUNDS 100000

static void *add(void *argument)
{
    int *ends = argument;

    for (int i = 0; i < ROUNDS; i++) {
        uint32_t value;

        do {
            value = fdmap_get(5);
        } while (!fdmap_replace(5, value, value + 1));
        fdmap_replace(1000 + i % 1000, FDMAP_NONE, 1);
        if (fdmap_end() <= 1000 + i % 1000)
            *ends = fdmap_end();
    }
    return NULL;
}

Test(fdmap, two_threads_lose_no_change)
{
    pthread_t threads[2];
    int ends[2] = {0};

    for (size_t i = 0; i < 2; i++)
        cr_assert(pthread_create(&threads[i], NULL, add, &ends[i]) == 0);
    for (size_t i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    cr_expect(fdmap_get(5) == 2 * ROUNDS);
    cr_expect(ends[0] == 0 && ends[1] == 0, "an end of %d, %d", ends[0], ends[1]);
    cr_expect(fdmap_end() == 2000);
}

static void *pass_on(void *argument)
{
    uint32_t mine = *(uint32_t *)argument;

    for (int i = 0; i < 10 * ROUNDS; i++)
        mine = fdmap_exchange(7, mine);
    *(uint32_t *)argument = mine;
    return NULL;
}

/* Each value that is put in comes out once: no two threads get the same one. */
Test(fdmap, exchange_copies_nothing)
{
    pthread_t threads[2];
    uint32_t values[2] = {1, 2};

    fdmap_exchange(7, 4);
    for (size_t i = 0; i < 2; i++)
        cr_assert(pthread_create(&threads[i], NULL, pass_on, &values[i]) == 0);
    for (size_t i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    cr_expect((values[0] | values[1] | fdmap_get(7)) == 7);
}
