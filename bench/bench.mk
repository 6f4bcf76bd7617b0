# Measurements and the demonstration; see bench/README.md.

## demo shows gunicorn and python-memcached under load, without and with the library
demo:
	@.ci/packages build demo
	$(call say,MAKE,all)$(MAKE) $(if $(filter 1,$(V)),,-s) all
	$(call say,DEMO)/usr/bin/python3 bench/demo/demo.py $(LIBRARY)

$(B)/bench/%: bench/%.c bench/lib/gets.c bench/lib/gets.h Makefile
	@mkdir -p $(@D)
	$(call say,CC,$@)$(CC) $(BASE) -O2 -g $(filter %.c,$^) -o $@

# The library whose lock is timed.
TIMED := $(B)/timed/libmcpool.so

$(B)/timed/lock_times.o: bench/growth/lock_times.c bench/growth/lock_times.h
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(SHIM_CFLAGS) $(CFLAGS) -c $< -o $@

$(TIMED): $(B)/timed/lock_times.o $(SHIM_FILES)
	$(call say,MAKE,$@)$(MAKE) B=$(B)/timed CFLAGS='$(CFLAGS) -include bench/growth/lock_times.h' \
	  LDFLAGS='$(LDFLAGS) $<' $@

## SUBJECTS what `make bench` measures, as "cycle network" (everything)
SUBJECTS ?=
## CASES which cases of SUBJECTS=faults or family, as "firewall loss" (everything)
CASES ?=
## OLD a commit whose library SUBJECTS=faults and family measure beside ours
OLD ?=
BENCH_PROGRAMS := $(addprefix $(B)/bench/,calls footprint fork instructions forwarder fleet unix_fence lib/turns \
                    growth/threads faults/client family/ring)

## bench measures
bench:
	@.ci/packages build bench
	$(call say,MAKE,bench)$(MAKE) all $(BENCH_PROGRAMS) $(TIMED)
	BENCH_CASES='$(CASES)' BENCH_OLD='$(OLD)' /usr/bin/python3 bench/run.py $(B) $(SUBJECTS)

.PHONY: demo bench
