/*
 * mcpool metrics: prints the counters of all processes in the text format of Prometheus, writes
 * them to a file for node_exporter's textfile collector, or serves them over HTTP.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/processes.h"

static void print_help(void)
{
    puts("usage: mcpool metrics [--output FILE | --listen [ADDRESS:]PORT]\n\n"
         "Prints the counters of all processes for Prometheus.\n\n"
         "  --output FILE            replace FILE with them at once; for the textfile\n"
         "                           collector of node_exporter, whose files end in .prom\n"
         "  --listen [ADDRESS:]PORT  serve them over HTTP; ADDRESS is 127.0.0.1 by default\n\n"
         "See mcpool-metrics(1).");
}

static void head(FILE *to, const char *name, const char *type, const char *help)
{
    fprintf(to, "# HELP mcpool_%s %s\n# TYPE mcpool_%s %s\n", name, help, name, type);
}

/* Prints the beginning of a sample: its name and labels, with REASON if it is not NULL. */
static void sample(FILE *to, const char *name, const struct process *process,
                   const struct server *server, const char *reason)
{
    fprintf(to, "mcpool_%s{pid=\"%d\",command=\"%s\",service=\"%s\",endpoint=\"%s\"", name,
            process->pid, process->command, process->service, server->name);
    if (reason)
        fprintf(to, ",reason=\"%s\"", reason);
    fputs("} ", to);
}

#define FOR_EACH_SERVER(processes, process, server)                                            \
    for (const struct process *process = (processes)->list;                                    \
         process < (processes)->list + (processes)->count; process++)                          \
        for (const struct server *server = process->servers;                                   \
             server < process->servers + process->server_count; server++)

/* Prometheus wants times in seconds. */
static void print_stat(FILE *to, const struct processes *processes, enum stat_index stat)
{
    const struct stat_row *row = &stat_rows[stat];
    char name[64];

    if (stat == STAT_connect_us) {
        head(to, "connect_seconds_total", "counter", "seconds these took");
        FOR_EACH_SERVER(processes, process, server)
        {
            if (!process->has[stat])
                continue;
            sample(to, "connect_seconds_total", process, server, NULL);
            fprintf(to, "%.6f\n", (double)server->numbers.stats[stat] / 1e6);
        }
        return;
    }
    snprintf(name, sizeof(name), "%s%s", row->name, row->is_gauge ? "" : "_total");
    head(to, name, row->is_gauge ? "gauge" : "counter", row->text);
    FOR_EACH_SERVER(processes, process, server)
    {
        if (!process->has[stat])
            continue;
        sample(to, name, process, server, NULL);
        fprintf(to, "%" PRIu64 "\n", server->numbers.stats[stat]);
    }
}

/* A statistic of one process that this version does not know. */
struct unknown_stat {
    const struct process *process;
    size_t index; /* in process->unknown */
    const struct value *value;
};

static int compare_kinds(const void *a, const void *b)
{
    const struct value *one = ((const struct unknown_stat *)a)->value;
    const struct value *other = ((const struct unknown_stat *)b)->value;
    int order = strcmp(one->name, other->name);

    return order ? order : (int)one->kind - (int)other->kind;
}

static int compare_unknown(const void *a, const void *b)
{
    const struct process *one = ((const struct unknown_stat *)a)->process;
    const struct process *other = ((const struct unknown_stat *)b)->process;
    int order = compare_kinds(a, b);

    return order ? order : (one > other) - (one < other);
}

/* Fills FOUND, which must have room for all unknown values. Returns how many it has. Those of
 * the same name and kind are in a row, as the format requires. */
static size_t find_unknown(const struct processes *processes, struct unknown_stat *found)
{
    size_t n = 0;

    for (size_t i = 0; i < processes->count; i++) {
        const struct process *process = &processes->list[i];

        for (size_t j = 0; j < process->unknown_count; j++) {
            if (process->unknown[j].kind != VALUE_REASON)
                found[n++] = (struct unknown_stat){process, j, &process->unknown[j]};
        }
    }
    qsort(found, n, sizeof(*found), compare_unknown);
    return n;
}

static void print_unknown_stat(FILE *to, const struct unknown_stat *stat, bool is_first)
{
    bool is_gauge = stat->value->kind == VALUE_GAUGE;
    char name[VALUE_NAME_SIZE + 8];

    snprintf(name, sizeof(name), "%s%s", stat->value->name, is_gauge ? "" : "_total");
    if (is_first)
        head(to, name, is_gauge ? "gauge" : "counter", "unknown to this version of mcpool");
    for (size_t i = 0; i < stat->process->server_count; i++) {
        const struct server *server = &stat->process->servers[i];

        sample(to, name, stat->process, server, NULL);
        fprintf(to, "%" PRIu64 "\n", server->unknown[stat->index].value);
    }
}

static void print_unknown_stats(FILE *to, const struct processes *processes)
{
    struct unknown_stat *found;
    size_t n = 1;

    for (size_t i = 0; i < processes->count; i++)
        n += processes->list[i].unknown_count;
    found = calloc(n, sizeof(*found));
    if (!found)
        return;
    n = find_unknown(processes, found);
    for (size_t i = 0; i < n; i++)
        print_unknown_stat(to, &found[i],
                           i == 0 || compare_kinds(&found[i - 1], &found[i]) != 0);
    free(found);
}

static void print_reasons(FILE *to, const char *name, const struct processes *processes,
                          enum outcome outcome)
{
    struct reason_row row;

    FOR_EACH_SERVER(processes, process, server)
    {
        for (size_t i = 0; process_next_reason(process, server, outcome, &i, &row);) {
            sample(to, name, process, server, row.name);
            fprintf(to, "%" PRIu64 "\n", row.number);
        }
    }
}

static void print_metrics(FILE *to, const struct processes *processes)
{
    head(to, "process_info", "gauge", "a process with the library");
    for (size_t i = 0; i < processes->count; i++) {
        const struct process *process = &processes->list[i];

        fprintf(to,
                "mcpool_process_info{pid=\"%d\",command=\"%s\",service=\"%s\",version=\"%s\","
                "dry_run=\"%s\",mode=\"%s\"} 1\n",
                process->pid, process->command, process->service, process->version,
                process->mode == MODE_DRY ? "true" : "false", mode_names[process->mode]);
    }
    for (int i = 0; i < STATS; i++)
        print_stat(to, processes, (enum stat_index)i);
    print_unknown_stats(to, processes);
    head(to, "connect_seconds_avoided_total", "counter",
         "seconds saved: a mean real connect for each reuse");
    FOR_EACH_SERVER(processes, process, server)
    {
        sample(to, "connect_seconds_avoided_total", process, server, NULL);
        fprintf(to, "%.6f\n", server->numbers.seconds_avoided);
    }
    head(to, "time_wait_avoided_total", "counter", "ports that did not go to TIME_WAIT");
    FOR_EACH_SERVER(processes, process, server)
    {
        sample(to, "time_wait_avoided_total", process, server, NULL);
        fprintf(to, "%" PRIu64 "\n", server->numbers.time_wait_avoided);
    }
    head(to, "refused_total", "counter", "connections not kept at close()");
    print_reasons(to, "refused_total", processes, REFUSED);
    head(to, "discarded_total", "counter", "connections kept, and closed later without reuse");
    print_reasons(to, "discarded_total", processes, DISCARDED);
}

static void print_now(FILE *to)
{
    struct processes processes = processes_read(NULL, 0);

    print_metrics(to, &processes);
    processes_free(&processes);
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
    FILE *file;
    int fd;

    if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
        return failed(path);
    fd = mkstemp(temporary);
    file = fd < 0 ? NULL : fdopen(fd, "w");
    if (!file) {
        free(temporary);
        return failed(path);
    }
    print_now(file);
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

/*
 * The HTTP server: one thread that never waits for one client.
 */

#define CLIENTS      64
#define REQUEST_SIZE 4096
#define PATIENCE     10 /* seconds until a client is dropped */

struct client {
    char request[REQUEST_SIZE];
    size_t request_size;
    char *answer; /* NULL while the request is being read */
    size_t answer_size;
    size_t answered;
    time_t until;    /* when it is dropped, in seconds of CLOCK_MONOTONIC */
    uint64_t number; /* clients that came later have higher ones */
};

/* Entry 0 is the listening socket, the others are clients; -1: no client. */
static struct pollfd polled[1 + CLIENTS];
static struct client clients[1 + CLIENTS];

static time_t seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static void drop(size_t i)
{
    close(polled[i].fd);
    polled[i].fd = -1;
    free(clients[i].answer);
    clients[i] = (struct client){0};
}

/* A place for a new client: a free one, else that of the oldest client that has not asked yet,
 * which is dropped. So clients that never ask do not lock out others. 0 when all have asked. */
static size_t find_place(void)
{
    size_t oldest = 0;

    for (size_t i = 1; i <= CLIENTS; i++) {
        if (polled[i].fd < 0)
            return i;
        if (!clients[i].answer && (oldest == 0 || clients[i].number < clients[oldest].number))
            oldest = i;
    }
    if (oldest > 0)
        drop(oldest);
    return oldest;
}

static void add_client(int fd)
{
    static uint64_t number;
    size_t i = find_place();

    if (i == 0) {
        close(fd);
        return;
    }
    polled[i] = (struct pollfd){.fd = fd, .events = POLLIN};
    clients[i].until = seconds_now() + PATIENCE;
    clients[i].number = number++;
}

static bool asks_for(const char *request, const char *path)
{
    size_t n = strlen(path);

    return (strncmp(request, "GET ", 4) == 0 && strncmp(request + 4, path, n) == 0 &&
            strchr(" ?", request[4 + n])) ||
           (strncmp(request, "HEAD ", 5) == 0 && strncmp(request + 5, path, n) == 0 &&
            strchr(" ?", request[5 + n]));
}

static void answer(struct client *client)
{
    FILE *body, *whole;
    char *text = NULL;
    size_t n = 0;
    bool found = asks_for(client->request, "/metrics");

    body = open_memstream(&text, &n);
    whole = open_memstream(&client->answer, &client->answer_size);
    if (body && found)
        print_now(body);
    else if (body)
        fputs("The metrics are at /metrics.\n", body);
    if (body)
        fclose(body);
    if (whole) {
        fprintf(whole,
                "HTTP/1.0 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                "Content-Length: %zu\r\nConnection: close\r\n\r\n",
                found ? "200 OK" : "404 Not Found", n);
        if (text && strncmp(client->request, "HEAD ", 5) != 0)
            fwrite(text, 1, n, whole);
        fclose(whole);
    }
    free(text);
}

static void read_request(size_t i)
{
    struct client *client = &clients[i];
    ssize_t n = recv(polled[i].fd, client->request + client->request_size,
                     REQUEST_SIZE - 1 - client->request_size, 0);

    if (n <= 0) {
        drop(i);
        return;
    }
    client->request_size += (size_t)n;
    client->request[client->request_size] = '\0';
    if (!strstr(client->request, "\r\n\r\n") && !strstr(client->request, "\n\n")) {
        if (client->request_size == REQUEST_SIZE - 1)
            drop(i);
        return;
    }
    answer(client);
    polled[i].events = POLLOUT;
}

static void write_answer(size_t i)
{
    struct client *client = &clients[i];
    ssize_t n = -1;

    if (client->answer)
        n = send(polled[i].fd, client->answer + client->answered,
                 client->answer_size - client->answered, MSG_NOSIGNAL);
    if (n > 0)
        client->answered += (size_t)n;
    if (n <= 0 || client->answered == client->answer_size)
        drop(i);
}

static void serve_client(size_t i, time_t now)
{
    if (polled[i].fd < 0)
        return;
    if (now > clients[i].until)
        drop(i);
    else if (polled[i].revents & POLLIN && polled[i].events & POLLIN)
        read_request(i);
    else if (polled[i].revents & POLLOUT)
        write_answer(i);
    else if (polled[i].revents)
        drop(i);
}

static int serve(int listening)
{
    polled[0] = (struct pollfd){.fd = listening, .events = POLLIN};
    for (size_t i = 1; i <= CLIENTS; i++)
        polled[i].fd = -1;
    while (true) {
        if (poll(polled, 1 + CLIENTS, 1000) < 0 && errno != EINTR)
            return failed("poll");
        /* Before a new client may take a place: these may have asked by now. */
        for (size_t i = 1; i <= CLIENTS; i++)
            serve_client(i, seconds_now());
        if (polled[0].revents & POLLIN) {
            int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

            if (fd >= 0)
                add_client(fd);
        }
    }
}

/* Listens at WHERE, which is [ADDRESS:]PORT, with an IPv6 address in brackets. Returns the fd;
 * -1, with errno, on failure. */
static int listen_at(const char *where)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found;
    char address[64] = "127.0.0.1";
    const char *colon = strrchr(where, ':');
    const char *port = colon ? colon + 1 : where;
    size_t n = colon ? (size_t)(colon - where) : 0;
    int one = 1;
    int fd;

    if (n > 1 && where[0] == '[' && where[n - 1] == ']') {
        where++;
        n -= 2;
    }
    if (n >= sizeof(address) || !*port)
        return -1;
    if (n > 0)
        snprintf(address, sizeof(address), "%.*s", (int)n, where);
    errno = EINVAL;
    if (getaddrinfo(address, port, &hints, &found) != 0)
        return -1;
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
                    bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 64) != 0)) {
        int error = errno;

        close(fd);
        errno = error;
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
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
        fd = listen_at(where);
        return fd < 0 ? failed(where) : serve(fd);
    }
    print_now(stdout);
    return flushed(EXIT_SUCCESS);
}
