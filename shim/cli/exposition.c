/*
 * The text format of Prometheus.
 */
#include "cli/exposition.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/families.h"
#include "cli/histogram.h"
#include "cli/processes.h"

static void head(FILE *to, const char *name, const char *type, const char *help)
{
    fprintf(to, "# HELP mcpool_%s %s\n# TYPE mcpool_%s %s\n", name, help, name, type);
}

#define NO_LABEL NULL, NULL

static void print_container(FILE *to, const struct process *process)
{
    if (process->container[0])
        fprintf(to, ",container=\"%s\"", process->container);
}

/* Prints the beginning of a sample: its name and labels, with LABEL if it is not NULL. */
static void sample(FILE *to, const char *name, const struct process *process,
                   const struct server *server, const char *label, const char *value)
{
    fprintf(to, "mcpool_%s{pid=\"%d\",command=\"%s\",service=\"%s\",endpoint=\"%s\"", name,
            process->pid, process->command, process->service, server->name);
    print_container(to, process);
    if (label)
        fprintf(to, ",%s=\"%s\"", label, value);
    fputs("} ", to);
}

#define FOR_EACH_SERVER(processes, process, server)                                            \
    for (const struct process *process = (processes)->list;                                    \
         process < (processes)->list + (processes)->count; process++)                          \
        for (const struct server *server = process->servers;                                   \
             server < process->servers + process->server_count; server++)

/* How a row of stats.def is shown: Prometheus wants times in seconds. */
struct shown {
    char name[64];
    const char *type;
    const char *help;
    double unit;
};

static struct shown shown_as(enum stat_index stat)
{
    static const struct {
        enum stat_index stat;
        const char *name;
        const char *help;
        double unit;
    } times[] = {
        {STAT_connect_us, "connect_seconds", "seconds these took", 1e-6},
        {STAT_usual_connect_us, "usual_connect_seconds",
         "seconds a real connect usually takes, a running median", 1e-6},
        {STAT_connect_us_avoided, "connect_seconds_avoided",
         "seconds saved: for each reuse, the usual connect at that moment", 1e-6},
        {STAT_idle_limit_ms, "idle_limit_seconds",
         "seconds after which an idle connection is not reused, as learned; 0: not learned",
         1e-3},
    };
    const struct stat_row *row = &stat_rows[stat];
    const char *total = row->is_gauge ? "" : "_total";
    struct shown shown = {.type = row->is_gauge ? "gauge" : "counter", .help = row->text};

    snprintf(shown.name, sizeof(shown.name), "%s%s", row->name, total);
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        if (times[i].stat != stat)
            continue;
        snprintf(shown.name, sizeof(shown.name), "%s%s", times[i].name, total);
        shown.help = times[i].help;
        shown.unit = times[i].unit;
    }
    return shown;
}

static void print_stat(FILE *to, const struct processes *processes, enum stat_index stat)
{
    struct shown shown = shown_as(stat);

    head(to, shown.name, shown.type, shown.help);
    FOR_EACH_SERVER(processes, process, server)
    {
        if (!process->has[stat])
            continue;
        sample(to, shown.name, process, server, NO_LABEL);
        if (shown.unit > 0)
            fprintf(to, "%.6f\n", (double)server->numbers.stats[stat] * shown.unit);
        else
            fprintf(to, "%" PRIu64 "\n", server->numbers.stats[stat]);
    }
}

/* The sum is read a moment after the buckets or before, as the process goes on counting. */
static void print_histogram(FILE *to, const struct processes *processes,
                            const struct histogram *histogram)
{
    char bucket[64], sum[64], count[64], bound[32];

    snprintf(bucket, sizeof(bucket), "%s_bucket", histogram->name);
    snprintf(sum, sizeof(sum), "%s_sum", histogram->name);
    snprintf(count, sizeof(count), "%s_count", histogram->name);
    head(to, histogram->name, "histogram", histogram->text);
    FOR_EACH_SERVER(processes, process, server)
    {
        const uint64_t *stats = server->numbers.stats;

        if (!process->has[histogram->first])
            continue;
        for (size_t i = 0; i < histogram->count; i++) {
            bool last = i == histogram->count - 1;

            snprintf(bound, sizeof(bound), "%g", histogram_bound(histogram, i));
            sample(to, bucket, process, server, "le", last ? "+Inf" : bound);
            fprintf(to, "%" PRIu64 "\n", histogram_up_to(histogram, stats, i));
        }
        sample(to, sum, process, server, NO_LABEL);
        fprintf(to, "%.6f\n", (double)stats[histogram->sum] * histogram->unit);
        sample(to, count, process, server, NO_LABEL);
        fprintf(to, "%" PRIu64 "\n", histogram_total(histogram, stats));
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

        sample(to, name, stat->process, server, NO_LABEL);
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
            sample(to, name, process, server, "reason", row.name);
            fprintf(to, "%" PRIu64 "\n", row.number);
        }
    }
}

/* Prometheus rejects all metrics when two have the same labels: of what tells families apart,
 * the user is a label, too. */
static void print_families(FILE *to, const struct processes *processes)
{
    struct families families = families_find(processes);

    head(to, "family_queued", "gauge",
         "idle connections that the processes of a family have in common");
    for (size_t i = 0; i < families.count; i++) {
        const struct family *family = &families.list[i];

        fprintf(to, "mcpool_family_queued{family=\"%" PRIu64 "\",uid=\"%lu\",service=\"%s\"",
                family->first->family, (unsigned long)family->first->owner,
                family->first->service);
        print_container(to, family->first);
        fprintf(to, "} %" PRIu32 "\n", family->queued);
    }
    families_free(&families);
}

static void print_metrics(FILE *to, const struct processes *processes)
{
    head(to, "process_info", "gauge", "a process with the library");
    for (size_t i = 0; i < processes->count; i++) {
        const struct process *process = &processes->list[i];

        fprintf(to,
                "mcpool_process_info{pid=\"%d\",command=\"%s\",service=\"%s\",version=\"%s\","
                "dry_run=\"%s\",mode=\"%s\"",
                process->pid, process->command, process->service, process->version,
                process->mode == MODE_DRY ? "true" : "false", mode_names[process->mode]);
        if (process->tells_share)
            fprintf(to, ",share=\"%s\"", share_name(process->share));
        if (process->family != 0)
            fprintf(to, ",family=\"%" PRIu64 "\"", process->family);
        print_container(to, process);
        fputs("} 1\n", to);
    }
    for (int i = 0; i < STATS; i++) {
        if (stat_rows[i].is_bucket || i == STAT_idle_age_ms)
            continue;
        print_stat(to, processes, (enum stat_index)i);
    }
    print_unknown_stats(to, processes);
    print_families(to, processes);
    for (size_t i = 0; i < HISTOGRAMS; i++)
        print_histogram(to, processes, &histograms[i]);
    head(to, "time_wait_avoided_total", "counter", "ports that did not go to TIME_WAIT");
    FOR_EACH_SERVER(processes, process, server)
    {
        sample(to, "time_wait_avoided_total", process, server, NO_LABEL);
        fprintf(to, "%" PRIu64 "\n", server->numbers.time_wait_avoided);
    }
    head(to, "refused_total", "counter", "connections not kept at close()");
    print_reasons(to, "refused_total", processes, REFUSED);
    head(to, "discarded_total", "counter", "connections kept, and closed later without reuse");
    print_reasons(to, "discarded_total", processes, DISCARDED);
}

void exposition_print(FILE *to)
{
    struct processes processes = processes_read(NULL, 0);

    print_metrics(to, &processes);
    processes_free(&processes);
}
