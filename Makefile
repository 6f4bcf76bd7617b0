# libmcpool. `make` builds the library and the command, `make help` lists everything else. A comment
# with two number signs is a line of that list.

VERSION := 0.1.0

## PREFIX where `make install` puts everything (/usr/local)
PREFIX ?= /usr/local
## DESTDIR a root to install in, as for packages
DESTDIR ?=
## LIBDIR the library; ld.so searches the default when LD_PRELOAD has a bare name
LIBDIR ?= $(PREFIX)/lib/$(subst -pc-,-,$(shell $(CC) -dumpmachine 2>/dev/null))
## BINDIR the command
BINDIR ?= $(PREFIX)/bin
## MANDIR the manuals
MANDIR ?= $(PREFIX)/share/man
## DOCDIR the dashboard
DOCDIR ?= $(PREFIX)/share/doc/mcpool
## BASHDIR completions for bash
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
## ZSHDIR completions for zsh
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
## TMPFILESDIR what makes STATSDIR after a restart of the machine
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
## STATSDIR where processes show their counters; see MCPOOL_STATS (/run/mcpool)
STATSDIR ?= /run/mcpool
## B the folder to build in (build)
B := build
## CC the compiler, gcc or clang (cc)
## CFLAGS its options (-O2 -g)
CFLAGS ?= -O2 -g
## LDFLAGS its options when it links
LDFLAGS ?=
## V 1 shows the commands
V ?= 0

# Begins a command: its short form is shown, with V=1 the command, with `make -s` nothing.
SILENT := $(findstring s,$(filter-out --%,$(firstword $(MAKEFLAGS))))
say = $(if $(filter 1,$(V)),,@$(if $(SILENT),,printf '  %-7s %s\n' $(1) $(2); ))
MAKEFLAGS += --no-print-directory

WARNINGS := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wvla -Wundef \
            -Wno-unknown-warning-option -Wno-missing-attributes
# The library is the same wherever it is built: sources have relative names, and so has their folder.
SAME_ANYWHERE := '-fdebug-prefix-map=$(CURDIR)=.'
# No _FORTIFY_SOURCE and no large-file names: both would rename the functions we define.
BASE := -std=gnu11 $(WARNINGS) -D_GNU_SOURCE -U_FORTIFY_SOURCE -U_FILE_OFFSET_BITS -pthread \
        -Ishim -DMCPOOL_VERSION='"$(VERSION)"' $(SAME_ANYWHERE)
# A reused connection runs through a dozen small files; together, and in one piece, they need the fewest
# instructions. Clang would want another linker for it.
LTO := $(if $(findstring clang,$(shell $(CC) --version 2>/dev/null)),,$(if $(findstring -O2,$(CFLAGS)),-flto \
         -flto-partition=one))
# By both names that an object may have: B can be given as an absolute path.
NOTE_HEADERS = -MMD -MP -MQ '$(if $(filter /%,$@),,$(CURDIR)/)$@' -MQ '$(patsubst $(CURDIR)/%,%,$@)'
# Runs with glibc 2.28, whatever it is built with.
OLDER := -include shim/base/older.h
# NDEBUG: a library in somebody else's process never aborts.
SHIM_CFLAGS := $(BASE) $(OLDER) $(LTO) -DNDEBUG -fPIC -fvisibility=hidden -fno-plt -ftls-model=initial-exec \
               -fno-semantic-interposition -fdata-sections
# No start files: what they bring is for C++ and for profiles, and each process would look their functions up.
SHIM_LDFLAGS := -shared -pthread -Wl,-soname,libmcpool.so -Wl,-z,now -Wl,-z,relro \
                -Wl,-z,nodelete -Wl,-z,defs -Wl,-z,noexecstack -Wl,--as-needed -Wl,--sort-section=alignment \
                -nostartfiles

SHIM_SOURCES := $(filter-out shim/cli/%,$(sort $(wildcard shim/*.c shim/*/*.c shim/*/*.S)))
SHIM_FILES := $(wildcard shim/*.[ch] shim/*/*.[chS] shim/*/*.def)
SHIM_OBJECTS := $(patsubst %,$(B)/%.o,$(SHIM_SOURCES))
LIBRARY := $(B)/libmcpool.so

## all builds the library and the command (the default)
all: $(LIBRARY) $(B)/mcpool

$(B)/%.c.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(SHIM_CFLAGS) $(CFLAGS) $(NOTE_HEADERS) -c $< -o $@

# Line numbers of assembly would bring clang's temporary names.
$(B)/%.S.o: %.S Makefile
	@mkdir -p $(@D)
	$(call say,AS,$<)$(CC) $(SHIM_CFLAGS) $(CFLAGS) -g0 $(NOTE_HEADERS) -c $< -o $@

# Hooks of libc are unversioned, so that programs bound to any version of a symbol meet them. Those of
# other libraries have the version they have there (hooks/foreign.S). The loader takes the first
# version for that of references without one, so no library has the first.
$(B)/libmcpool.map: shim/hooks/hooks.def Makefile
	@mkdir -p $(@D)
	$(call say,MAP,$@){ echo 'LIBMCPOOL { local: foreign_*; _init; _fini; __bss_start; _edata; _end; };'; \
	  printf '%s\n' '#define HOOK(ret, name, params, before)' '#define HOOK_CHILD(name)' \
	    '#define ALIAS(name, hook)' '#define HOOK_FOREIGN(ret, name, version, body, params) version { };' \
	    '#include "shim/hooks/hooks.def"' | $(CC) -E -P -I. -Ishim -x c - | tr -d '"' | LC_ALL=C sort -u; } > $@

$(LIBRARY): $(SHIM_OBJECTS) $(B)/libmcpool.map
	$(call say,LD,$@)$(CC) $(SHIM_LDFLAGS) $(LTO) $(SAME_ANYWHERE) $(CFLAGS) $(LDFLAGS) \
	  -Wl,--version-script=$(B)/libmcpool.map $(SHIM_OBJECTS) -o $@

-include $(SHIM_OBJECTS:.o=.d)

# The command.

COMMAND_SOURCES := $(sort $(wildcard shim/cli/*.c)) shim/stats/stats_file.c shim/base/reasons.c \
                   shim/base/fmt.c $(sort $(wildcard shim/config/*.c))
COMMAND_OBJECTS := $(patsubst %,$(B)/command/%.o,$(COMMAND_SOURCES) shim/cli/start.S)

$(B)/command/%.c.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(BASE) $(OLDER) $(CFLAGS) -DMCPOOL_LIBDIR='"$(LIBDIR)"' $(NOTE_HEADERS) -c $< -o $@

$(B)/command/%.S.o: %.S Makefile
	@mkdir -p $(@D)
	$(call say,AS,$<)$(CC) $(BASE) $(CFLAGS) -g0 -c $< -o $@

$(B)/mcpool: $(COMMAND_OBJECTS)
	$(call say,LD,$@)$(CC) $(LDFLAGS) -Wl,--wrap=__libc_start_main $^ -o $@

-include $(COMMAND_OBJECTS:.o=.d)

include tests/tests.mk bench/bench.mk packaging/packaging.mk

# Style and tools.

# Files that git tracks, or would if they were added.
OURS = git ls-files --cached --others --exclude-standard
C_FILES = $(shell $(OURS) '*.c' '*.h')
SHELL_FILES = .ci/run .ci/packages packaging/fill packaging/debian/tests/pools $(shell $(OURS) "*.sh" "*.bash")
LINTED = $(wildcard shim/*.c shim/*/*.c)

## format writes the C as .clang-format has it
format:
	$(call say,FORMAT)clang-format -i $(C_FILES)

## lint only looks: clang-format, cppcheck, clang-tidy, shellcheck
lint:
	@.ci/packages lint
	$(call say,FORMAT)clang-format --dry-run --Werror $(C_FILES)
	$(call say,CHECK)cppcheck --quiet --error-exitcode=1 --enable=warning,performance,portability --std=c11 \
	  --suppress=missingIncludeSystem --suppress=uninitvar:shim/pool/pool.c --suppress=uninitvar:shim/conn/endpoint.c \
	  -Ishim -D__x86_64__ -D_GNU_SOURCE -DMCPOOL_VERSION='"$(VERSION)"' \
	  $(LINTED)
	$(call say,TIDY)clang-tidy --quiet $(LINTED) -- -std=gnu11 -Ishim -D_GNU_SOURCE -DNDEBUG \
	  -DMCPOOL_VERSION='"$(VERSION)"' -DMCPOOL_LIBDIR='"$(LIBDIR)"'
	$(call say,SHELL)shellcheck $(SHELL_FILES)

## compile_commands writes compile_commands.json, which clangd reads
compile_commands:
	@$(MAKE) -nB V=1 all $(PLAIN_PROGRAMS) $(BENCH_PROGRAMS) | /usr/bin/python3 .ci/compile_commands.py >compile_commands.json

## docs draws shim/life.svg
docs: shim/life.svg

shim/life.svg: shim/life.dot
	@.ci/packages docs
	$(call say,DOT,$@)dot -Tsvg $< -o $@

## clean removes what was built
clean:
	$(call say,CLEAN,$(B))rm -rf $(B)

## help shows this
help:
	@list() { sed -n "s/^## \([$$1][A-Za-z0-9_-]*\) \(.*\)/\1\t\2/p" $(filter %Makefile %.mk,$(MAKEFILE_LIST)) | \
	  awk -F '\t' '{ printf "  %-17s %s\n", $$1, $$2 }'; }; \
	echo 'Targets:'; list a-z; echo; echo 'Variables, as in make PREFIX=/usr:'; list A-Z

.PHONY: all format lint compile_commands docs clean help
.DELETE_ON_ERROR:
