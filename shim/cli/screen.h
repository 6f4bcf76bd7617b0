/*
 * A terminal's screen for mcpool top: lines of ASCII text from top to bottom, and keys. Every
 * terminal in use today understands the few sequences that are needed (ECMA-48), so the command
 * needs no library for them.
 */
#ifndef MCPOOL_SCREEN_H
#define MCPOOL_SCREEN_H

#include <stdbool.h>

enum screen_key {
    SCREEN_NO_KEY = -1,
    SCREEN_RESIZED = 256, /* or shown again after a stop: to be drawn again */
    SCREEN_UP,
    SCREEN_DOWN,
    SCREEN_PAGE_UP,
    SCREEN_PAGE_DOWN,
    SCREEN_HOME,
    SCREEN_END,
    SCREEN_OTHER,
};

enum screen_look { SCREEN_PLAIN = 0, SCREEN_BOLD = 1, SCREEN_REVERSE = 7 };

/* Takes over the terminal at standard input and output. False when there is none. */
bool screen_begin(void);

/* Gives it back as it was. */
void screen_end(void);

int screen_columns(void);
int screen_lines(void);

/* What is added next comes in LINE, which is empty, and looks like LOOK. A drawing goes from
 * top to bottom; lines that it leaves out are empty. */
void screen_line(int line, enum screen_look look);

/* Adds TEXT; what does not fit into the line is left out. */
void screen_add(const char *text);

/* The drawing is complete: shows it. The next one begins at the top. */
void screen_show(void);

/* Waits for a key, for at most SECONDS. A character, or a value of enum screen_key. 'q' when
 * the terminal is gone. A signal that ends the process gives the terminal back first. */
int screen_wait(double seconds);

#endif
