/*
 * A client that needs little: turns PORT, linked with tests/integration/plugin.c. Prints
 * whether it has privileges that its caller lacks, and whether the library is loaded.
 */
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

int speak(int port);

static int is_shim(struct dl_phdr_info *object, size_t size, void *argument)
{
    (void)size;
    (void)argument;
    return strstr(object->dlpi_name, "libmcpool.so") != NULL;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    for (int i = 0; i < 3; i++)
        if (speak(atoi(argv[1])) != 0)
            return 1;
    printf("secure %lu, shim %d\n", getauxval(AT_SECURE), dl_iterate_phdr(is_shim, NULL));
    return 0;
}
