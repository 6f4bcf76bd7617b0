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

/* malloc_trim(3) may give back memory that other libraries took before us. */
Test(usermem, heap_that_ends_below_where_it_was_found)
{
    static void *end;
    uintptr_t frame = (uintptr_t)__builtin_frame_address(0), from = 0x10000000;

    memory = (struct memory){.heap_from = from, .heap_end = &end};
    end = (void *)(from + 4096);
    cr_assert(usermem_certain(from + 8, frame));
    end = (void *)(from - 4096);
    cr_assert_not(usermem_certain(from + 8, frame));
    cr_assert_not(usermem_all_certain((void *)(from + 8), 8, frame));
    cr_assert_not(usermem_few_certain((void *)(from + 8), frame));
}

/* A page of each kind of memory, and the byte before and behind it. */
Test(usermem, memory_that_the_program_protects)
{
    static void *end;
    uintptr_t frame = (uintptr_t)__builtin_frame_address(0), top = frame + 65536;
    uintptr_t heap = (uintptr_t)sbrk(0) - 8192;
    const struct memory known = {.variables = {0x10000, 8192},
                                 .variables_few = 8192 - USERMEM_FEW,
                                 .heap_from = heap,
                                 .heap_end = &end,
                                 .stack_end = top};
    struct {
        uintptr_t from, size;
        bool variables, heap, stack; /* certainly readable then */
    } cases[] = {
        {0x8000, 0x8000, true, true, true},
        {0x12000, 4096, true, true, true},
        {0x11000, 4096, false, true, true},
        {0x8000, 0x8001, false, true, true},
        {heap - 4096, 4096, true, true, true},
        {heap + 4096, 4096, true, false, true},
        {frame + 4096, 4096, true, true, false},
        {top, 4096, true, true, true},
        {0x10000, UINTPTR_MAX - 0x10000, false, false, false},
    };

    end = sbrk(0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memory = known;
        usermem_note_unreadable((const void *)cases[i].from, cases[i].size);
        cr_expect_eq(usermem_certain(0x10008, frame), cases[i].variables, "%zu", i);
        cr_expect_eq(usermem_few_certain((void *)0x10008, frame), cases[i].variables);
        cr_expect_eq(usermem_certain(heap + 8, frame), cases[i].heap, "%zu", i);
        cr_expect_eq(usermem_certain(frame + 8, frame), cases[i].stack, "%zu", i);
    }
}
