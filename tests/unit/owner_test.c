/*
 * The count of the children that run in our memory.
 */
#include "base/owner.h"

#include <criterion/criterion.h>

Test(owner, counts_a_child_until_its_call_has_returned)
{
    owner_adopt();
    owner_sharer_begins();
    owner_sharer_begins();
    owner_sharer_made(false);
    cr_expect(atomic_load(&memory_sharers) == 1);
    owner_sharer_made(false);
    cr_expect(atomic_load(&memory_sharers) == 0);
}

Test(owner, leaves_a_child_that_stays_to_the_parent_of_a_fork)
{
    owner_adopt();
    owner_sharer_begins();
    owner_sharer_made(true);
    cr_expect(atomic_load(&memory_sharers) == 1);
    owner_adopt();
    cr_expect(atomic_load(&memory_sharers) == 0);
}

/* The child of a fork in a signal handler goes on in the vfork() that was interrupted. */
Test(owner, keeps_the_count_of_a_call_that_a_fork_interrupts)
{
    owner_adopt();
    owner_sharer_begins();
    owner_adopt();
    cr_expect(atomic_load(&memory_sharers) == 1);
    owner_sharer_made(false);
    cr_expect(atomic_load(&memory_sharers) == 0);
}
