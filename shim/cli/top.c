/*
 * mcpool top: shows the connects per second of each process, and refreshes them in place.
 *
 * A screen too narrow for all columns shows those that matter most. A row is a process and a
 * server; rows that do not fit are counted in the last line, and can be scrolled to.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/command.h"
#include "cli/families.h"
#include "cli/processes.h"
#include "cli/screen.h"

/* From left to right. */
enum column {
    PID,
    SERVICE,
    SERVER,
    IN_USE,
    IDLE,
    CONNECTS,
    REUSED,
    OPENED,
    NOT_KEPT,
    HITS,
    TAKEN,
    GIVEN,
    COLUMNS_IN_ALL
};

static const struct {
    const char *title;
    int least;        /* the width below which the column is not shown */
    char key;         /* sorts by it; 0: none does */
    const char *name; /* in "by NAME" */
} columns[COLUMNS_IN_ALL] = {
    [PID] = {"PID", 6, 'p', "pid"},
    [SERVICE] = {"SERVICE", 10, 0, ""},
    [SERVER] = {"SERVER", 15, 0, ""},
    [IN_USE] = {"IN USE", 6, 'u', "in use"},
    [IDLE] = {"IDLE", 5, 'i', "idle"},
    [CONNECTS] = {"CONNECT/s", 9, 'c', "connects"},
    [REUSED] = {"REUSED/s", 8, 'r', "reused"},
    [OPENED] = {"OPENED/s", 8, 'o', "opened"},
    [NOT_KEPT] = {"NOT KEPT", 8, 'k', "not kept"},
    [HITS] = {"HITS", 6, 'h', "hits"},
    [TAKEN] = {"TAKEN/s", 7, 't', "taken"},
    [GIVEN] = {"GIVEN/s", 7, 'g', "given"},
};

/* What matters most comes first. The column that is sorted by comes behind PID. */
static const enum column by_rank[COLUMNS_IN_ALL] = {
    PID, SERVICE, CONNECTS, HITS, SERVER, OPENED, NOT_KEPT, IN_USE, REUSED, IDLE, TAKEN, GIVEN,
};

/* The lines above the rows (title, names of columns) and below them (sums, what is hidden). */
#define ABOVE 2
#define BELOW 2

#define CELL_SIZE 224

/* A row of the screen: a process and a server, or, without a process, the sums. Rates are per
 * second since the last refresh. */
struct row {
    const struct process *process;
    const char *server;
    struct numbers numbers;
    double rates[COLUMNS_IN_ALL];
};

struct rows {
    struct row *list;
    int count;
    struct row sum;
    bool dry;                  /* there is a dry run */
    bool off;                  /* there is a process that was switched off */
    int width[COLUMNS_IN_ALL]; /* of what is printed; 0: not shown */
};

static enum column sorted_by = CONNECTS;
static int first_row; /* the first one that is shown */

static void print_help(void)
{
    puts("usage: mcpool top [--delay SECONDS]\n\n"
         "Shows what each process does with its connections to memcached, refreshed in "
         "place.\n\n"
         "  --delay SECONDS  time between two refreshes (2)\n\n"
         "Keys: c r o h k u i t g p sort by connects, reused, opened, hits, not kept, in\n"
         "use, idle, taken, given, pid; arrows, Page Up, Page Down, Home and End scroll;\n"
         "space refreshes at once; q quits. See mcpool-top(1).");
}

/* The counters of SERVER at the last refresh; NULL when it is new. */
static const struct numbers *before(const struct processes *last, const struct process *process,
                                    const struct server *server)
{
    for (size_t i = 0; i < last->count; i++) {
        if (last->list[i].pid != process->pid || last->list[i].since != process->since)
            continue;
        for (size_t j = 0; j < last->list[i].server_count; j++) {
            if (strcmp(last->list[i].servers[j].name, server->name) == 0)
                return &last->list[i].servers[j].numbers;
        }
    }
    return NULL;
}

static double rate(uint64_t now, uint64_t then, double seconds)
{
    return now > then && seconds > 0 ? (double)(now - then) / seconds : 0;
}

static struct row make_row(const struct process *process, const struct server *server,
                           const struct numbers *old, double seconds)
{
    const struct numbers *now = &server->numbers;
    struct row row = {.process = process, .server = server->name, .numbers = *now};

    if (!old)
        return row;
    row.rates[CONNECTS] = rate(now->stats[STAT_connects], old->stats[STAT_connects], seconds);
    row.rates[REUSED] = rate(now->stats[STAT_reused], old->stats[STAT_reused], seconds);
    row.rates[OPENED] = rate(now->stats[STAT_opened], old->stats[STAT_opened], seconds);
    row.rates[TAKEN] = rate(now->stats[STAT_taken], old->stats[STAT_taken], seconds);
    row.rates[GIVEN] = rate(now->stats[STAT_given], old->stats[STAT_given], seconds);
    row.rates[NOT_KEPT] = rate(now->all_refused, old->all_refused, seconds);
    return row;
}

static double key_of(const struct row *row, enum column column)
{
    switch (column) {
    case HITS:
        return numbers_hit_rate(&row->numbers);
    case IN_USE:
        return (double)row->numbers.stats[STAT_in_use];
    case IDLE:
        return (double)row->numbers.stats[STAT_idle];
    case PID:
        return -(double)row->process->pid;
    default:
        return row->rates[column];
    }
}

/* Largest first. Equal rows are sorted by pid, then as their process has them, so that they
 * keep their place. */
static int compare(const void *a, const void *b)
{
    const struct row *one = a, *other = b;
    double of_one = key_of(one, sorted_by), of_other = key_of(other, sorted_by);

    if (of_one == of_other) {
        of_one = key_of(one, PID);
        of_other = key_of(other, PID);
    }
    if (of_one == of_other)
        return (one->server > other->server) - (one->server < other->server);
    return (of_one < of_other) - (of_one > of_other);
}

/* Fills CELL with the text of ROW in COLUMN. */
static void print_cell(char *cell, const struct row *row, enum column column)
{
    const struct process *process = row->process;
    const uint64_t *stats = row->numbers.stats;

    switch (column) {
    case PID:
        if (process)
            snprintf(cell, CELL_SIZE, "%d%c", process->pid,
                     process->mode == MODE_DRY   ? '*'
                     : process->mode == MODE_OFF ? '-'
                                                 : ' ');
        else
            snprintf(cell, CELL_SIZE, "total");
        break;
    case SERVICE:
        if (process && process->container[0])
            snprintf(cell, CELL_SIZE, "%s in %s", process->service, process->container);
        else
            snprintf(cell, CELL_SIZE, "%s", process ? process->service : "");
        break;
    case SERVER:
        snprintf(cell, CELL_SIZE, "%s", row->server);
        break;
    case IN_USE:
        snprintf(cell, CELL_SIZE, "%" PRIu64, stats[STAT_in_use]);
        break;
    case IDLE:
        snprintf(cell, CELL_SIZE, "%" PRIu64, stats[STAT_idle]);
        break;
    case HITS:
        snprintf(cell, CELL_SIZE, "%.1f%%", numbers_hit_rate(&row->numbers));
        break;
    default:
        snprintf(cell, CELL_SIZE, "%.1f", row->rates[column]);
    }
}

static bool is_text(enum column column)
{
    return column == SERVICE || column == SERVER;
}

/* The widest text of COLUMN. */
static int widest(const struct rows *rows, enum column column)
{
    int most = (int)strlen(columns[column].title);
    char cell[CELL_SIZE];

    for (int i = 0; i <= rows->count; i++) {
        print_cell(cell, i < rows->count ? &rows->list[i] : &rows->sum, column);
        if (most < (int)strlen(cell))
            most = (int)strlen(cell);
    }
    return most;
}

/* Shows COLUMN if *LEFT, the part of a line that is still free, has room for it. False when it
 * has not. */
static bool show_column(struct rows *rows, enum column column, int *left)
{
    int width = widest(rows, column);

    if (width < columns[column].least || is_text(column))
        width = columns[column].least;
    if (rows->width[column] > 0)
        return true;
    if (width + 1 > *left)
        return false;
    rows->width[column] = width;
    *left -= width + 1;
    return true;
}

/* Columns of text get what is left; the servers first, which differ in their ends. */
static void widen(struct rows *rows, enum column column, int *left)
{
    int more = widest(rows, column) - rows->width[column];

    if (rows->width[column] == 0 || more <= 0)
        return;
    if (more > *left)
        more = *left;
    rows->width[column] += more;
    *left -= more;
}

static void choose_columns(struct rows *rows)
{
    int left = screen_columns() + 1; /* there is no blank before the first column */

    show_column(rows, PID, &left);
    show_column(rows, sorted_by, &left);
    for (int i = 0; i < COLUMNS_IN_ALL && show_column(rows, by_rank[i], &left);)
        i++;
    widen(rows, SERVER, &left);
    widen(rows, SERVICE, &left);
}

/* Shortens CELL to WIDTH. Of a server the end is kept, which has the port. */
static void shorten(char *cell, enum column column, int width)
{
    size_t n = strlen(cell);

    if (n <= (size_t)width)
        return;
    if (column == SERVER)
        memmove(cell, cell + n - (size_t)width, (size_t)width + 1);
    cell[width] = '\0';
    cell[column == SERVER ? 0 : width - 1] = '~';
}

/* Draws ROW in LINE; if it is NULL, the names of the columns. */
static void draw_row(int line, enum screen_look look, const struct rows *rows,
                     const struct row *row)
{
    screen_line(line, look);
    for (int i = 0; i < COLUMNS_IN_ALL; i++) {
        int width = rows->width[i];
        char cell[CELL_SIZE], padded[CELL_SIZE + 1];

        if (width == 0)
            continue;
        if (row)
            print_cell(cell, row, (enum column)i);
        else
            snprintf(cell, sizeof(cell), "%s", columns[i].title);
        shorten(cell, (enum column)i, width);
        snprintf(padded, sizeof(padded), "%s%*s", i == PID ? "" : " ",
                 is_text((enum column)i) ? -width : width, cell);
        screen_add(padded);
    }
}

/* The idle connections of all families, which are in no row. */
static void draw_shared(char *text, size_t room, const struct processes *processes)
{
    struct families families = families_find(processes);
    uint64_t queued = 0;

    for (size_t i = 0; i < families.count; i++)
        queued += families.list[i].queued;
    if (families.count > 0)
        snprintf(text, room, "; %" PRIu64 " idle in %zu famil%s", queued, families.count,
                 families.count == 1 ? "y" : "ies");
    families_free(&families);
}

static void draw_title(const struct processes *processes, const struct rows *rows)
{
    char now[16], text[160], shared[64] = "";
    time_t seconds = time(NULL);

    strftime(now, sizeof(now), "%H:%M:%S", localtime(&seconds));
    draw_shared(shared, sizeof(shared), processes);
    snprintf(text, sizeof(text), "%s%s, %zu process%s, by %s%s%s%s",
             screen_columns() < 60 ? "" : "mcpool top - ", now, processes->count,
             processes->count == 1 ? "" : "es", columns[sorted_by].name, shared,
             rows->off ? "; -: off" : "",
             rows->dry ? "; *: dry run, its reused are what would be" : "");
    screen_line(0, SCREEN_PLAIN);
    screen_add(text);
}

/* Says which of the rows are shown, SHOWN of them, and how many are hidden. */
static void draw_foot(const struct rows *rows, int shown)
{
    int last = first_row + shown;
    char text[160];

    if (shown == rows->count)
        snprintf(text, sizeof(text), "%d-%d of %d rows; c r o h k u i t g p sort, q quits",
                 rows->count > 0, last, rows->count);
    else
        snprintf(text, sizeof(text), "%d-%d of %d rows, %d hidden; arrows scroll",
                 first_row + 1, last, rows->count, rows->count - shown);
    screen_line(screen_lines() - 1, SCREEN_PLAIN);
    screen_add(text);
}

static int rows_on_screen(void)
{
    return screen_lines() > ABOVE + BELOW ? screen_lines() - ABOVE - BELOW : 0;
}

/* Keeps the last page full. */
static void limit_scrolling(const struct rows *rows)
{
    int last = rows->count - rows_on_screen();

    if (first_row > last)
        first_row = last;
    if (first_row < 0)
        first_row = 0;
}

static void draw_rows(const struct processes *processes, const struct rows *rows)
{
    int shown = 0;

    draw_title(processes, rows);
    draw_row(1, SCREEN_REVERSE, rows, NULL);
    for (; shown < rows_on_screen() && first_row + shown < rows->count; shown++)
        draw_row(ABOVE + shown, SCREEN_PLAIN, rows, &rows->list[first_row + shown]);
    if (rows_on_screen() > 0 && rows->count == 0) {
        screen_line(ABOVE, SCREEN_PLAIN);
        screen_add("no process shows counters; see mcpool stat");
    }
    if (rows_on_screen() > 0) {
        draw_row(screen_lines() - BELOW, SCREEN_BOLD, rows, &rows->sum);
        draw_foot(rows, shown);
    }
    screen_show();
}

static void add_row(struct rows *rows, struct row row)
{
    rows->list[rows->count++] = row;
    rows->dry |= row.process->mode == MODE_DRY;
    rows->off |= row.process->mode == MODE_OFF;
    numbers_add(&rows->sum.numbers, &row.numbers);
    for (int i = 0; i < COLUMNS_IN_ALL; i++)
        rows->sum.rates[i] += row.rates[i];
}

static void draw(const struct processes *now, const struct processes *last, double seconds)
{
    struct rows rows = {.sum = {.server = ""}};
    size_t most = 1;

    for (size_t i = 0; i < now->count; i++)
        most += now->list[i].server_count;
    rows.list = calloc(most, sizeof(*rows.list));
    if (!rows.list)
        return;
    for (size_t i = 0; i < now->count; i++) {
        const struct process *process = &now->list[i];

        for (size_t j = 0; j < process->server_count; j++) {
            const struct server *server = &process->servers[j];

            add_row(&rows, make_row(process, server, before(last, process, server), seconds));
        }
    }
    qsort(rows.list, (size_t)rows.count, sizeof(*rows.list), compare);
    choose_columns(&rows);
    limit_scrolling(&rows);
    draw_rows(now, &rows);
    free(rows.list);
}

/* Whether KEY sorts, scrolls, or says that the screen has another size. */
static bool obey(int key)
{
    switch (key) {
    case SCREEN_UP:
        first_row--;
        return true;
    case SCREEN_DOWN:
        first_row++;
        return true;
    case SCREEN_PAGE_UP:
        first_row -= rows_on_screen();
        return true;
    case SCREEN_PAGE_DOWN:
        first_row += rows_on_screen();
        return true;
    case SCREEN_HOME:
        first_row = 0;
        return true;
    case SCREEN_END:
        first_row = INT32_MAX / 2;
        return true;
    case SCREEN_RESIZED:
        return true;
    default:
        break;
    }
    for (int i = 0; i < COLUMNS_IN_ALL; i++) {
        if (columns[i].key == 0 || columns[i].key != key)
            continue;
        sorted_by = (enum column)i;
        return true;
    }
    return false;
}

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void look_until_quit(double delay)
{
    struct processes last = {0}, now = processes_read(NULL, 0);
    double then = seconds_now(), between = 0;
    int key;

    do {
        draw(&now, &last, between);
        key = screen_wait(then + delay - seconds_now());
        if (obey(key) || (key != SCREEN_NO_KEY && key != ' '))
            continue;
        processes_free(&last);
        last = now;
        now = processes_read(NULL, 0);
        between = seconds_now() - then;
        then += between;
    } while (key != 'q' && key != 'Q');
    processes_free(&last);
    processes_free(&now);
}

int command_top(int argc, char **argv)
{
    static const struct option options[] = {
        {"delay", required_argument, NULL, 'd'}, {"help", no_argument, NULL, 'h'}, {0}};
    double delay = 2;
    char *end;
    int option;

    while ((option = getopt_long(argc, argv, "d:", options, NULL)) != -1) {
        if (option == 'h')
            return print_help(), flushed(EXIT_SUCCESS);
        if (option != 'd')
            return usage_error("top");
        delay = strtod(optarg, &end);
        if (end == optarg || *end != '\0' || !(delay >= 0.1 && delay <= 3600))
            return usage_error("top");
    }
    if (optind < argc)
        return usage_error("top");
    if (!screen_begin()) {
        fputs("mcpool: top needs a terminal; see mcpool stat --watch\n", stderr);
        return EXIT_NO;
    }
    look_until_quit(delay);
    screen_end();
    return EXIT_SUCCESS;
}
