/*
 * The settings, judged by the parser that the library has.
 */
#ifndef MCPOOL_SETTINGS_H
#define MCPOOL_SETTINGS_H

#include <stdbool.h>

/* Returns what is wrong with VALUE for the variable NAME, and what would be right; NULL when it
 * is right. The text is printable, and valid until the next call. */
const char *settings_problem(const char *name, const char *value);

/* Says on stderr, in a line for each, which variables of our environment are wrong. With REFUSE
 * the line says that nothing is run. True when all are right. */
bool settings_warn(bool refuse);

/* Prints the settings that our environment makes, and what is wrong in it. True when nothing
 * is. */
bool settings_tell_own(void);

/* Prints the settings of the process PID, and what it rejected, from its environment. */
void settings_tell_process(int pid);

#endif
