/*
 * Texts for people: durations, and lines that fit a terminal.
 */
#ifndef MCPOOL_TEXT_H
#define MCPOOL_TEXT_H

/* The text of a duration: "1.2 ms", "3.4 s", "5.6 h". Valid until the next call. */
const char *text_duration(double seconds);

/* Prints TEXT in lines of 78 columns at most. The first one begins with FIRST, the others with
 * as many blanks. */
void text_print_wrapped(const char *first, const char *text);

#endif
