/*
 * Which memory of the program is known to be readable.
 */
#include "base/usermem.h"

#include <stdlib.h>
#include <unistd.h>

#include <criterion/criterion.h>

/* More variables than fit where the kernel has put them: libc moves them to the heap. */
static void move_environ(void)
{
    char **before = environ;

    cr_assert_eq(setenv("MCPOOL_TEST_MOVES", "environ", 1), 0);
    cr_assert_neq(environ, before);
}

Test(usermem, stack_ends_where_it_did_when_environ_was_moved)
{
    uintptr_t end;

    usermem_start();
    end = memory.stack_end;
    move_environ();
    usermem_start();
    cr_assert_eq(memory.stack_end, end);
}

Test(usermem, stack_ends_above_the_first_environ)
{
    uintptr_t variables = (uintptr_t)environ;

    usermem_start();
    cr_assert_geq(memory.stack_end, variables);
    cr_assert_lt(memory.stack_end - variables, MEMORY_STACK_MOST);
}

static char variables[2 * USERMEM_FEW];

/* The quick question never says yes where the exact one says no. */
Test(usermem, few_bytes)
{
    /* Not a variable's address: ASan may keep variables outside the stack. */
    uintptr_t frame = (uintptr_t)__builtin_frame_address(0), end;

    usermem_start();
    end = memory.variables.from + memory.variables.size;
    cr_assert(usermem_few_certain(variables, frame));
    cr_assert(usermem_few_certain((void *)frame, frame));
    cr_assert_not(usermem_few_certain((void *)(frame - 1), frame));
    for (uintptr_t at = end - 2 * USERMEM_FEW; at < end + 8; at++)
        cr_assert(!usermem_few_certain((void *)at, frame) ||
                  usermem_all_certain((void *)at, USERMEM_FEW, frame));
    cr_assert_not(usermem_few_certain((void *)(end - 1), frame));
    cr_assert_not(usermem_few_certain((void *)(memory.variables.from - 1), frame));
    cr_assert_not(usermem_few_certain((void *)(memory.stack_end - 1), frame));
    cr_assert_not(usermem_few_certain(NULL, frame));
}
