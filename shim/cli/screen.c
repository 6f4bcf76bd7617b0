#include "cli/screen.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* The other screen, no cursor, no wrap at the end of a line; and back. */
#define TAKE "\033[?1049h\033[?25l\033[?7l"
#define GIVE "\033[m\033[?7h\033[?25h\033[?1049l"

static struct termios as_it_was;
static struct winsize size;
static int next_line; /* of the drawing */
static int room;      /* in the line that is drawn */

/* The last signal that was not looked at. Signals come only while the command waits for a key.
 */
static volatile sig_atomic_t signalled;
static sigset_t outside; /* the signal mask while it waits */

static void note_signal(int number)
{
    signalled = number;
}

static void read_size(void)
{
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0)
        size = (struct winsize){.ws_col = 80, .ws_row = 24};
}

static void take(void)
{
    struct termios raw = as_it_was;

    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    fputs(TAKE, stdout);
    fflush(stdout);
    read_size();
}

static void watch(int number)
{
    struct sigaction old, action = {.sa_handler = note_signal};
    sigset_t mask;

    if (sigaction(number, NULL, &old) != 0 || old.sa_handler == SIG_IGN)
        return;
    sigemptyset(&mask);
    sigaddset(&mask, number);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    sigaction(number, &action, NULL);
}

bool screen_begin(void)
{
    const char *kind = getenv("TERM");

    if (!isatty(STDOUT_FILENO) || !kind || !*kind || strcmp(kind, "dumb") == 0 ||
        tcgetattr(STDIN_FILENO, &as_it_was) != 0)
        return false;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    sigprocmask(SIG_BLOCK, NULL, &outside);
    watch(SIGINT);
    watch(SIGTERM);
    watch(SIGHUP);
    watch(SIGTSTP);
    watch(SIGWINCH);
    take();
    return true;
}

void screen_end(void)
{
    fputs(GIVE, stdout);
    fflush(stdout);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &as_it_was);
}

int screen_columns(void)
{
    return size.ws_col;
}

int screen_lines(void)
{
    return size.ws_row;
}

static void clear_lines(int until)
{
    for (; next_line < until && next_line < size.ws_row; next_line++)
        printf("\033[m\033[%d;1H\033[2K", next_line + 1);
}

void screen_line(int line, enum screen_look look)
{
    clear_lines(line + 1);
    room = line < size.ws_row ? size.ws_col : 0;
    printf("\033[%dm", look);
}

void screen_add(const char *text)
{
    for (; *text && room > 0; room--, text++)
        putchar(*text >= ' ' && *text <= '~' ? *text : '?');
}

void screen_show(void)
{
    clear_lines(size.ws_row);
    next_line = 0;
    fflush(stdout);
}

/* What NUMBER, a signal that came, means to the caller. */
static int obey_signal(int number)
{
    if (number == SIGWINCH) {
        read_size();
        return SCREEN_RESIZED;
    }
    screen_end();
    if (number == SIGTSTP) {
        raise(SIGSTOP);
        take();
        return SCREEN_RESIZED;
    }
    signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &outside, NULL);
    raise(number);
    return 'q';
}

/* One byte from the terminal; -1 when none comes within MILLISECONDS, 'q' when none can come.
 */
static int next_byte(int milliseconds)
{
    struct pollfd keys = {.fd = STDIN_FILENO, .events = POLLIN};
    struct timespec most = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    unsigned char byte;

    if (ppoll(&keys, 1, &most, &outside) <= 0)
        return -1;
    return read(STDIN_FILENO, &byte, 1) == 1 ? byte : 'q';
}

static int letter_key(int letter)
{
    switch (letter) {
    case 'A':
        return SCREEN_UP;
    case 'B':
        return SCREEN_DOWN;
    case 'H':
        return SCREEN_HOME;
    case 'F':
        return SCREEN_END;
    default:
        return SCREEN_OTHER;
    }
}

static int number_key(int number)
{
    switch (number) {
    case 1:
    case 7:
        return SCREEN_HOME;
    case 4:
    case 8:
        return SCREEN_END;
    case 5:
        return SCREEN_PAGE_UP;
    case 6:
        return SCREEN_PAGE_DOWN;
    default:
        return SCREEN_OTHER;
    }
}

/* The key whose sequence began with ESC: ESC O letter, ESC [ letter, ESC [ number ~. */
static int escaped_key(void)
{
    const int soon = 50;
    int byte = next_byte(soon), number = 0;

    if (byte == 'O')
        return letter_key(next_byte(soon));
    if (byte != '[')
        return SCREEN_OTHER;
    while ((byte = next_byte(soon)) >= '0' && byte <= '?') {
        if (byte <= '9' && number < 100)
            number = 10 * number + byte - '0';
    }
    return byte == '~' ? number_key(number) : letter_key(byte);
}

int screen_wait(double seconds)
{
    int byte = next_byte(seconds > 0 ? (int)(seconds * 1000) + 1 : 0);
    int number = signalled;

    if (number) {
        signalled = 0;
        return obey_signal(number);
    }
    if (byte < 0)
        return SCREEN_NO_KEY;
    return byte == '\033' ? escaped_key() : byte;
}
