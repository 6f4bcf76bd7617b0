/*
 * Finding the program's variables, heap and first stack.
 */
#include "base/usermem.h"

#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

struct memory memory;

/* The first object listed is the program (dl_iterate_phdr(3)). What is written to at run time
 * is never given back, and all of its pages are there: the kernel zeroes what is not in the
 * file. */
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
    return 1;
}

/* What of the heap is there already stays in doubt: nobody has told where it began. */
void usermem_start(void)
{
    void *heap = sbrk(0);

    dl_iterate_phdr(note_variables, NULL);
    if (heap != (void *)-1) {
        memory.heap_from = (uintptr_t)heap;
        memory.heap_end = dlsym(RTLD_DEFAULT, "__curbrk");
    }
    memory.stack_end = (uintptr_t)environ;
}
