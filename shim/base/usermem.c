/*
 * Finds the memory of the program that is readable unless the program protects it: its
 * variables, its heap and the stack of its first thread.
 */
#include "base/usermem.h"

#include <link.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/lookup.h"

AT_START struct memory memory;

/* The first object that dl_iterate_phdr(3) lists is the program. Its writable segment stays
 * mapped as long as the program runs, unless it unmaps its own variables. All its pages exist:
 * the kernel fills those that are not in the file with zeros. Returns 1 to end the iteration.
 */
static int note_variables(struct dl_phdr_info *program, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    for (int i = 0; i < program->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &program->dlpi_phdr[i];

        if (segment->p_type == PT_LOAD && (segment->p_flags & (PF_R | PF_W)) == (PF_R | PF_W))
            memory.variables =
                (struct usermem_range){program->dlpi_addr + segment->p_vaddr, segment->p_memsz};
    }
    if (memory.variables.size > USERMEM_FEW)
        memory.variables_few = memory.variables.size - USERMEM_FEW;
    return 1;
}

/* The heap counts from its present end: where it began is not known. */
void usermem_start(void)
{
    void *heap = sbrk(0);

    dl_iterate_phdr(note_variables, NULL);
    if (heap != (void *)-1)
        memory.heap_from = (uintptr_t)heap;
    /* The kernel puts these bytes above the environment. A constructor that ran before us may
     * have moved `environ` to the heap, see setenv(3). */
    memory.stack_end = getauxval(AT_RANDOM);
}

/* Other threads may ask meanwhile. Each range ends by one store, after which nothing is in it.
 * heap_end stays: they may have found that it is there. */
void usermem_note_unreadable(const void *from, size_t size)
{
    uintptr_t at = (uintptr_t)from, heap_end = (uintptr_t)sbrk(0);

    if (usermem_overlap(at, size, memory.variables.from, memory.variables.size)) {
        __atomic_store_n(&memory.variables_few, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&memory.variables.size, 0, __ATOMIC_RELAXED);
    }
    if (heap_end > memory.heap_from &&
        usermem_overlap(at, size, memory.heap_from, heap_end - memory.heap_from))
        __atomic_store_n(&memory.heap_from, UINTPTR_MAX, __ATOMIC_RELAXED);
    if (usermem_overlap(at, size, memory.stack_end - MEMORY_STACK_MOST, MEMORY_STACK_MOST))
        __atomic_store_n(&memory.stack_end, 0, __ATOMIC_RELAXED);
}

void usermem_find_heap(void)
{
    if (memory.heap_from != 0)
        memory.heap_end = lookup_versioned("__curbrk", NULL);
}
