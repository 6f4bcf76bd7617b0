# Tests; see CONTRIBUTING.md.

# The unit tests see the modules that need no hook, with sanitizers and assertions.

## CRITERION the library with which Criterion's tests are linked (-lcriterion)
CRITERION ?= -lcriterion

UNIT_SHIM := $(addprefix shim/,base/clock base/fmt base/hash base/lock base/lookup base/ownfile base/owner \
               base/pages base/reasons base/unwind base/usermem config/address config/config config/rules \
               conn/conn conn/endpoint conn/fdmap conn/fdqueue conn/fdtable conn/limits conn/path_limit conn/shadow conn/sockid \
               conn/sockopts conn/waiter pool/account pool/members pool/pool pool/proof pool/report stats/log \
               stats/stats stats/stats_file stats/switch_file)
UNIT_SOURCES := $(addsuffix .c,$(UNIT_SHIM)) $(wildcard shim/wire/*.c tests/unit/*.c) tests/integration/slowness.c
UNIT_OBJECTS := $(patsubst %,$(B)/unit/%.o,$(UNIT_SOURCES))
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

$(B)/unit/%.c.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(BASE) $(SANITIZE) -O1 -g $(NOTE_HEADERS) -c $< -o $@

$(B)/tests/unit: $(UNIT_OBJECTS)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(SANITIZE) -pthread $^ $(CRITERION) -o $@

INTEGRATION_OBJECTS := $(patsubst %,$(B)/%.o,$(filter-out %/early.c %/plugin.c,$(wildcard tests/integration/*.c)))

$(B)/tests/integration/%.c.o: tests/integration/%.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(BASE) $(CFLAGS) $(NOTE_HEADERS) -c $< -o $@

# What the integration tests preload into programs of their own, and what they load.
INTEGRATION_LOADED := $(addprefix $(B)/tests/,early.so $(addprefix plugins/,memcached.so other.so below/hidden.so))

$(B)/tests/early.so: tests/integration/early.c
	@mkdir -p $(@D)
	$(call say,CC,$@)$(CC) $(BASE) -O2 -shared -fPIC $< -o $@

$(B)/tests/plugins/%.so: tests/integration/plugin.c
	@mkdir -p $(@D)
	$(call say,CC,$@)$(CC) $(BASE) -w -O2 -shared -fPIC -Wl,--enable-new-dtags '-Wl,-rpath,$$ORIGIN/below' $< -o $@

$(B)/tests/integration_tests: $(INTEGRATION_OBJECTS) | $(INTEGRATION_LOADED)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) -pthread $^ $(CRITERION) -o $@

-include $(UNIT_OBJECTS:.o=.d) $(INTEGRATION_OBJECTS:.o=.d)

$(B)/tests/differential: tests/differential/wire_differential.c $(wildcard shim/wire/*.[ch])
	@mkdir -p $(@D)
	$(call say,CC,$@)$(CC) $(BASE) -O2 -g $(filter %.c,$^) -o $@

# These programs call with bad arguments on purpose.
$(B)/tests/programs: $(wildcard tests/transparency/programs/*.[ch])
	@mkdir -p $(@D)
	$(call say,CC,$@)$(CC) $(BASE) -w -O1 -g $(filter %.c,$^) -o $@

## SEQUENCES random dialogues of `make differential` (1000000)
SEQUENCES ?= 1000000
## SECONDS the longest that `make differential` takes (3600)
SECONDS ?= 3600

## differential plays random dialogues with a real memcached
differential:
	@.ci/packages build test
	$(call say,MAKE,$@)$(MAKE) $(B)/tests/differential
	/usr/bin/python3 tests/differential/run.py $(B)/tests/differential $(SEQUENCES) $(SECONDS)

# libFuzzer, one program for each kind of dialogue. Inputs worth keeping go to tests/fuzz/corpus; see
# fuzz-corpus.
FUZZERS := $(addprefix $(B)/fuzz/fuzz-,text meta binary)
## FUZZ_SECONDS how long each fuzzer runs (600)
FUZZ_SECONDS ?= 600

$(FUZZERS): tests/fuzz/wire_fuzz.c $(wildcard shim/wire/*.[ch])
	@mkdir -p $(@D)
	$(call say,CC,$@)clang $(BASE) -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	  $(filter %.c,$^) -o $@

$(B)/fuzz/make_corpus: tests/fuzz/make_corpus.c tests/unit/wire_vectors.c
	@mkdir -p $(@D)
	$(call say,CC,$@)$(CC) $(BASE) $^ -o $@

## fuzz runs the fuzzers
fuzz:
	@.ci/packages build test
	$(call say,MAKE,$@)$(MAKE) $(FUZZERS)
	/usr/bin/python3 tests/fuzz/run.py $(B)/fuzz $(FUZZ_SECONDS)

## fuzz-corpus makes the corpus anew: the dialogues of the unit tests and what fuzzing finds from there
fuzz-corpus:
	@.ci/packages build test
	$(call say,MAKE,$@)$(MAKE) $(FUZZERS) $(B)/fuzz/make_corpus
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
	$(call say,CC,$<)$(CC) $(SHIM_CFLAGS) $(CFLAGS) -c $< -o $@

$(FAULTY): $(B)/faults/fault.o $(SHIM_FILES)
	$(call say,MAKE,$@)$(MAKE) B=$(B)/faults CFLAGS='$(CFLAGS) -include tests/faults/raw.h' \
	  LDFLAGS='$(LDFLAGS) $<' $@

$(B)/faults/scenes: tests/faults/scenes.c
	@mkdir -p $(@D)
	$(call say,CC,$@)$(CC) $(BASE) $(CFLAGS) $< -o $@

# The library that counts its look-ups in the fd map.
COUNTED := $(B)/lookups/libmcpool.so

$(B)/lookups/counted.o: tests/lookups/counted.c
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(SHIM_CFLAGS) $(CFLAGS) -c $< -o $@

$(COUNTED): $(B)/lookups/counted.o tests/lookups/counted.h $(SHIM_FILES)
	$(call say,MAKE,$@)$(MAKE) B=$(B)/lookups CFLAGS='$(CFLAGS) -include tests/lookups/counted.h' \
	  LDFLAGS='$(LDFLAGS) $<' $@

$(B)/lookups/lookups: tests/lookups/lookups.c
	@mkdir -p $(@D)
	$(call say,CC,$@)$(CC) $(BASE) $(CFLAGS) $< -o $@

# The library under sanitizers, and with a pause at each point where threads may meet.
SANITIZED := $(B)/asan/libmcpool.so
STRESSED_LIBRARIES := $(B)/stressed/libmcpool.so $(B)/tsan/libmcpool.so
## STRESS_SECONDS how long `make stress` takes (600)
STRESS_SECONDS ?= 600

$(SANITIZED): $(SHIM_FILES)
	$(call say,MAKE,$@)$(MAKE) B=$(B)/asan CFLAGS='-O1 -g $(SANITIZE)' LDFLAGS='$(SANITIZE)' $@

# The command under sanitizers.
SANITIZED_COMMAND := $(B)/asan/mcpool

$(SANITIZED_COMMAND): $(SHIM_FILES)
	$(call say,MAKE,$@)$(MAKE) B=$(B)/asan CFLAGS='-O1 -g $(SANITIZE)' LDFLAGS='$(SANITIZE)' $@

$(B)/%/pauses.o: tests/stress/pauses.c tests/stress/pauses.h
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(SHIM_CFLAGS) -O2 -c $< -o $@

$(B)/stressed/libmcpool.so: $(B)/stressed/pauses.o $(SHIM_FILES)
	$(call say,MAKE,$@)$(MAKE) B=$(B)/stressed CFLAGS='-O1 -g -include tests/stress/pauses.h' LDFLAGS='$<' $@

$(B)/tsan/libmcpool.so: $(B)/tsan/pauses.o $(SHIM_FILES)
	$(call say,MAKE,$@)$(MAKE) B=$(B)/tsan CFLAGS='-O1 -g -fsanitize=thread -include tests/stress/pauses.h' \
	  LDFLAGS='-fsanitize=thread $<' $@

$(B)/stressed/stress $(B)/stressed/families: $(B)/stressed/%: tests/stress/%.c tests/stress/dice.h
	@mkdir -p $(@D)
	$(call say,CC,$@)$(CC) $(BASE) -w -O1 -g $< -o $@

# The library calls a function of these.
$(B)/stressed/stopped $(B)/stressed/stopped_swap: $(B)/stressed/%: tests/stress/%.c
	@mkdir -p $(@D)
	$(call say,CC,$@)$(CC) $(BASE) -w -O1 -g -rdynamic $< -o $@

$(B)/tsan/stress $(B)/tsan/families: $(B)/tsan/%: tests/stress/%.c tests/stress/dice.h
	@mkdir -p $(@D)
	$(call say,CC,$@)$(CC) $(BASE) -w -O1 -g -fsanitize=thread $< -o $@

STRESSED := $(STRESSED_LIBRARIES) $(B)/stressed/stress $(B)/stressed/stopped $(B)/stressed/stopped_swap \
            $(B)/tsan/stress $(B)/stressed/families $(B)/tsan/families

## stress runs threads under pauses and ThreadSanitizer
stress:
	@.ci/packages build test
	$(call say,MAKE,$@)$(MAKE) $(STRESSED)
	/usr/bin/python3 tests/stress/run.py $(B) $(STRESS_SECONDS)

# uthash is only headers, found behind the headers of the other architecture.
CROSS := aarch64-linux-gnu-

## aarch64-programs builds the library, the command and tests for the other architecture
aarch64-programs:
	$(call say,MAKE,$@)$(MAKE) B=$(B)/aarch64 CC=$(CROSS)gcc CFLAGS='-O2 -g -Werror -idirafter /usr/include' \
	  $(B)/aarch64/libmcpool.so $(B)/aarch64/mcpool $(B)/aarch64/tests/programs $(B)/aarch64/tests/differential

## TREE an unpacked Debian for aarch64, which has Criterion's library
TREE ?= $(B)/machine/arm64
TREE_LIBRARIES := $(TREE)/usr/lib/aarch64-linux-gnu
TREE_CRITERION := $(TREE_LIBRARIES)/libcriterion.so.3 -Wl,-rpath-link,$(TREE_LIBRARIES):$(TREE)/lib/aarch64-linux-gnu

## arm64-programs builds what the stage arm64 runs on its machine
arm64-programs:
	$(call say,MAKE,$@)$(MAKE) B=$(B)/arm64 CC=$(CROSS)gcc CFLAGS='-O2 -g -idirafter /usr/include' SANITIZE= \
	  CRITERION='$(TREE_CRITERION)' $(addprefix $(B)/arm64/,libmcpool.so mcpool tests/unit tests/integration_tests \
	    tests/programs faults/libmcpool.so faults/scenes stressed/libmcpool.so stressed/stress stressed/stopped)

## SOAK_SECONDS how long `make soak` takes (300)
SOAK_SECONDS ?= 300

## soak runs real servers while everything around them is restarted
soak:
	@.ci/packages build test
	$(call say,MAKE,$@)$(MAKE) all
	/usr/bin/python3 tests/soak/soak.py $(LIBRARY) $(SOAK_SECONDS)

## both-compilers builds with gcc and with clang; warnings are errors
both-compilers:
	$(call say,MAKE,$@)$(MAKE) B=$(B)/gcc CC=gcc CFLAGS='$(CFLAGS) -Werror' all
	$(call say,MAKE,$@)$(MAKE) B=$(B)/clang CC=clang CFLAGS='$(CFLAGS) -Werror' all

# Programs that are built with the usual flags.
PLAIN_PROGRAMS := $(addprefix $(B)/,tests/unit tests/integration_tests tests/differential tests/programs lookups/lookups \
                    bench/instructions bench/dialogues bench/lib/turns bench/faults/client bench/family/ring \
                    bench/forwarder faults/scenes)

## test-programs builds what the tests run
test-programs: all $(PLAIN_PROGRAMS) $(FUZZERS) $(FAULTY) $(COUNTED) $(SANITIZED) $(SANITIZED_COMMAND) $(STRESSED)

## test runs every test; the last line is the count
test:
	@.ci/packages build test package
	$(call say,MAKE,$@)$(MAKE) both-compilers aarch64-programs test-programs
	/usr/bin/python3 tests/run.py $(B)

## NIGHT_SECONDS how long a stage of `make night` takes, the soaks twice as long (450)
NIGHT_SECONDS ?= 450

## plain-programs builds the unit and integration tests without sanitizers
plain-programs:
	$(call say,MAKE,$@)$(MAKE) B=$(B)/plain SANITIZE= $(B)/plain/tests/unit $(B)/plain/tests/integration_tests

## night runs what takes too long for every change
night:
	@.ci/packages build test package night
	$(call say,MAKE,$@)$(MAKE) test-programs plain-programs
	/usr/bin/python3 tests/run.py --night $(NIGHT_SECONDS) $(B)

# With the library whose calls can be made to fail.
# Children that end by _exit(), exec or a signal are not counted. Measuring makes some tests fail: dlopen()
# is no longer a jump, and gcov prints a message when another user, another root or a lack of fds keeps it
# from writing.
COVERED := $(B)/coverage
## COVERAGE_STAGES the stages that `make coverage` runs
COVERAGE_STAGES ?= unit integration transparency faults
COVERAGE_LEAST := 90
GCOVR := gcovr -r . --gcov-ignore-parse-errors --object-directory $(COVERED) -f shim/
COVERAGE_CFLAGS := -O1 -g --coverage -fprofile-update=atomic -foptimize-sibling-calls

## coverage shows the lines and branches of the shim that tests reach
coverage:
	@.ci/packages build test coverage
	rm -rf $(COVERED)
	$(call say,MAKE,$@)$(MAKE) B=$(COVERED) $(addprefix $(COVERED)/,faults/fault.o faults/scenes tests/integration_tests tests/programs)
	$(call say,MAKE,$@)$(MAKE) B=$(COVERED) CFLAGS='$(COVERAGE_CFLAGS) -include tests/faults/raw.h' SANITIZE=--coverage \
	  LDFLAGS='--coverage $(COVERED)/faults/fault.o' $(COVERED)/libmcpool.so $(COVERED)/tests/unit
	ln -s ../libmcpool.so $(COVERED)/faults/libmcpool.so
	-/usr/bin/python3 tests/run.py $(COVERED) $(COVERAGE_STAGES)
	-TEST_BUILD=$(COVERED) /usr/bin/python3 -m pytest -q tests/interop/test_absent.py
	$(GCOVR) $(COVERED)
	$(GCOVR) --branches $(COVERED)
	$(GCOVR) $(COVERED) --csv $(COVERED)/lines.csv
	awk -F, 'NR > 1 && $$4 * 100 < $(COVERAGE_LEAST) { print $$1 ": too few lines"; few = 1 } \
	  END { exit few }' $(COVERED)/lines.csv

## valgrind runs the tests that the sanitizers cannot see into
valgrind:
	@.ci/packages build test
	$(call say,MAKE,$@)$(MAKE) all plain-programs
	/usr/bin/python3 tests/run.py --night 0 $(B) valgrind-unit valgrind-integration

.PHONY: differential fuzz fuzz-corpus stress aarch64-programs arm64-programs soak both-compilers test-programs test \
        plain-programs night coverage valgrind
