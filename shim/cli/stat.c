/*
 * mcpool stat: prints the counters of all processes as a table or as JSON.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/families.h"
#include "cli/histogram.h"
#include "cli/missing.h"
#include "cli/proc.h"
#include "cli/processes.h"
#include "cli/text.h"

static void print_help(void)
{
    puts("usage: mcpool stat [--json] [--watch[=SECONDS]] [PID...]\n\n"
         "Shows what each process does with its connections to memcached: how many are in use\n"
         "and idle, how many calls of connect() got a pooled connection or a new one, what "
         "that\n"
         "saved, and why connections were not kept. With PID, shows only these processes.\n\n"
         "  --json             print one JSON object, for programs\n"
         "  --watch[=SECONDS]  print again every 2 seconds, or every SECONDS\n\n"
         "See mcpool-stat(1).");
}

/* The text of the bound of a bucket: "50 us", "2.5 ms", "10 s". Valid until the next call. */
static const char *bound_text(double seconds)
{
    static char text[32];
    double factor = seconds >= 1 ? 1 : seconds >= 1e-3 ? 1e3 : 1e6;

    snprintf(text, sizeof(text), "%g %s", seconds * factor,
             factor == 1    ? "s"
             : factor < 1e6 ? "ms"
                            : "us");
    return text;
}

static int server_width; /* the length of the longest name of a server */

/* LABEL is a pid or "total". */
static void print_row(const char *label, const char *server, const struct numbers *numbers)
{
    const uint64_t *stats = numbers->stats;

    printf("%8s  %-*s %6" PRIu64 " %5" PRIu64 " %9" PRIu64 " %9" PRIu64 " %7" PRIu64
           " %5.1f%% %7" PRIu64 " %8" PRIu64 " %9s %9" PRIu64 "\n",
           label, server_width, server, stats[STAT_in_use], stats[STAT_idle],
           stats[STAT_connects], stats[STAT_reused], stats[STAT_opened],
           numbers_hit_rate(numbers), stats[STAT_fences], stats[STAT_drained],
           text_duration(numbers->seconds_avoided), numbers->time_wait_avoided);
}

static void print_reasons(const char *what, const struct process *process,
                          const struct server *server, enum outcome outcome)
{
    struct reason_row row;

    for (size_t i = 0; process_next_reason(process, server, outcome, &i, &row);)
        printf("%10s%-11s %9" PRIu64 "  %s (%s)\n", "", what, row.number, row.name, row.text);
}

static void print_process(const struct process *process)
{
    char pid[16];

    snprintf(pid, sizeof(pid), "%d", process->pid);
    if (process->server_count == 0)
        print_row(pid, "-", &(struct numbers){0});
    for (size_t i = 0; i < process->server_count; i++) {
        const struct numbers *numbers = &process->servers[i].numbers;

        print_row(pid, process->servers[i].name, numbers);
        print_reasons("not kept", process, &process->servers[i], REFUSED);
        print_reasons("discarded", process, &process->servers[i], DISCARDED);
        if (numbers->stats[STAT_swapped] + numbers->stats[STAT_swap_failed] > 0)
            printf("%10sswapped before first use: %" PRIu64 ", failed %" PRIu64 "\n", "",
                   numbers->stats[STAT_swapped], numbers->stats[STAT_swap_failed]);
        if (numbers->stats[STAT_idle_limit_ms] > 0)
            printf("%10snot reused when idle for %.1f s: the server or a firewall ends them\n",
                   "", (double)numbers->stats[STAT_idle_limit_ms] / 1e3);
    }
}

/* "half within 50 us, 99 % within 2.5 ms" */
static void print_spread(const struct histogram *histogram, const struct numbers *total)
{
    static const struct {
        double share;
        const char *text;
    } shares[] = {{0.5, "half"}, {0.99, ", 99 %"}};

    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
        double bound = histogram_quantile(histogram, total->stats, shares[i].share);
        double longest = histogram_bound(histogram, histogram->count - 2);

        printf("%s %s %s", shares[i].text, bound <= longest ? "within" : "longer than",
               bound_text(bound <= longest ? bound : longest));
    }
}

/* What the connects of one service took, and for how long reused connections were idle. */
static void print_times(const struct numbers *total)
{
    const struct histogram *connects = &histograms[CONNECT_DURATION];
    const struct histogram *ages = &histograms[IDLE_AGE];
    uint64_t failed = total->stats[STAT_connect_failed];

    if (histogram_total(connects, total->stats) > 0) {
        fputs("  real connects: ", stdout);
        print_spread(connects, total);
        putchar('\n');
    }
    if (histogram_total(ages, total->stats) > 0) {
        fputs("  idle until reused: ", stdout);
        print_spread(ages, total);
        putchar('\n');
    }
    if (failed > 0)
        printf("  real connects that failed: %" PRIu64 "\n", failed);
}

static void print_if_any(const char *what, uint64_t n)
{
    if (n > 0)
        printf(", %s %" PRIu64, what, n);
}

/* What the families share whose first members are among the N processes at FIRST. */
static void print_families(const struct families *families, const struct process *first,
                           size_t n)
{
    for (size_t i = 0; i < families->count; i++) {
        const struct family *family = &families->list[i];

        if (family->first < first || family->first >= first + n)
            continue;
        printf("  family of %zu process%s: given %" PRIu64 ", taken %" PRIu64
               ", shared idle %" PRIu32,
               family->count, family->count == 1 ? "" : "es", family->given, family->taken,
               family->queued);
        print_if_any("not given, full", family->not_given_full);
        print_if_any("not given, alone", family->not_given_alone);
        print_if_any("not given, refused", family->not_given_refused);
        print_if_any("foreign", family->foreign);
        putchar('\n');
    }
}

/* Why some of the N processes at FIRST share nothing. */
static void print_unshared(const struct process *first, size_t n)
{
    for (enum share share = 0; share < SHARES; share++) {
        size_t count = 0;

        for (size_t i = 0; i < n; i++)
            count += first[i].share == share;
        if (count > 0 && share_is_notable(share))
            printf("  not shared by %zu process%s: %s (%s)\n", count, count == 1 ? "" : "es",
                   share_name(share), share_text(share));
    }
}

/* After an upgrade some of the N processes of a service may have the library of before. */
static void print_versions(const struct process *first, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t before = 0;

        while (before < i && strcmp(first[before].version, first[i].version) != 0)
            before++;
        if (before == i)
            printf(i == 0 ? "libmcpool %s" : ", %s", first[i].version);
    }
}

/* Prints the processes of one service and container that are all in the same mode. Returns how
 * many of the MOST processes at FIRST these were. */
static size_t print_service(const struct families *families, const struct process *first,
                            size_t most)
{
    struct numbers total = {0};
    bool dry = first->mode == MODE_DRY;
    size_t n = 1;

    while (n < most && strcmp(first[n].service, first->service) == 0 &&
           strcmp(first[n].container, first->container) == 0 && first[n].mode == first->mode)
        n++;
    printf("%s%s%s: %zu process%s, ", first->service, first->container[0] ? " in " : "",
           first->container, n, n == 1 ? "" : "es");
    print_versions(first, n);
    printf("%s\n", dry ? ", dry run: nothing was reused, the counters say what would have been"
                   : first->mode == MODE_OFF
                       ? ", switched off: connections are not pooled or counted"
                       : "");
    printf("%8s  %-*s %6s %5s %9s %9s %7s %6s %7s %8s %9s %9s\n", "PID", server_width, "SERVER",
           "IN USE", "IDLE", "CONNECTS", dry ? "WOULD BE" : "REUSED", "OPENED", "HITS",
           "FENCES", "DRAINED", "SAVED", "TIME-WAIT");
    for (size_t i = 0; i < n; i++) {
        print_process(&first[i]);
        for (size_t j = 0; j < first[i].server_count; j++)
            numbers_add(&total, &first[i].servers[j].numbers);
    }
    if (n > 1)
        print_row("total", "", &total);
    print_times(&total);
    print_families(families, first, n);
    print_unshared(first, n);
    return n;
}

static void find_width(const struct processes *processes)
{
    server_width = (int)strlen("SERVER");
    for (size_t i = 0; i < processes->count; i++) {
        for (size_t j = 0; j < processes->list[i].server_count; j++) {
            int n = (int)strlen(processes->list[i].servers[j].name);

            if (n > server_width)
                server_width = n;
        }
    }
}

static void print_table(const struct processes *processes, const struct families *families)
{
    find_width(processes);
    for (size_t i = 0; i < processes->count;) {
        if (i > 0)
            putchar('\n');
        i += print_service(families, &processes->list[i], processes->count - i);
    }
}

static void print_json_reasons(const char *what, const struct process *process,
                               const struct server *server, enum outcome outcome)
{
    const char *between = "";
    struct reason_row row;

    printf(", \"%s\": {", what);
    for (size_t i = 0; process_next_reason(process, server, outcome, &i, &row);) {
        printf("%s\"%s\": %" PRIu64, between, row.name, row.number);
        between = ", ";
    }
    putchar('}');
}

static void print_json_stats(const struct process *process, const struct server *server)
{
    for (int i = 0; i < STATS; i++) {
        if (process->has[i] && !stat_rows[i].is_bucket)
            printf(", \"%s\": %" PRIu64, stat_rows[i].name, server->numbers.stats[i]);
    }
    for (size_t i = 0; i < process->unknown_count; i++) {
        if (process->unknown[i].kind != VALUE_REASON)
            printf(", \"%s\": %" PRIu64, process->unknown[i].name, server->unknown[i].value);
    }
}

static void print_json_histogram(const struct server *server, const struct histogram *histogram)
{
    const uint64_t *stats = server->numbers.stats;

    printf(", \"%s\": {\"buckets\": {", histogram->name);
    for (size_t i = 0; i + 1 < histogram->count; i++)
        printf("\"%g\": %" PRIu64 ", ", histogram_bound(histogram, i),
               histogram_up_to(histogram, stats, i));
    printf("\"+Inf\": %" PRIu64 "}, \"sum\": %.6f, \"count\": %" PRIu64 "}",
           histogram_total(histogram, stats), (double)stats[histogram->sum] * histogram->unit,
           histogram_total(histogram, stats));
}

static void print_json_server(const struct process *process, const struct server *server)
{
    printf("{\"endpoint\": \"%s\"", server->name);
    print_json_stats(process, server);
    for (size_t i = 0; i < HISTOGRAMS; i++) {
        if (process->has[histograms[i].first])
            print_json_histogram(server, &histograms[i]);
    }
    printf(", \"hit_rate\": %.4f, \"connect_seconds_avoided\": %.6f, \"time_wait_avoided\": "
           "%" PRIu64,
           numbers_hit_rate(&server->numbers) / 100, server->numbers.seconds_avoided,
           server->numbers.time_wait_avoided);
    print_json_reasons("refused", process, server, REFUSED);
    print_json_reasons("discarded", process, server, DISCARDED);
    putchar('}');
}

static void print_json_share(const struct process *process)
{
    if (!process->tells_share)
        return;
    printf(", \"share\": \"%s\"", share_name(process->share));
    if (process->family != 0)
        printf(", \"family\": %" PRIu64, process->family);
}

static void print_json_families(const struct processes *processes,
                                const struct families *families)
{
    fputs("], \"families\": [", stdout);
    for (size_t i = 0; i < families->count; i++) {
        const struct family *family = &families->list[i];
        const char *between = "";

        printf("%s\n {\"family\": %" PRIu64 ", \"pids\": [", i > 0 ? "," : "",
               family->first->family);
        for (size_t j = 0; j < processes->count; j++) {
            if (!families_share(family->first, &processes->list[j]))
                continue;
            printf("%s%d", between, processes->list[j].pid);
            between = ", ";
        }
        printf("], \"given\": %" PRIu64 ", \"taken\": %" PRIu64 ", \"not_given_full\": %" PRIu64
               ", \"not_given_alone\": %" PRIu64 ", \"not_given_refused\": %" PRIu64
               ", \"foreign\": %" PRIu64 ", \"queued\": %" PRIu32 "}",
               family->given, family->taken, family->not_given_full, family->not_given_alone,
               family->not_given_refused, family->foreign, family->queued);
    }
    puts("]}");
}

static void print_json(const struct processes *processes, const struct families *families)
{
    printf("{\"processes\": [");
    for (size_t i = 0; i < processes->count; i++) {
        const struct process *process = &processes->list[i];

        printf("%s\n {\"pid\": %d, \"inner_pid\": %d, \"container\": \"%s\", \"command\": "
               "\"%s\", \"service\": \"%s\", \"version\": "
               "\"%s\", \"since\": %" PRId64 ", \"dry_run\": %s, \"mode\": \"%s\"",
               i > 0 ? "," : "", process->pid, process->inner_pid, process->container,
               process->command, process->service, process->version, process->since,
               process->mode == MODE_DRY ? "true" : "false", mode_names[process->mode]);
        print_json_share(process);
        fputs(", \"servers\": [", stdout);
        for (size_t j = 0; j < process->server_count; j++) {
            printf("%s\n  ", j > 0 ? "," : "");
            print_json_server(process, &process->servers[j]);
        }
        printf("]}");
    }
    print_json_families(processes, families);
}

static int show(const int *pids, size_t n, bool json)
{
    struct processes processes = processes_read(pids, n);
    struct families families = families_find(&processes);
    bool any = processes.count > 0;

    if (json)
        print_json(&processes, &families);
    else
        print_table(&processes, &families);
    families_free(&families);
    missing_tell(&processes, pids, n);
    processes_free(&processes);
    return flushed(any ? EXIT_SUCCESS : EXIT_NO);
}

/* Whether the processes were named, and all of them have ended. */
static bool have_ended(const int *pids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!proc_is_gone(pids[i]))
            return false;
    }
    return n > 0;
}

/* Repeats until a signal ends the command, its output cannot be written any more, or the named
 * processes have ended. */
static int watch(const int *pids, size_t n, bool json, double seconds)
{
    bool to_terminal = isatty(STDOUT_FILENO) && !json;

    while (true) {
        int code;

        /* What is said on stderr comes after it. */
        if (to_terminal) {
            fputs("\033[H\033[2J", stdout);
            fflush(stdout);
        }
        code = show(pids, n, json);
        if (ferror(stdout))
            return EXIT_FAILURE;
        if (have_ended(pids, n))
            return code;
        usleep((useconds_t)(seconds * 1e6));
    }
}

static bool parse_seconds(const char *text, double *seconds)
{
    char *end;

    *seconds = strtod(text, &end);
    return end != text && *end == '\0' && *seconds >= 0.01 && *seconds <= 3600;
}

int command_stat(int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"watch", optional_argument, NULL, 'w'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    double seconds = 0;
    bool json = false;
    int *pids;
    size_t n = 0;
    int option, code;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h')
            return print_help(), flushed(EXIT_SUCCESS);
        else if (option == 'j')
            json = true;
        else if (option != 'w' || !parse_seconds(optarg ? optarg : "2", &seconds))
            return usage_error("stat");
    }
    pids = calloc((size_t)argc, sizeof(*pids));
    if (!pids) {
        perror("mcpool");
        return EXIT_FAILURE;
    }
    for (; optind < argc; optind++) {
        if (!parse_pid(argv[optind], &pids[n++])) {
            free(pids);
            return bad_argument("stat", argv[optind], "a process ID");
        }
    }
    code = seconds > 0 ? watch(pids, n, json, seconds) : show(pids, n, json);
    free(pids);
    return code;
}
