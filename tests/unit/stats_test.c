/*
 * The file of counters: what a reader finds in it, what others may do to it, and the many
 * reasons why there can be none.
 */
#include "stats/stats.h"
#include "stats/stats_file.h"
#include "stats/switch_file.h"
#include "base/owner.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#define SLOTS 64

static struct config config;
static char directory[64] = "/tmp/mcpool-unit-XXXXXX";

static void set_up(void)
{
    cr_assert(mkdtemp(directory));
    strcpy(config.stats, directory);
    stats_start(&config, SLOTS);
    owner_adopt();
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *at)
{
    (void)status, (void)type, (void)at;
    return remove(path);
}

static void tear_down(void)
{
    cr_expect(nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0);
}

TestSuite(stats, .init = set_up, .fini = tear_down, .timeout = 20);

/* As the calls do that count something. */
static void write_if_due(msec_t now)
{
    if (now >= stats_due)
        stats_write(now);
}

static struct stats *publish(size_t slot, const char *text)
{
    struct stats *stats;

    cr_assert(stats_begin());
    stats = stats_publish(slot, text);
    stats_end();
    return stats;
}

/* As a call does that has counted something a second after the file was last written. */
static void write_out(void)
{
    static msec_t now;

    now += STATS_PERIOD;
    stats_changed();
    write_if_due(now);
}

static uint64_t own_start(void)
{
    char text[1024];
    FILE *file = fopen("/proc/self/stat", "r");
    size_t n;

    cr_assert(file);
    n = fread(text, 1, sizeof(text), file);
    fclose(file);
    return stats_parse_start(text, n);
}

static uint64_t own_namespace(void)
{
    struct stat found;

    cr_assert(stat("/proc/self/ns/pid", &found) == 0);
    return found.st_ino;
}

static const char *path_in(const char *folder, int pid, uint64_t start)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/%d-%lu", folder, pid, (unsigned long)start);
    return path;
}

static const char *own_path(void)
{
    return path_in(directory, getpid(), own_start());
}

/* This process's file, as a reader finds it. */
static union {
    struct stats_header header;
    char bytes[131072];
} file;

static size_t read_file(const char *path)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, file.bytes, sizeof(file.bytes));

    close(fd);
    return n < 0 ? 0 : (size_t)n;
}

static struct stats_slot *slot_in_file(size_t n)
{
    return (struct stats_slot *)(file.bytes + file.header.header_size +
                                 n * file.header.slot_size);
}

static int files_in(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    int n = 0;

    cr_assert(dir);
    while ((entry = readdir(dir)))
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void expect_good_end(pid_t child)
{
    int status;

    cr_assert(waitpid(child, &status, 0) == child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
}

Test(stats, nothing_is_made_before_it_is_needed)
{
    cr_expect(files_in(directory) == 0);
    cr_expect(stats_wanted);
}

Test(stats, a_reader_finds_what_was_counted)
{
    struct stats *stats = publish(0, "127.0.0.1:11211");
    struct stat found;

    cr_assert(stats);
    stats_count(&stats->connects);
    stats_count(&stats->refused[REASON_TLS]);
    stats_set(&stats->idle, 7);
    write_out();
    cr_assert(stat(own_path(), &found) == 0);
    cr_expect((found.st_mode & 07777) == 0600 && found.st_uid == geteuid());
    cr_assert(read_file(own_path()) >= STATS_FILE_SIZE(1));
    cr_expect(file.header.magic == STATS_MAGIC && file.header.layout == STATS_LAYOUT);
    cr_expect(file.header.header_size == sizeof(struct stats_header));
    cr_expect(file.header.slot_size == sizeof(struct stats_slot));
    cr_expect(file.header.pid == getpid() && file.header.start == own_start());
    cr_expect(file.header.pid_namespace == own_namespace());
    cr_expect(strcmp(file.header.version, MCPOOL_VERSION) == 0);
    cr_expect(file.header.mode == MODE_ON && llabs(file.header.since - time(NULL)) < 60);
    cr_expect(slot_in_file(0)->change == 2);
    cr_expect(strcmp(slot_in_file(0)->endpoint, "127.0.0.1:11211") == 0);
    cr_expect(slot_in_file(0)->stats.connects == 1 && slot_in_file(0)->stats.idle == 7);
    cr_expect(slot_in_file(0)->stats.refused[REASON_TLS] == 1);
    cr_expect(slot_in_file(0)->stats.discarded[REASON_TLS] == 0);
}

/* Counts in VALUE, and expects the result where a reader looks for value number PLACE. */
static void expect_value_at(size_t place, _Atomic uint64_t *value)
{
    uint64_t found;

    stats_set(value, place + 1000);
    write_out();
    read_file(own_path());
    memcpy(&found,
           (const char *)slot_in_file(0) + file.header.values_at + place * sizeof(found),
           sizeof(found));
    cr_expect(found == place + 1000, "value %zu is %lu", place, (unsigned long)found);
}

/* Expects WANTED to stand at *AT among the names in the file. */
static void expect_name(const char **at, const char *wanted)
{
    cr_assert(*at + strlen(wanted) < file.bytes + file.header.header_size);
    cr_expect(strcmp(*at, wanted) == 0, "%s, not %s", *at, wanted);
    *at += strlen(*at) + 1;
}

Test(stats, the_file_names_each_value_in_its_order)
{
    struct stats *stats = publish(0, "a");
    const char *at;
    char name[64];

    cr_assert(stats && read_file(own_path()) >= STATS_FILE_SIZE(1));
    at = file.bytes + file.header.names_at;
#define STAT(kind, name, text) expect_name(&at, #kind " " #name);
#include "stats/stats.def"
#undef STAT
    for (int i = 0; i < REASON_COUNT; i++) {
        snprintf(name, sizeof(name), "reason %s", reason_name((enum reason)i));
        expect_name(&at, name);
    }
    cr_expect(at == file.bytes + file.header.names_at + file.header.names_size);
    cr_expect(at <= file.bytes + file.header.header_size);
}

Test(stats, values_lie_in_the_order_of_their_names)
{
    struct stats *stats = publish(0, "a");
    size_t place = 0;

#define STAT(kind, name, text) expect_value_at(place++, &stats->name);
#include "stats/stats.def"
#undef STAT
    for (int i = 0; i < REASON_COUNT; i++)
        expect_value_at(place++, &stats->refused[i]);
    for (int i = 0; i < REASON_COUNT; i++)
        expect_value_at(place++, &stats->discarded[i]);
}

/* A library of any version looks at this place before it removes the file of another
 * process. */
Test(stats, what_all_versions_find_at_the_same_place)
{
    cr_expect(offsetof(struct stats_header, magic) == 0);
    cr_expect(offsetof(struct stats_header, pid_namespace) == 48);
}

Test(stats, a_file_cut_short_gets_its_names_again)
{
    cr_assert(publish(0, "a") && truncate(own_path(), 0) == 0);
    write_out();
    read_file(own_path());
    cr_expect(memcmp(file.bytes + file.header.names_at, &stats_names, sizeof(stats_names)) ==
              0);
}

Test(stats, a_child_names_its_values_too)
{
    cr_assert(publish(0, "a"));
    stats_finish();
    cr_assert(stats_after_fork_in_child() && publish(0, "a"));
    read_file(own_path());
    cr_expect(memcmp(file.bytes + file.header.names_at, &stats_names, sizeof(stats_names)) ==
              0);
}

Test(stats, a_dry_run_says_so)
{
    config.dry_run = true;
    stats_start(&config, SLOTS);
    cr_assert(publish(0, "a"));
    write_out();
    read_file(own_path());
    cr_expect(file.header.mode == MODE_DRY);
}

/* What `mcpool off` writes. */
static struct switch_file wish_for_us(void)
{
    read_file(own_path());
    return (struct switch_file){.magic = SWITCH_MAGIC,
                                .pid = file.header.pid,
                                .wish = WISH_OFF,
                                .start = file.header.start,
                                .pid_namespace = file.header.pid_namespace,
                                .generation = 7};
}

static void put_wish(const struct switch_file *content, size_t n)
{
    char path[PATH_MAX];
    FILE *out;

    snprintf(path, sizeof(path), "%s" SWITCH_SUFFIX, own_path());
    out = fopen(path, "w");
    cr_assert(out && fwrite(content, 1, n, out) == n && fclose(out) == 0);
}

static bool is_wish_seen(const struct switch_file *content, size_t n)
{
    struct switch_file wish;

    put_wish(content, n);
    return stats_read_wish(&wish) && memcmp(&wish, content, sizeof(wish)) == 0;
}

Test(stats, a_wish_is_read_and_followed_once)
{
    struct switch_file content, wish;

    cr_assert(!stats_read_wish(&wish) && publish(0, "a"));
    write_out();
    content = wish_for_us();
    cr_expect(file.header.followed == 0 && file.header.mode == MODE_ON);
    cr_expect(is_wish_seen(&content, sizeof(content)));
    mode_word = MODE_OFF;
    stats_followed(7);
    stats_write(0);
    read_file(own_path());
    cr_expect(file.header.followed == 7 && file.header.mode == MODE_OFF);
    cr_expect(!is_wish_seen(&content, sizeof(content)), "it is followed already");
    content.generation++;
    cr_expect(is_wish_seen(&content, sizeof(content)));
    stats_finish();
    cr_expect(files_in(directory) == 0, "both files are removed at the end");
}

Test(stats, a_file_that_is_no_wish_stays_at_the_end)
{
    struct switch_file content;

    cr_assert(publish(0, "a"));
    content = wish_for_us();
    content.pid++;
    put_wish(&content, sizeof(content));
    stats_finish();
    cr_expect(files_in(directory) == 1);
}

Test(stats, nothing_is_written_when_nothing_has_changed)
{
    cr_assert(publish(0, "a"));
    write_out();
    cr_assert(truncate(own_path(), 0) == 0);
    stats_write(0);
    cr_expect(read_file(own_path()) == 0);
    stats_changed();
    stats_write(0);
    cr_expect(read_file(own_path()) > 0);
}

Test(stats, a_wish_for_another_process_is_none)
{
    struct switch_file good, bad;

    cr_assert(publish(0, "a"));
    write_out();
    bad = good = wish_for_us();
    cr_expect(!is_wish_seen(&good, sizeof(good) - 1));
    bad.magic++;
    cr_expect(!is_wish_seen(&bad, sizeof(bad)));
    bad = good, bad.pid++;
    cr_expect(!is_wish_seen(&bad, sizeof(bad)));
    bad = good, bad.start++;
    cr_expect(!is_wish_seen(&bad, sizeof(bad)));
    bad = good, bad.pid_namespace++;
    cr_expect(!is_wish_seen(&bad, sizeof(bad)));
    bad = good, bad.wish = WISHES;
    cr_expect(!is_wish_seen(&bad, sizeof(bad)));
    bad = good, bad.generation = 0;
    cr_expect(!is_wish_seen(&bad, sizeof(bad)));
    bad = good, memset(bad.endpoint, 'x', sizeof(bad.endpoint));
    cr_expect(!is_wish_seen(&bad, sizeof(bad)), "the name has no end");
    cr_expect(is_wish_seen(&good, sizeof(good)));
}

Test(stats, a_slot_that_gets_another_endpoint_begins_at_nought)
{
    struct stats *stats = publish(0, "a");

    stats_count(&stats->connects);
    cr_assert(publish(0, "b") == stats);
    write_out();
    read_file(own_path());
    cr_expect(strcmp(slot_in_file(0)->endpoint, "b") == 0);
    cr_expect(slot_in_file(0)->stats.connects == 0 && slot_in_file(0)->change == 4);
}

Test(stats, the_file_grows_with_the_endpoints)
{
    char name[16];

    for (size_t i = 0; i < 40; i++) {
        struct stats *stats;

        snprintf(name, sizeof(name), "server-%zu", i);
        stats = publish(i, name);
        cr_assert(stats);
        stats_set(&stats->opened, i);
    }
    write_out();
    cr_expect(read_file(own_path()) >= STATS_FILE_SIZE(40));
    for (size_t i = 0; i < 40; i++)
        cr_expect(slot_in_file(i)->stats.opened == i);
    cr_expect(files_in(directory) == 1);
}

Test(stats, copies_are_a_second_apart)
{
    struct stats *stats = publish(0, "a");

    write_if_due(5000);
    cr_expect(stats_state == STATS_WRITTEN);
    stats_count(&stats->connects);
    cr_expect(stats_state == STATS_UNWRITTEN);
    write_if_due(5999);
    read_file(own_path());
    cr_expect(stats_state == STATS_UNWRITTEN && slot_in_file(0)->stats.connects == 0);
    write_if_due(6000);
    read_file(own_path());
    cr_expect(stats_state == STATS_WRITTEN && slot_in_file(0)->stats.connects == 1);
    stats_count(&stats->connects);
    stats_write(6001);
    read_file(own_path());
    cr_expect(slot_in_file(0)->stats.connects == 2, "at the end it is written in any case");
}

/* After the file was tampered with: the process goes on, and does not write there. */
static void expect_nothing_written(const char *content)
{
    char found[16] = "";
    int fd = open(own_path(), O_RDONLY | O_NONBLOCK);

    write_out();
    cr_expect(fd < 0 || read(fd, found, sizeof(found) - 1) == (ssize_t)strlen(content));
    cr_expect(strcmp(found, content) == 0);
    close(fd);
}

static void replace_by_file(const char *content)
{
    char name[128];
    int fd;

    snprintf(name, sizeof(name), "%s/other", directory);
    fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    cr_assert(write(fd, content, strlen(content)) == (ssize_t)strlen(content));
    cr_assert(rename(name, own_path()) == 0);
    close(fd);
}

Test(stats, a_file_that_was_cut_short_is_filled_again)
{
    struct stats *stats = publish(0, "a");

    cr_assert(truncate(own_path(), 0) == 0);
    stats_count(&stats->connects);
    write_out();
    cr_expect(read_file(own_path()) == STATS_FILE_SIZE(1));
    cr_expect(slot_in_file(0)->stats.connects == 1);
}

Test(stats, a_file_that_was_removed_stays_so)
{
    cr_assert(publish(0, "a"));
    cr_assert(unlink(own_path()) == 0);
    write_out();
    cr_expect(files_in(directory) == 0);
}

Test(stats, a_directory_that_was_removed)
{
    cr_assert(publish(0, "a"));
    cr_assert(unlink(own_path()) == 0 && rmdir(directory) == 0);
    write_out();
    cr_assert(mkdir(directory, 0700) == 0);
}

Test(stats, another_file_of_that_name)
{
    cr_assert(publish(0, "a"));
    replace_by_file("another's");
    expect_nothing_written("another's");
}

Test(stats, another_name_of_the_file)
{
    char name[128];

    cr_assert(publish(0, "a"));
    snprintf(name, sizeof(name), "%s/other", directory);
    cr_assert(truncate(own_path(), 0) == 0 && link(own_path(), name) == 0);
    expect_nothing_written("");
}

Test(stats, a_link_of_that_name)
{
    char name[128];

    cr_assert(publish(0, "a"));
    snprintf(name, sizeof(name), "%s/other", directory);
    cr_assert(truncate(own_path(), 0) == 0 && rename(own_path(), name) == 0 &&
              symlink(name, own_path()) == 0);
    expect_nothing_written("");
}

/* Neither opening nor writing it may block, whether it has a reader or not. */
Test(stats, a_fifo_of_that_name)
{
    int reader;

    cr_assert(publish(0, "a"));
    cr_assert(unlink(own_path()) == 0 && mkfifo(own_path(), 0600) == 0);
    write_out();
    reader = open(own_path(), O_RDONLY | O_NONBLOCK);
    expect_nothing_written("");
    close(reader);
}

/* Without O_NONBLOCK open() would wait until the lease's holder gives it up. */
Test(stats, a_lease_on_the_file)
{
    struct stats *stats = publish(0, "a");
    int fd = open(own_path(), O_RDONLY);

    signal(SIGIO, SIG_IGN);
    if (fcntl(fd, F_SETLEASE, F_RDLCK) != 0)
        cr_skip_test("no leases here");
    stats_count(&stats->connects);
    write_out();
    cr_expect(fcntl(fd, F_SETLEASE, F_UNLCK) == 0);
    close(fd);
    write_out();
    read_file(own_path());
    cr_expect(slot_in_file(0)->stats.connects == 1, "the next time it can be written");
}

Test(stats, a_file_that_is_not_writable)
{
    cr_assert(publish(0, "a"));
    cr_assert(truncate(own_path(), 0) == 0 && chmod(own_path(), 0) == 0);
    if (geteuid() == 0)
        cr_assert(chown(own_path(), 65534, 65534) == 0);
    write_out();
    cr_assert(chmod(own_path(), 0600) == 0);
    cr_expect(read_file(own_path()) == 0);
}

/* Every fd that the library opens is closed again. */
Test(stats, no_fd_stays)
{
    int before = open("/dev/null", O_RDONLY), after;

    close(before);
    cr_assert(publish(0, "a"));
    write_out();
    replace_by_file("x");
    write_out();
    after = open("/dev/null", O_RDONLY);
    close(after);
    cr_expect(before == after);
}

Test(stats, only_one_thread_at_a_time)
{
    cr_expect(!stats_is_busy());
    cr_assert(stats_begin());
    cr_expect(stats_is_busy());
    cr_expect(!stats_begin());
    stats_end();
    cr_expect(!stats_is_busy());
    cr_expect(stats_begin());
}

Test(stats, the_file_goes_with_the_process)
{
    cr_assert(publish(0, "a"));
    cr_expect(files_in(directory) == 1);
    stats_finish();
    cr_expect(files_in(directory) == 0);
}

Test(stats, another_file_of_that_name_does_not)
{
    char name[128];

    cr_assert(publish(0, "a"));
    snprintf(name, sizeof(name), "%s/other", directory);
    cr_assert(rename(own_path(), name) == 0 && symlink(name, own_path()) == 0);
    stats_finish();
    cr_expect(unlink(own_path()) == 0, "a link");
    close(creat(own_path(), 0600));
    stats_finish();
    cr_expect(unlink(own_path()) == 0, "another file");
    cr_expect(access(name, F_OK) == 0);
}

Test(stats, off)
{
    config.stats[0] = '\0';
    stats_start(&config, SLOTS);
    cr_expect(!stats_wanted);
}

static void expect_none(void)
{
    cr_expect(publish(0, "a") == NULL);
    cr_expect(!stats_wanted);
    stats_finish();
}

Test(stats, no_directory)
{
    strcat(config.stats, "/missing");
    expect_none();
    cr_expect(files_in(directory) == 0);
}

Test(stats, a_directory_instead_is_made)
{
    struct stat found;

    strcpy(config.stats_instead, directory);
    strcat(config.stats_instead, "/instead");
    strcat(config.stats, "/missing");
    cr_expect(publish(0, "a") != NULL);
    cr_assert(stat(config.stats_instead, &found) == 0);
    cr_expect((found.st_mode & 07777) == 0700);
    cr_expect(files_in(config.stats_instead) == 1);
    stats_finish();
    cr_expect(files_in(config.stats_instead) == 0);
}

/* Others may have access to it, so nothing is made there. */
Test(stats, a_directory_instead_that_is_open_to_others)
{
    strcpy(config.stats_instead, directory);
    strcat(config.stats_instead, "/instead");
    strcat(config.stats, "/missing");
    cr_assert(mkdir(config.stats_instead, 0700) == 0 && chmod(config.stats_instead, 0710) == 0);
    expect_none();
    cr_expect(files_in(config.stats_instead) == 0);
}

/* Root can write there, and must not. */
Test(stats, a_directory_instead_of_another_user)
{
    if (geteuid() != 0)
        cr_skip_test("only root can give a directory away");
    strcpy(config.stats_instead, directory);
    strcat(config.stats_instead, "/instead");
    strcat(config.stats, "/missing");
    cr_assert(mkdir(config.stats_instead, 0700) == 0 &&
              chown(config.stats_instead, 65534, 65534) == 0);
    expect_none();
    cr_expect(files_in(config.stats_instead) == 0);
}

/* A user that no other test is, so that its directory is its own. */
static uid_t lonely;
static char fallback[64];

static void remove_fallback(void)
{
    if (unlink(fallback) != 0)
        nftw(fallback, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Without any other directory. PREPARE is called as root. Returns whether there is a file then.
 * The test runs in a child, as its user cannot remove what root has prepared. */
static bool falls_back(void (*prepare)(void))
{
    pid_t child;
    int status;

    if (geteuid() != 0)
        cr_skip_test("only root can be another user");
    lonely = 100000 + (uid_t)getpid();
    snprintf(fallback, sizeof(fallback), "/tmp/mcpool-%u", lonely);
    remove_fallback();
    if (prepare)
        prepare();
    child = fork();
    if (child == 0) {
        if (!stats_after_fork_in_child() || setgid(lonely) != 0 || setuid(lonely) != 0)
            _exit(2);
        _exit(publish(0, "a") ? files_in(fallback) == 1 : 0);
    }
    cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status) &&
              WEXITSTATUS(status) <= 1);
    return WEXITSTATUS(status) == 1;
}

static void expect_fallback(void (*prepare)(void), bool expected)
{
    strcat(config.stats, "/missing");
    config.stats_default = true;
    cr_expect(falls_back(prepare) == expected);
    cr_expect(files_in(directory) == 0, "what the link names is untouched");
    remove_fallback();
}

static void ask_for_its_mode(void)
{
    struct stat found;

    cr_expect(lstat(fallback, &found) == 0 && S_ISDIR(found.st_mode) &&
              (found.st_mode & 07777) == 0700 && found.st_uid == lonely);
}

Test(stats, any_user_can_fall_back_to_a_directory_in_tmp)
{
    strcat(config.stats, "/missing");
    config.stats_default = true;
    cr_expect(falls_back(NULL));
    ask_for_its_mode();
    remove_fallback();
}

static void give_away(void)
{
    cr_assert(mkdir(fallback, 0700) == 0 && chown(fallback, lonely, lonely) == 0);
}

Test(stats, the_fallback_of_an_earlier_process_is_used)
{
    expect_fallback(give_away, true);
}

static void make_as_another(void)
{
    cr_assert(mkdir(fallback, 0700) == 0 && chmod(fallback, 0777) == 0 &&
              chown(fallback, lonely + 1, lonely) == 0);
}

Test(stats, a_fallback_of_another_user_is_refused)
{
    expect_fallback(make_as_another, false);
}

static void open_to_others(void)
{
    give_away();
    cr_assert(chmod(fallback, 0770) == 0);
}

Test(stats, a_fallback_that_is_open_to_others_is_refused)
{
    expect_fallback(open_to_others, false);
}

/* To a directory that is right in all else. */
static void link_to_another(void)
{
    cr_assert(chown(directory, lonely, lonely) == 0 && symlink(directory, fallback) == 0);
}

Test(stats, a_fallback_that_is_a_link_is_refused)
{
    expect_fallback(link_to_another, false);
}

static void put_a_file_there(void)
{
    cr_assert(close(creat(fallback, 0600)) == 0 && chown(fallback, lonely, lonely) == 0);
}

Test(stats, a_fallback_that_is_no_directory_is_refused)
{
    expect_fallback(put_a_file_there, false);
}

Test(stats, a_directory_that_was_asked_for_has_no_fallback)
{
    strcat(config.stats, "/missing");
    cr_expect(!falls_back(NULL));
    cr_expect(access(fallback, F_OK) != 0);
}

Test(stats, a_name_that_leads_elsewhere_is_not_followed)
{
    cr_assert(symlink("/tmp/mcpool-elsewhere", own_path()) == 0);
    publish(0, "a");
    cr_expect(access("/tmp/mcpool-elsewhere", F_OK) != 0);
}

/* A write beyond the limit would raise SIGXFSZ. */
Test(stats, limited_size_of_files)
{
    struct rlimit limit = {100, 100};

    cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    expect_none();
    cr_expect(files_in(directory) == 0);
}

Test(stats, limited_size_met_later)
{
    struct rlimit limit = {4096, 4096};
    sigset_t pending;

    cr_assert(publish(0, "a") && publish(30, "b"));
    cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    write_out();
    cr_expect(read_file(own_path()) == 4096);
    limit.rlim_cur = 0;
    cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    write_out();
    cr_expect(sigpending(&pending) == 0 && sigismember(&pending, SIGXFSZ) == 0);
}

/* A signal that is pending for the program stays pending. */
Test(stats, the_signal_is_taken_away_unless_it_was_there_before)
{
    struct rlimit limit = {0, 4096};
    sigset_t blocked, pending;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGXFSZ);
    cr_assert(publish(0, "a") && sigprocmask(SIG_BLOCK, &blocked, NULL) == 0);
    cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    write_out();
    cr_expect(sigpending(&pending) == 0 && sigismember(&pending, SIGXFSZ) == 0);
    cr_assert(raise(SIGXFSZ) == 0);
    write_out();
    cr_expect(sigpending(&pending) == 0 && sigismember(&pending, SIGXFSZ) == 1);
}

Test(stats, full_file_system)
{
    static const char full[8192];
    struct stats *stats;
    int fd;

    if (unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", directory, "tmpfs", 0, "size=8k") != 0)
        cr_skip_test("only root can make a small file system");
    stats = publish(0, "a");
    cr_assert(stats && publish(20, "b"));
    fd = creat(path_in(directory, 1, 1), 0600);
    cr_assert(write(fd, full, sizeof(full)) == 4096);
    stats_count(&stats->connects);
    write_out();
    cr_expect(read_file(own_path()) == 4096 && slot_in_file(0)->stats.connects == 1,
              "what there is room for");
    stats_finish();
    cr_assert(stats_after_fork_in_child());
    cr_assert(write(fd, full, sizeof(full)) == 4096);
    expect_none();
    cr_expect(files_in(directory) == 1);
    close(fd);
    cr_expect(umount(directory) == 0);
}

Test(stats, read_only_file_system)
{
    if (unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", directory, "tmpfs", 0, "size=64k") != 0)
        cr_skip_test("only root can mount");
    cr_assert(publish(0, "a"));
    cr_assert(mount("none", directory, "tmpfs", MS_REMOUNT | MS_RDONLY, "size=64k") == 0);
    write_out();
    cr_expect(umount(directory) == 0);
}

Test(stats, a_child_has_a_file_of_its_own)
{
    struct stats *stats = publish(0, "a");
    pid_t child = fork();

    if (child == 0) {
        struct stats *own;

        stats_count(&stats->kept);
        owner_adopt();
        if (!stats_after_fork_in_child())
            _exit(1);
        stats_count(&stats->opened);
        write_out();
        own = publish(0, "a");
        if (!own || files_in(directory) != 2)
            _exit(2);
        stats_count(&own->connects);
        stats_finish();
        _exit(files_in(directory) == 1 ? 0 : 3);
    }
    expect_good_end(child);
    write_out();
    read_file(own_path());
    cr_expect(slot_in_file(0)->stats.kept == 0 && slot_in_file(0)->stats.opened == 0);
    cr_expect(slot_in_file(0)->stats.connects == 0);
}

Test(stats, a_child_tries_again_what_its_parent_could_not)
{
    strcat(config.stats, "/later");
    cr_expect(publish(0, "a") == NULL);
    cr_assert(mkdir(config.stats, 0700) == 0);
    cr_assert(stats_after_fork_in_child());
    cr_expect(stats_wanted && publish(0, "a") != NULL);
}

/* A pid that no process has. */
static pid_t gone(void)
{
    pid_t child = fork();

    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    return child;
}

static void leave_file(pid_t pid, uint64_t namespace, size_t size)
{
    struct stats_header header = {.magic = STATS_MAGIC, .pid_namespace = namespace, .pid = pid};
    int fd = creat(path_in(directory, pid, 1), 0600);

    cr_assert(write(fd, &header, size) == (ssize_t)size);
    close(fd);
}

static bool is_there(pid_t pid)
{
    return access(path_in(directory, pid, 1), F_OK) == 0;
}

Test(stats, new_processes_remove_what_the_dead_left)
{
    pid_t dead = gone(), elsewhere = gone(), unborn = gone();

    leave_file(dead, own_namespace(), sizeof(struct stats_header));
    leave_file(elsewhere, own_namespace() + 1, sizeof(struct stats_header));
    leave_file(unborn, 0, 0);
    leave_file(getppid(), own_namespace(), sizeof(struct stats_header));
    cr_assert(publish(0, "a"));
    cr_expect(!is_there(dead));
    cr_expect(is_there(unborn), "it has no magic number, so it may be anybody's");
    cr_expect(is_there(elsewhere), "who counts in another namespace may live");
    cr_expect(is_there(getppid()));
}

Test(stats, new_processes_remove_a_few_each)
{
    int before;

    for (int i = 0; i < 20; i++)
        leave_file(gone(), own_namespace(), sizeof(struct stats_header));
    before = files_in(directory);
    cr_assert(publish(0, "a"));
    cr_expect(files_in(directory) == before + 1 - 8);
}

/* exec() leaves the pid and the start time as they are. */
Test(stats, an_earlier_image_of_the_process_is_gone)
{
    struct stats_header header = {.magic = STATS_MAGIC, .pid_namespace = own_namespace()};
    int fd = creat(own_path(), 0600);

    cr_assert(write(fd, &header, sizeof(header)) == sizeof(header));
    cr_expect(publish(0, "a") != NULL);
    cr_expect(read_file(own_path()) > 0 && file.header.magic == STATS_MAGIC);
}

Test(stats, a_namesake_in_another_namespace_is_not)
{
    struct stats_header header = {.magic = STATS_MAGIC, .pid_namespace = own_namespace() + 1};
    int fd = creat(own_path(), 0600);

    cr_assert(write(fd, &header, sizeof(header)) == sizeof(header));
    expect_none();
    cr_expect(files_in(directory) == 1);
}

Test(stats, moving)
{
    static struct stats from, to;

    stats_set(&from.in_use, 3);
    stats_set(&to.in_use, 2);
    stats_set(&from.connects, 5);
    stats_set(&to.connects, 10);
    stats_set(&from.discarded[REASON_COUNT - 1], 1);
    stats_move(&to, &from);
    cr_expect(to.in_use == 3, "a gauge is what is so now");
    cr_expect(to.connects == 15 && from.connects == 0);
    cr_expect(to.discarded[REASON_COUNT - 1] == 1);
    stats_move(&to, &from);
    cr_expect(to.connects == 15);
}

Test(stats, names_of_files)
{
    static const char *const bad[] = {
        "",      "12",     "12-",          "-12",
        "12-3x", "a-3",    "2147483648-1", "12-18446744073709551616",
        ".",     "12-3-4", " 1-2",         "012-3",
        "12-03", "12-00",  "0-1"};
    uint64_t start;
    int pid;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect(!stats_parse_name(bad[i], &pid, &start), "%s", bad[i]);
    cr_expect(stats_parse_name("12-18446744073709551615", &pid, &start));
    cr_expect(pid == 12 && start == UINT64_MAX);
}

static uint64_t start_in(const char *text)
{
    return stats_parse_start(text, strlen(text));
}

Test(stats, start_of_a_process)
{
    cr_expect(start_in("1 (a) b) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 222 23\n") ==
              222);
    cr_expect(start_in("1 (a S 4) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 2") == 0);
    cr_expect(start_in("1 (a S") == 0 && start_in("") == 0 && start_in("1 (a)") == 0);
}
