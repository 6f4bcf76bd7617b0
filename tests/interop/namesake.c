/*
 * Functions with the names of libaio's and liburing's that do something else, in a program or,
 * with -DPLUGIN, in a library.
 */
#include <stdio.h>

#define SHOWN __attribute__((visibility("default"), noinline))

SHOWN int io_submit(double what, const char *a, int b, int c, int d, int e, int f, int g)
{
    return printf("%g %s %d %d %d %d %d %d\n", what, a, b, c, d, e, f, g);
}

SHOWN const char *io_uring_queue_init(void)
{
    return "my own\n";
}

SHOWN int run(const char *port, const char *kind)
{
    (void)port;
    (void)kind;
    return io_submit(1.5, "a", 1, 2, 3, 4, 5, 6) != 18 ||
           fputs(io_uring_queue_init(), stdout) == EOF;
}

#ifndef PLUGIN
int main(void)
{
    return run(NULL, NULL);
}
#endif
