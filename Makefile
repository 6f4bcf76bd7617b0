# libmcpool. `make` builds, `make demo`, `make test` and `make bench` do all their own set-up.

VERSION := 0.1.0

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
DOCDIR ?= $(PREFIX)/share/doc/mcpool
# Where processes show their counters; see MCPOOL_STATS.
STATSDIR ?= /run/mcpool
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
# ld.so searches these when LD_PRELOAD has a bare name; a library elsewhere is not found by it.
LIBDIR ?= $(PREFIX)/lib/$(subst -pc-,-,$(shell $(CC) -dumpmachine))

B := build
CC ?= gcc
CFLAGS ?= -O2 -g

WARNINGS := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wvla -Wundef \
            -Wno-unknown-warning-option -Wno-missing-attributes
# No _FORTIFY_SOURCE and no large-file names: both would rename the functions we define.
BASE := -std=gnu11 $(WARNINGS) -D_GNU_SOURCE -U_FORTIFY_SOURCE -U_FILE_OFFSET_BITS -pthread \
        -Ishim -DMCPOOL_VERSION='"$(VERSION)"'
# A reused connection runs through a dozen small files; together, and in one piece, they need the fewest
# instructions. Clang would want another linker for it.
LTO := $(if $(findstring clang,$(shell $(CC) --version)),,$(if $(findstring -O2,$(CFLAGS)),-flto \
         -flto-partition=one))
# NDEBUG: a library in somebody else's process never aborts.
SHIM_CFLAGS := $(BASE) $(LTO) -DNDEBUG -fPIC -fvisibility=hidden -fno-plt -ftls-model=initial-exec \
               -fno-semantic-interposition -fdata-sections
SHIM_LDFLAGS := -shared -pthread -Wl,-soname,libmcpool.so -Wl,-z,now -Wl,-z,relro \
                -Wl,-z,nodelete -Wl,-z,defs -Wl,-z,noexecstack -Wl,--as-needed -Wl,--sort-section=alignment

SHIM_SOURCES := $(filter-out shim/cli/%,$(wildcard shim/*.c shim/*/*.c shim/*/*.S))
SHIM_FILES := $(wildcard shim/*.[ch] shim/*/*.[chS] shim/*/*.def)
SHIM_OBJECTS := $(patsubst %,$(B)/%.o,$(SHIM_SOURCES))
LIBRARY := $(B)/libmcpool.so

all: $(LIBRARY) $(B)/mcpool

$(B)/%.c.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(SHIM_CFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

$(B)/%.S.o: %.S Makefile
	@mkdir -p $(@D)
	$(CC) $(SHIM_CFLAGS) $(CFLAGS) -c $< -o $@

# Hooks of libc are unversioned, so that programs bound to any version of a symbol meet them. Those of
# other libraries have the version they have there (hooks/foreign.S). The loader takes the first
# version for that of references without one, so no library has the first.
$(B)/libmcpool.map: shim/hooks/hooks.def Makefile
	@mkdir -p $(@D)
	{ echo 'LIBMCPOOL { local: foreign_*; _init; _fini; __bss_start; _edata; _end; };'; \
	  printf '%s\n' '#define HOOK(ret, name, params, before)' '#define HOOK_CHILD(name)' \
	    '#define ALIAS(name, hook)' '#define HOOK_FOREIGN(ret, name, version, body, params) version { };' \
	    '#include "shim/hooks/hooks.def"' | $(CC) -E -P -I. -Ishim -x c - | tr -d '"' | sort -u; } > $@

$(LIBRARY): $(SHIM_OBJECTS) $(B)/libmcpool.map
	$(CC) $(SHIM_LDFLAGS) $(LTO) $(CFLAGS) $(LDFLAGS) -Wl,--version-script=$(B)/libmcpool.map $(SHIM_OBJECTS) \
	  -ldl -o $@

-include $(SHIM_OBJECTS:.o=.d)

# The command.

COMMAND_SOURCES := $(wildcard shim/cli/*.c) shim/stats/stats_file.c shim/base/reasons.c
COMMAND_OBJECTS := $(patsubst %,$(B)/command/%.o,$(COMMAND_SOURCES))

$(B)/command/%.c.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(BASE) $(CFLAGS) -DMCPOOL_LIBDIR='"$(LIBDIR)"' -MMD -MP -c $< -o $@

$(B)/mcpool: $(COMMAND_OBJECTS)
	$(CC) $(LDFLAGS) $^ -lncurses -ltinfo -o $@

-include $(COMMAND_OBJECTS:.o=.d)

# Tests. The unit tests see the modules that need no hook, with sanitizers and assertions.

UNIT_SHIM := $(addprefix shim/,base/fmt base/lock base/ownfile base/owner base/reasons config/address \
               config/config conn/conn conn/fdmap conn/sockopts pool/pool stats/stats stats/stats_file)
UNIT_SOURCES := $(addsuffix .c,$(UNIT_SHIM)) $(wildcard shim/wire/*.c tests/unit/*.c)
UNIT_OBJECTS := $(patsubst %,$(B)/unit/%.o,$(UNIT_SOURCES))
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

$(B)/unit/%.c.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(BASE) $(SANITIZE) -O1 -g -MMD -MP -c $< -o $@

$(B)/tests/unit: $(UNIT_OBJECTS)
	@mkdir -p $(@D)
	$(CC) $(SANITIZE) -pthread $^ -lcriterion -o $@

INTEGRATION_OBJECTS := $(patsubst %,$(B)/%.o,$(filter-out %/early.c %/plugin.c,$(wildcard tests/integration/*.c)))

$(B)/tests/integration/%.c.o: tests/integration/%.c Makefile
	@mkdir -p $(@D)
	$(CC) $(BASE) $(CFLAGS) -MMD -MP -c $< -o $@

$(B)/tests/integration_tests: $(INTEGRATION_OBJECTS)
	@mkdir -p $(@D)
	$(CC) -pthread $^ -lcriterion -o $@

-include $(UNIT_OBJECTS:.o=.d) $(INTEGRATION_OBJECTS:.o=.d)

$(B)/tests/differential: tests/differential/wire_differential.c $(wildcard shim/wire/*.[ch])
	@mkdir -p $(@D)
	$(CC) $(BASE) -O2 -g $(filter %.c,$^) -o $@

# These programs call with bad arguments on purpose.
$(B)/tests/programs: $(wildcard tests/transparency/programs/*.[ch])
	@mkdir -p $(@D)
	$(CC) $(BASE) -w -O1 -g $(filter %.c,$^) -o $@

# The same for as long as one likes: make differential SEQUENCES=10000000 SECONDS=28800
SEQUENCES ?= 1000000
SECONDS ?= 3600

differential: $(B)/tests/differential
	/usr/bin/python3 tests/differential/run.py $< $(SEQUENCES) $(SECONDS)

# libFuzzer, one program for each kind of dialogue. The first to find something worth keeping adds it
# to tests/fuzz/corpus; see fuzz-corpus.
FUZZERS := $(addprefix $(B)/fuzz/fuzz-,text meta binary)
FUZZ_SECONDS ?= 600

$(FUZZERS): tests/fuzz/wire_fuzz.c $(wildcard shim/wire/*.[ch])
	@mkdir -p $(@D)
	clang $(BASE) -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	  $(filter %.c,$^) -o $@

$(B)/fuzz/make_corpus: tests/fuzz/make_corpus.c tests/unit/wire_vectors.c
	@mkdir -p $(@D)
	$(CC) $(BASE) $^ -o $@

fuzz: $(FUZZERS)
	/usr/bin/python3 tests/fuzz/run.py $(B)/fuzz $(FUZZ_SECONDS)

# The corpus anew: the dialogues of the unit tests and what fuzzing finds from there.
fuzz-corpus: $(FUZZERS) $(B)/fuzz/make_corpus
	for kind in text meta binary; do \
	  rm -rf $(B)/fuzz/$$kind tests/fuzz/corpus/$$kind; \
	  mkdir -p $(B)/fuzz/$$kind tests/fuzz/corpus/$$kind; \
	done
	$(B)/fuzz/make_corpus $(B)/fuzz
	for kind in text meta binary; do \
	  $(B)/fuzz/fuzz-$$kind $(B)/fuzz/$$kind -dict=tests/fuzz/$$kind.dict -max_len=512 \
	    -max_total_time=$(FUZZ_SECONDS) -verbosity=0 && \
	  $(B)/fuzz/fuzz-$$kind -merge=1 -max_len=512 tests/fuzz/corpus/$$kind $(B)/fuzz/$$kind || \
	  exit 1; \
	done

# The library whose own system calls can be made to fail.
FAULTY := $(B)/faults/libmcpool.so

$(B)/faults/fault.o: tests/faults/fault.c tests/faults/raw.h
	@mkdir -p $(@D)
	$(CC) $(SHIM_CFLAGS) $(CFLAGS) -c $< -o $@

$(FAULTY): $(B)/faults/fault.o $(SHIM_FILES)
	$(MAKE) B=$(B)/faults CFLAGS='$(CFLAGS) -include tests/faults/raw.h' \
	  LDFLAGS='$(LDFLAGS) $<' $@

$(B)/faults/scenes: tests/faults/scenes.c
	@mkdir -p $(@D)
	$(CC) $(BASE) $(CFLAGS) $< -o $@

# The library under sanitizers, and with pauses wherever threads may meet.
SANITIZED := $(B)/asan/libmcpool.so
STRESSED_LIBRARIES := $(B)/stressed/libmcpool.so $(B)/tsan/libmcpool.so
STRESS_SECONDS ?= 600

$(SANITIZED): $(SHIM_FILES)
	$(MAKE) B=$(B)/asan CFLAGS='-O1 -g $(SANITIZE)' LDFLAGS='$(SANITIZE)' $@

$(B)/%/pauses.o: tests/stress/pauses.c tests/stress/pauses.h
	@mkdir -p $(@D)
	$(CC) $(SHIM_CFLAGS) -O2 -c $< -o $@

$(B)/stressed/libmcpool.so: $(B)/stressed/pauses.o $(SHIM_FILES)
	$(MAKE) B=$(B)/stressed CFLAGS='-O1 -g -include tests/stress/pauses.h' LDFLAGS='$<' $@

$(B)/tsan/libmcpool.so: $(B)/tsan/pauses.o $(SHIM_FILES)
	$(MAKE) B=$(B)/tsan CFLAGS='-O1 -g -fsanitize=thread -include tests/stress/pauses.h' \
	  LDFLAGS='-fsanitize=thread $<' $@

$(B)/stressed/stress: tests/stress/stress.c
	@mkdir -p $(@D)
	$(CC) $(BASE) -w -O1 -g $< -o $@

# The library calls a function of this one.
$(B)/stressed/stopped: tests/stress/stopped.c
	@mkdir -p $(@D)
	$(CC) $(BASE) -w -O1 -g -rdynamic $< -o $@

$(B)/tsan/stress: tests/stress/stress.c
	@mkdir -p $(@D)
	$(CC) $(BASE) -w -O1 -g -fsanitize=thread $< -o $@

STRESSED := $(STRESSED_LIBRARIES) $(B)/stressed/stress $(B)/stressed/stopped $(B)/tsan/stress

stress: $(STRESSED)
	/usr/bin/python3 tests/stress/run.py $(B) $(STRESS_SECONDS)

# For the other architecture. uthash is only headers, found behind the headers of that.
CROSS := aarch64-linux-gnu-

aarch64-programs:
	$(MAKE) B=$(B)/aarch64 CC=$(CROSS)gcc CFLAGS='-O2 -g -Werror -idirafter /usr/include' \
	  $(B)/aarch64/libmcpool.so $(B)/aarch64/tests/programs $(B)/aarch64/tests/differential

# Real servers for minutes, while everything around them is restarted.
SOAK_SECONDS ?= 300

soak: all
	.ci/packages build test
	/usr/bin/python3 tests/soak/soak.py $(LIBRARY) $(SOAK_SECONDS)

# The other compiler: warnings are errors there and here.
both-compilers:
	$(MAKE) B=$(B)/gcc CC=gcc CFLAGS='$(CFLAGS) -Werror' all
	$(MAKE) B=$(B)/clang CC=clang CFLAGS='$(CFLAGS) -Werror' all

test-programs: all $(B)/tests/unit $(B)/tests/integration_tests $(B)/tests/differential $(B)/tests/programs \
               $(B)/bench/instructions \
               $(FUZZERS) $(FAULTY) $(B)/faults/scenes $(SANITIZED) $(STRESSED)

test:
	.ci/packages build test package
	$(MAKE) both-compilers aarch64-programs test-programs
	/usr/bin/python3 tests/run.py $(B)

# What takes too long for every change: a stage takes about NIGHT_SECONDS, the soak twice as long.
NIGHT_SECONDS ?= 450

plain-programs:
	$(MAKE) B=$(B)/plain SANITIZE= $(B)/plain/tests/unit $(B)/plain/tests/integration_tests

night:
	.ci/packages build test package night
	$(MAKE) test-programs plain-programs
	/usr/bin/python3 tests/run.py --night $(NIGHT_SECONDS) $(B)

# Lines and branches of the shim that tests reach, with the library whose calls can be made to fail.
# Children that leave by _exit(), exec or a signal are not counted. Some tests fail by the measuring: it
# keeps dlopen() from being a jump, and speaks of what programs with another user, another root or no
# descriptors left keep it from writing.
COVERED := $(B)/coverage
COVERAGE_STAGES ?= unit integration transparency faults
COVERAGE_LEAST := 90
GCOVR := gcovr -r . --gcov-ignore-parse-errors --object-directory $(COVERED) -f shim/
COVERAGE_CFLAGS := -O1 -g --coverage -fprofile-update=atomic -foptimize-sibling-calls

coverage:
	.ci/packages build test coverage
	rm -rf $(COVERED)
	$(MAKE) B=$(COVERED) $(addprefix $(COVERED)/,faults/fault.o faults/scenes tests/integration_tests tests/programs)
	$(MAKE) B=$(COVERED) CFLAGS='$(COVERAGE_CFLAGS) -include tests/faults/raw.h' SANITIZE=--coverage \
	  LDFLAGS='--coverage $(COVERED)/faults/fault.o' $(COVERED)/libmcpool.so $(COVERED)/tests/unit
	ln -s ../libmcpool.so $(COVERED)/faults/libmcpool.so
	-/usr/bin/python3 tests/run.py $(COVERED) $(COVERAGE_STAGES)
	-TEST_BUILD=$(COVERED) /usr/bin/python3 -m pytest -q tests/interop/test_absent.py
	$(GCOVR) $(COVERED)
	$(GCOVR) --branches $(COVERED)
	$(GCOVR) $(COVERED) --csv $(COVERED)/lines.csv
	awk -F, 'NR > 1 && $$4 * 100 < $(COVERAGE_LEAST) { print $$1 ": too few lines"; few = 1 } \
	  END { exit few }' $(COVERED)/lines.csv

# Valgrind over the tests that the sanitizers cannot see into, slowly.
valgrind: all
	.ci/packages build test
	$(MAKE) plain-programs
	/usr/bin/python3 tests/run.py --night 0 $(B) valgrind-unit valgrind-integration

demo:
	.ci/packages build demo
	$(MAKE) all
	/usr/bin/python3 bench/demo/demo.py $(LIBRARY)

$(B)/bench/%: bench/%.c bench/lib/gets.c bench/lib/gets.h Makefile
	@mkdir -p $(@D)
	$(CC) $(BASE) -O2 -g $(filter %.c,$^) -o $@

# The library whose lock is timed.
TIMED := $(B)/timed/libmcpool.so

$(B)/timed/lock_times.o: bench/growth/lock_times.c bench/growth/lock_times.h
	@mkdir -p $(@D)
	$(CC) $(SHIM_CFLAGS) $(CFLAGS) -c $< -o $@

$(TIMED): $(B)/timed/lock_times.o $(SHIM_FILES)
	$(MAKE) B=$(B)/timed CFLAGS='$(CFLAGS) -include bench/growth/lock_times.h' \
	  LDFLAGS='$(LDFLAGS) $<' $@

# make bench SUBJECTS="cycle network" runs only those; see bench/README.md.
SUBJECTS ?=
BENCH_PROGRAMS := $(addprefix $(B)/bench/,calls footprint fork instructions forwarder fleet unix_fence lib/turns \
                    growth/threads) $(TIMED)

bench:
	.ci/packages build bench
	$(MAKE) all $(BENCH_PROGRAMS)
	/usr/bin/python3 bench/run.py $(B) $(SUBJECTS)

# Style. `make format` writes, `make lint` only looks.

C_FILES = $(shell git ls-files '*.c' '*.h')
SHELL_FILES = .ci/run .ci/packages $(shell git ls-files "*.sh" "*.bash")

LINTED = $(wildcard shim/*.c shim/*/*.c)

format:
	clang-format -i $(C_FILES)

lint:
	.ci/packages lint
	clang-format --dry-run --Werror $(C_FILES)
	cppcheck --quiet --error-exitcode=1 --enable=warning,performance,portability --std=c11 \
	  --suppress=missingIncludeSystem --suppress=uninitvar:shim/pool/pool.c \
	  -Ishim -D__x86_64__ -D_GNU_SOURCE -DMCPOOL_VERSION='"$(VERSION)"' \
	  $(LINTED)
	clang-tidy --quiet $(LINTED) -- -std=gnu11 -Ishim -D_GNU_SOURCE -DNDEBUG \
	  -DMCPOOL_VERSION='"$(VERSION)"' -DMCPOOL_LIBDIR='"$(LIBDIR)"'
	shellcheck $(SHELL_FILES)

MAN1 := $(notdir $(wildcard shim/man/*.1))

# Anybody's process may show its counters, and remove what is its own; tmpfiles.d makes the
# directory again after a restart of the machine.
install: all
	install -d $(DESTDIR)$(LIBDIR) $(DESTDIR)$(BINDIR) $(DESTDIR)$(MANDIR)/man1 \
	  $(DESTDIR)$(MANDIR)/man7 $(DESTDIR)$(DOCDIR) $(DESTDIR)$(BASHDIR) $(DESTDIR)$(ZSHDIR) \
	  $(DESTDIR)$(TMPFILESDIR)
	install -m 644 $(LIBRARY) $(DESTDIR)$(LIBDIR)/libmcpool.so
	install -m 755 $(B)/mcpool $(DESTDIR)$(BINDIR)/mcpool
	install -m 644 $(addprefix shim/man/,$(MAN1)) $(DESTDIR)$(MANDIR)/man1
	install -m 644 shim/man/libmcpool.7 $(DESTDIR)$(MANDIR)/man7/libmcpool.7
	install -m 644 shim/cli/grafana/mcpool.json $(DESTDIR)$(DOCDIR)/grafana.json
	install -m 644 shim/cli/completion/mcpool.bash $(DESTDIR)$(BASHDIR)/mcpool
	install -m 644 shim/cli/completion/_mcpool $(DESTDIR)$(ZSHDIR)/_mcpool
	install -m 644 packaging/tmpfiles.d/mcpool.conf $(DESTDIR)$(TMPFILESDIR)/mcpool.conf
	@if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ]; then \
	  ldconfig; install -d -m 1777 $(STATSDIR); \
	fi

uninstall:
	rm -f $(DESTDIR)$(LIBDIR)/libmcpool.so $(DESTDIR)$(BINDIR)/mcpool \
	  $(addprefix $(DESTDIR)$(MANDIR)/man1/,$(MAN1)) $(DESTDIR)$(MANDIR)/man7/libmcpool.7 \
	  $(DESTDIR)$(BASHDIR)/mcpool $(DESTDIR)$(ZSHDIR)/_mcpool \
	  $(DESTDIR)$(TMPFILESDIR)/mcpool.conf
	rm -rf $(DESTDIR)$(DOCDIR)
	@if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ]; then \
	  ldconfig; rm -rf $(STATSDIR); \
	fi

# Packages. They are built in a copy, as building one begins with `make clean`; Debian's tools look for
# debian/ at its top.
PACKAGED := libmcpool-$(VERSION)

$(B)/%/$(PACKAGED): FORCE
	rm -rf $(@D)
	mkdir -p $@
	tar -c --exclude=./$(B) --exclude=./.git --exclude=__pycache__ . | tar -x -C $@
	cp -R packaging/debian $@/debian

deb: $(B)/deb/$(PACKAGED)
	.ci/packages package
	cd $< && dpkg-buildpackage -b -us -uc

rpm: $(B)/rpm/$(PACKAGED)
	.ci/packages package
	tar -czf $(<D)/$(PACKAGED).tar.gz -C $(<D) $(PACKAGED)
	rpmbuild -bb --nodeps --define '_topdir $(abspath $(<D))/work' \
	  --define '_sourcedir $(abspath $(<D))' --define '_rpmdir $(abspath $(<D))' \
	  packaging/rpm/libmcpool.spec

# The picture of a connection's life.
docs: shim/life.svg

shim/life.svg: shim/life.dot
	.ci/packages docs
	dot -Tsvg $< -o $@

clean:
	rm -rf $(B)

.PHONY: all night plain-programs both-compilers aarch64-programs test-programs test differential fuzz fuzz-corpus stress soak valgrind coverage demo bench format lint install uninstall deb rpm docs clean FORCE
.DELETE_ON_ERROR:
