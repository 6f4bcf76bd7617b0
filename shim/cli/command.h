/*
 * What the subcommands of mcpool share.
 */
#ifndef MCPOOL_COMMAND_H
#define MCPOOL_COMMAND_H

#include <stdbool.h>
#include <stdio.h>

#define LIBRARY "libmcpool.so"

/* Beside these `run` has the program's own. */
#define EXIT_NO         1 /* there is nothing to show, or pooling cannot work */
#define EXIT_USAGE      2
#define EXIT_CANNOT_RUN 126
#define EXIT_NOT_FOUND  127

/* Each is given its own name as ARGV[0] and returns the exit code. */
int command_run(int argc, char **argv);
int command_check(int argc, char **argv);
int command_stat(int argc, char **argv);
int command_top(int argc, char **argv);
int command_metrics(int argc, char **argv);
int command_explain(int argc, char **argv);

/* Says on stderr how to find help for COMMAND; EXIT_USAGE. */
int usage_error(const char *command);

/* Output that could not be written, to a full disk say, is no success: else CODE. */
int flushed(int code);

/* A positive whole number, and nothing else. False for any other text. */
bool parse_pid(const char *text, int *pid);

/* Whether one of the files in PRELOAD, a value of LD_PRELOAD, is the library. */
bool is_preloaded(const char *preload);

/* Says on TO what stands in the way of preloading PROGRAM, which is looked for as execvp()
 * does; nothing when nothing does. True when pooling can work. */
bool check_program(const char *program, FILE *to);

#endif
