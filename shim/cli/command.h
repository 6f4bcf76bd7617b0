/*
 * The subcommands of mcpool, their exit codes, and the functions that they share.
 */
#ifndef MCPOOL_COMMAND_H
#define MCPOOL_COMMAND_H

#include <stdbool.h>
#include <stdio.h>

#define LIBRARY "libmcpool.so"

/* Exit codes. `mcpool run` also returns those of the program that it runs. */
#define EXIT_NO         1 /* there is nothing to show, or pooling cannot work */
#define EXIT_USAGE      2
#define EXIT_CANNOT_RUN 126
#define EXIT_NOT_FOUND  127

/* ARGV[0] is the name for messages, the arguments of the subcommand follow. Each returns the
 * exit code. */
int command_run(int argc, char **argv);
int command_check(int argc, char **argv);
int command_stat(int argc, char **argv);
int command_top(int argc, char **argv);
int command_metrics(int argc, char **argv);
int command_explain(int argc, char **argv);
int command_doctor(int argc, char **argv);
int command_off(int argc, char **argv);
int command_on(int argc, char **argv);
int command_dry(int argc, char **argv);
int command_flush(int argc, char **argv);

/* Says on stderr how to get help for COMMAND. Returns EXIT_USAGE. */
int usage_error(const char *command);

/* The same for the argument TEXT, which is not what is WANTED. */
int bad_argument(const char *command, const char *text, const char *wanted);

/* Flushes stdout. Returns CODE, or EXIT_FAILURE if the output could not be written, for example
 * to a full disk. */
int flushed(int code);

/* Fills PID. False when TEXT is not a positive whole number, and nothing else. */
bool parse_pid(const char *text, int *pid);

/* Whether PRELOAD, a value of LD_PRELOAD, names the library. */
bool is_preloaded(const char *preload);

/* Says on TO why the library cannot be preloaded into PROGRAM, which is searched as execvp()
 * does. True, and says nothing, when it can be preloaded, or there is no such program. */
bool check_program(const char *program, FILE *to);

#endif
