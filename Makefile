# Building and installing as metald's guide has it. Everything else is in `cargo xtask`.
#
#   make build
#   sudo make install                    onto this machine
#   make install DESTDIR=root            into a directory, for a package: no user, no capabilities, nothing is started
#
# The unit and its .d directory go to /etc/systemd/system, where the guide's backup looks for them.

PREFIX     = /usr/local
DESTDIR    =
SYSCONFDIR = /etc
UNITDIR    = $(SYSCONFDIR)/systemd/system
CARGO      = cargo
CARGO_TARGET_DIR ?= target
BUILT      = $(CARGO_TARGET_DIR)/release

# As in metald.service. A capability that is only here would make the unit's start fail.
CAPABILITIES = cap_chown,cap_dac_override,cap_fowner,cap_kill,cap_mknod,cap_net_admin,cap_setgid,cap_setpcap,cap_setuid,cap_sys_admin,cap_sys_chroot,cap_sys_ptrace

BIN     = $(DESTDIR)$(PREFIX)/bin
LIBEXEC = $(DESTDIR)$(PREFIX)/libexec/cairn
DOC     = $(DESTDIR)$(PREFIX)/share/doc/cairn
ETC     = $(DESTDIR)$(SYSCONFDIR)
UNITS   = $(DESTDIR)$(UNITDIR)

.PHONY: build install install-files install-user install-owners install-reload uninstall

build:
	$(CARGO) build --release --locked --package app --package cairn-keeper

# A user comes first: files are given to it.
ifeq ($(DESTDIR),)
install: install-user install-files install-owners install-reload
install-files: install-user
install-owners: install-files
install-reload: install-owners
else
install: install-files
endif

# /usr/local/bin/metald is a file of its own and never a link to cairn: capabilities belong to a file, and every user may
# run cairn. A running program is replaced by renaming, which leaves the one that runs alone.
install-files:
	mkdir -p $(BIN) $(LIBEXEC) $(DOC) $(UNITS)/metald.service.d $(ETC)/metald
	install -d -m 0755 $(DESTDIR)/srv/jailer $(DESTDIR)/opt/metald $(DESTDIR)/opt/metald/assets $(DESTDIR)/opt/metald/sockets
	install -d -m 0750 $(DESTDIR)/var/lib/metald $(DESTDIR)/var/log/metald
	install -m 0755 $(BUILT)/cairn $(BIN)/.cairn.new
	mv -f $(BIN)/.cairn.new $(BIN)/cairn
	install -m 0750 $(BUILT)/cairn $(BIN)/.metald.new
	mv -f $(BIN)/.metald.new $(BIN)/metald
	install -m 0755 $(BUILT)/cairn-keeper $(LIBEXEC)/.cairn-keeper.new
	mv -f $(LIBEXEC)/.cairn-keeper.new $(LIBEXEC)/cairn-keeper
	for unit in metald.service metald-vm@.service; do \
		sed 's#/usr/local/#$(PREFIX)/#' deploy/metald/$$unit > $(UNITS)/.$$unit.new || exit 1; \
		chmod 0644 $(UNITS)/.$$unit.new || exit 1; \
		mv -f $(UNITS)/.$$unit.new $(UNITS)/$$unit || exit 1; \
	done
	install -D -m 0644 deploy/metald/sysusers.d/metald.conf $(ETC)/sysusers.d/metald.conf
	install -D -m 0644 deploy/metald/tmpfiles.d/metald.conf $(ETC)/tmpfiles.d/metald.conf
	install -D -m 0644 deploy/metald/sysctl.d/99-metald.conf $(ETC)/sysctl.d/99-metald.conf
	install -D -m 0644 deploy/metald/logrotate.d/metald $(ETC)/logrotate.d/metald
	install -D -m 0644 deploy/metald/polkit/50-metald.rules $(ETC)/polkit-1/rules.d/50-metald.rules
	if [ -d $(ETC)/apparmor.d ] || [ -n "$(DESTDIR)" ]; then \
		install -D -m 0644 deploy/metald/apparmor/metald $(ETC)/apparmor.d/metald; \
	fi
	install -m 0644 docs/layers/vm.md $(DOC)/vm.md

# The numbers of the guide; any others where these are taken (then UNKEY_METALD_JAILER_UID and _GID have to say so). The
# block of numbers for VMs is written down as metald's, so that useradd gives none of it to a new user.
install-user:
	@getent group metald >/dev/null || groupadd --system --gid 976 metald || groupadd --system metald
	@getent passwd metald >/dev/null \
		|| useradd --system --uid 977 --gid metald --home-dir /opt/metald --no-create-home --shell /usr/sbin/nologin metald \
		|| useradd --system --gid metald --home-dir /opt/metald --no-create-home --shell /usr/sbin/nologin metald
	@id metald
	@for file in /etc/subuid /etc/subgid; do \
		if [ ! -e $$file ] || grep -q '^metald:' $$file; then continue; fi; \
		if awk -F: '$$2 <= 265535 && $$2 + $$3 > 200000 { taken = 1 } END { exit taken }' $$file; then \
			echo 'metald:200000:65536' >> $$file; \
		else \
			echo "$$file gives a part of 200000-265535 to others: set UNKEY_METALD_JAILER_UID_RANGE" >&2; \
		fi; \
	done

install-owners:
	chown root:metald $(BIN)/metald
	chmod 0750 $(BIN)/metald
	setcap '$(CAPABILITIES)+ep' $(BIN)/metald
	chown metald:metald /opt/metald /opt/metald/assets /opt/metald/sockets /var/lib/metald /var/log/metald
	chown root:root /srv/jailer

install-reload:
	if [ -d /run/systemd/system ]; then \
		systemd-tmpfiles --create metald.conf; \
		sysctl -q -e -p $(SYSCONFDIR)/sysctl.d/99-metald.conf || true; \
		systemctl daemon-reload; \
	fi

# Programs and units. VMs, their disks, the database, logs, settings and the user stay.
uninstall:
	rm -f $(BIN)/metald $(BIN)/cairn $(LIBEXEC)/cairn-keeper $(UNITS)/metald.service $(UNITS)/metald-vm@.service $(DOC)/vm.md
	rm -f $(ETC)/sysusers.d/metald.conf $(ETC)/tmpfiles.d/metald.conf $(ETC)/sysctl.d/99-metald.conf
	rm -f $(ETC)/logrotate.d/metald $(ETC)/polkit-1/rules.d/50-metald.rules $(ETC)/apparmor.d/metald
