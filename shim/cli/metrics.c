/*
 * mcpool metrics: prints the counters of all processes for Prometheus, writes them to a file
 * for node_exporter's textfile collector, or serves them over HTTP.
 */
#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/exporter.h"
#include "cli/exposition.h"

static void print_help(void)
{
    puts("usage: mcpool metrics [--output FILE | --listen [ADDRESS:]PORT]\n\n"
         "Prints the counters of all processes for Prometheus.\n\n"
         "  --output FILE            replace FILE with them at once; for the textfile\n"
         "                           collector of node_exporter, whose files end in .prom\n"
         "  --listen [ADDRESS:]PORT  serve them over HTTP; ADDRESS is 127.0.0.1 by default\n\n"
         "See mcpool-metrics(1).");
}

static int failed(const char *what)
{
    fprintf(stderr, "mcpool: %s: %s\n", what, strerror(errno));
    return EXIT_FAILURE;
}

/* Writes a temporary file and renames it, so that the collector never sees half a file. */
static int write_file(const char *path)
{
    char *temporary;
    struct stat found;
    FILE *file;
    int fd;

    /* It would be replaced, and other programs use a device or a FIFO. */
    if (lstat(path, &found) == 0 && !S_ISREG(found.st_mode)) {
        fprintf(stderr, "mcpool: %s: not a regular file\n", path);
        return EXIT_FAILURE;
    }
    if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
        return failed(path);
    fd = mkstemp(temporary);
    file = fd < 0 ? NULL : fdopen(fd, "w");
    if (!file) {
        free(temporary);
        return failed(path);
    }
    exposition_print(file);
    fchmod(fd, 0644);
    if (fflush(file) != 0 || ferror(file) || fclose(file) != 0 ||
        rename(temporary, path) != 0) {
        int error = errno;

        unlink(temporary);
        free(temporary);
        errno = error;
        return failed(path);
    }
    free(temporary);
    return EXIT_SUCCESS;
}

/* Whether WHERE, which is [ADDRESS:]PORT, ends in a number from 1 to 65535. Says so if not:
 * getaddrinfo() would take 99999 for 34463. */
static bool has_port(const char *where)
{
    const char *colon = strrchr(where, ':');
    const char *port = colon ? colon + 1 : where;
    size_t digits = strspn(port, "0123456789");
    unsigned long number = strtoul(port, NULL, 10);

    if (digits > 0 && port[digits] == '\0' && number > 0 && number <= UINT16_MAX)
        return true;
    fprintf(stderr, "mcpool: --listen %s: the port must be a number from 1 to 65535\n", where);
    return false;
}

int command_metrics(int argc, char **argv)
{
    static const struct option options[] = {{"output", required_argument, NULL, 'o'},
                                            {"listen", required_argument, NULL, 'l'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const char *output = NULL, *where = NULL;
    int option, fd;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h')
            return print_help(), flushed(EXIT_SUCCESS);
        else if (option == 'o')
            output = optarg;
        else if (option == 'l')
            where = optarg;
        else
            return usage_error("metrics");
    }
    if (optind < argc || (output && where) || (where && !has_port(where)))
        return usage_error("metrics");
    if (output)
        return write_file(output);
    if (where) {
        fd = exporter_listen(where);
        return fd < 0 ? failed(where) : exporter_serve(fd);
    }
    exposition_print(stdout);
    return flushed(EXIT_SUCCESS);
}
