# Installing, and the packages.

MAN1 := $(notdir $(wildcard shim/man/*.1))

# put MODE,FILE,NAME: installs FILE under NAME.
put = $(call say,INSTALL,"$(DESTDIR)$(3)")install -D -m $(1) $(2) "$(DESTDIR)$(3)"

# Whether the loader finds the library, and the directory of counters is that of all processes.
FOR_THE_MACHINE = [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ] && [ -n "$(filter /usr /usr/local,$(PREFIX))" ]

# Anybody's process may show its counters, and remove what is its own.
## install installs the library, the command, the manuals and the completions
install: all
	$(call put,644,$(LIBRARY),$(LIBDIR)/libmcpool.so)
	$(call put,755,$(B)/mcpool,$(BINDIR)/mcpool)
	$(call say,INSTALL,"$(DESTDIR)$(MANDIR)/man1")install -D -m 644 -t "$(DESTDIR)$(MANDIR)/man1" \
	  $(addprefix shim/man/,$(MAN1))
	$(call put,644,shim/man/libmcpool.7,$(MANDIR)/man7/libmcpool.7)
	$(call put,644,shim/cli/grafana/mcpool.json,$(DOCDIR)/grafana.json)
	$(call put,644,shim/cli/completion/mcpool.bash,$(BASHDIR)/mcpool)
	$(call put,644,shim/cli/completion/_mcpool,$(ZSHDIR)/_mcpool)
	$(call put,644,packaging/tmpfiles.d/mcpool.conf,$(TMPFILESDIR)/mcpool.conf)
	@if $(FOR_THE_MACHINE); then ldconfig; install -d -m 1777 "$(STATSDIR)"; fi

## uninstall removes what was installed
uninstall:
	$(call say,REMOVE,"$(DESTDIR)$(PREFIX)")rm -f "$(DESTDIR)$(LIBDIR)/libmcpool.so" \
	  "$(DESTDIR)$(BINDIR)/mcpool" $(foreach page,$(MAN1),"$(DESTDIR)$(MANDIR)/man1/$(page)") \
	  "$(DESTDIR)$(MANDIR)/man7/libmcpool.7" "$(DESTDIR)$(BASHDIR)/mcpool" \
	  "$(DESTDIR)$(ZSHDIR)/_mcpool" "$(DESTDIR)$(TMPFILESDIR)/mcpool.conf"; \
	rm -rf "$(DESTDIR)$(DOCDIR)"
	@if $(FOR_THE_MACHINE); then \
	  ldconfig; mountpoint -q "$(STATSDIR)" || rm -rf "$(STATSDIR)"; \
	fi

# Packages are built in a copy, as building one begins with `make clean`; Debian's tools look for
# debian/ at its top.
PACKAGED := libmcpool-$(VERSION)

$(B)/%/$(PACKAGED): FORCE
	$(call say,COPY,$@)rm -rf $(@D) && mkdir -p $@ && \
	  tar -c --exclude=./$(B) --exclude=./.git --exclude=__pycache__ . | tar -x -C $@ && \
	  cp -R packaging/debian $@/debian && packaging/fill $@

## deb builds Debian's packages in build/deb
deb: $(B)/deb/$(PACKAGED)
	@.ci/packages package
	$(call say,DEB,$(<D))cd $< && dpkg-buildpackage -b -us -uc

# The date of the newest entry in the spec's changelog is that of the files and of the package.
REPRODUCIBLE := --define 'source_date_epoch_from_changelog 1' --define '_buildhost localhost' \
                --define 'use_source_date_epoch_as_buildtime 1' \
                --define 'clamp_mtime_to_source_date_epoch 1'

## rpm builds packages for Fedora and its relatives in build/rpm
rpm: $(B)/rpm/$(PACKAGED)
	@.ci/packages package
	$(call say,TAR,$(<D)/$(PACKAGED).tar.gz)tar -czf $(<D)/$(PACKAGED).tar.gz -C $(<D) $(PACKAGED)
	$(call say,RPM,$(<D))rpmbuild -bb --nodeps $(REPRODUCIBLE) --define '_topdir $(CURDIR)/$(<D)/work' \
	  --define "packager $$(sed -n 's/^Maintainer: //p' $</debian/control)" --define '_sourcedir $(CURDIR)/$(<D)' --define '_rpmdir $(CURDIR)/$(<D)' \
	  $</packaging/rpm/libmcpool.spec

## WHEELS the processors for which `make wheel` builds (x86_64 aarch64)
WHEELS ?= x86_64 aarch64

## wheel builds Python wheels and their source in build/wheel, for virtual environments
wheel:
	@.ci/packages wheel
	@mkdir -p $(B)/wheel && rm -f $(B)/wheel/*.whl $(B)/wheel/*.tar.gz
	$(call say,SDIST,$(B)/wheel)/usr/bin/python3 -m hatchling build -d $(B)/wheel -t sdist
	$(call say,WHEEL,"$(WHEELS)")for machine in $(WHEELS); do \
	  MCPOOL_MACHINE=$$machine /usr/bin/python3 -m hatchling build -d $(B)/wheel -t wheel || exit 1; \
	done
	@chmod 644 $(B)/wheel/*.whl $(B)/wheel/*.tar.gz

.PHONY: install uninstall deb rpm wheel FORCE
