#!@sh@
# Does with the units of this system what NixOS does with its own: words, order and exit codes are those of nixpkgs'
# switch-to-configuration-ng; messages go to stderr. Not here: mounts, sockets, users' units, templates.
PATH=@out@/sw/bin
set -u
action=${1-}
case $action in
    switch | boot | test | dry-activate | check) ;;
    *)
        echo "Usage: ${0##*/} [check|switch|boot|test|dry-activate]" >&2
        exit 1
        ;;
esac
if [ ! -f /etc/NIXOS ]; then
    echo "This is not a NixOS installation!" >&2
    exit 1
fi
mkdir -p /run/nixos
exec 9>> /run/nixos/switch-to-configuration.lock
if ! flock -n 9; then
    echo "Could not acquire lock" >&2
    exit 11 # EWOULDBLOCK
fi
[ "$action" != check ] || exit 0

say() { echo "$@" >&2; }
# Words, sorted, with commas.
list() { printf '%s\n' $1 | sort -f | tr '\n' ',' | sed -e 's/,$//' -e 's/,/, /g'; }
tell() { [ -z "$2" ] || say "$1: $(list "$2")"; }
active() { case $(systemctl is-active "$1") in active | activating | reloading) ;; *) return 1 ;; esac; }
# Whether a unit of this system has a line.
has() { grep -qx "$2" "@out@/etc/systemd/system/$1"; }

if [ "$action" = switch ] || [ "$action" = boot ]; then
    # Stands for the boot loader's entry.
    mkdir -p /boot/loader && printf '%s\n' @out@ > /boot/loader/default.next && mv /boot/loader/default.next /boot/loader/default || {
        say "Failed to install bootloader"
        exit 1
    }
fi
[ "$action" != boot ] || exit 0

if [ "$(cat /run/current-system/init-interface-version)" != "$(cat @out@/init-interface-version)" ]; then
    say "Warning: the new NixOS configuration has an ‘init’ that is
incompatible with the current configuration.  The new configuration
won't take effect until you reboot the system."
    exit 100
fi

stop='' start=$(cat /run/nixos/start-list 2> /run/nixos/none || :) restart='' reload='' skip=''
cd /etc/systemd/system
for unit in *.service *.timer; do
    case $(readlink "$unit") in /etc/static/*) ;; *) continue ;; esac
    active "$unit" || continue
    if [ ! -e "@out@/etc/systemd/system/$unit" ]; then
        grep -qx X-StopOnRemoval=false "$unit" || stop="$stop $unit"
    elif ! cmp -s "$unit" "@out@/etc/systemd/system/$unit"; then
        if has "$unit" X-ReloadIfChanged=true; then
            reload="$reload $unit"
        elif has "$unit" X-RestartIfChanged=false || has "$unit" RefuseManualStop=true; then
            skip="$skip $unit"
        elif has "$unit" X-StopIfChanged=false; then
            restart="$restart $unit"
        else
            stop="$stop $unit" start="$start $unit"
        fi
    fi
done
cd /

if [ "$action" = dry-activate ]; then
    tell "would stop the following units" "$stop"
    tell "would NOT stop the following changed units" "$skip"
    say "would activate the configuration..."
    tell "would reload the following units" "$reload"
    tell "would restart the following units" "$restart"
    tell "would start the following units" "$start"
    exit 0
fi

names() { systemctl list-units --no-legend --plain --state=active,activating,reloading,failed | cut -d' ' -f1; }
before=$(names)
code=0
# What is left undone is done by the next one.
printf '%s\n' $start $restart > /run/nixos/start-list
tell "stopping the following units" "$stop"
[ -z "$stop" ] || systemctl stop $stop
tell "NOT restarting the following changed units" "$skip"
say "activating the configuration..."
@out@/activate >&2 || {
    say "Failed to run activate script"
    code=2
}
systemctl reset-failed
systemctl daemon-reload
say "restarting sysinit-reactivation.target"
tell "reloading the following units" "$reload"
[ -z "$reload" ] || systemctl reload $reload || code=4
tell "restarting the following units" "$restart"
[ -z "$restart" ] || systemctl restart $restart || code=4
tell "starting the following units" "$start"
# Other than there, units that are new are waited for: a test is not to depend on how soon they fail.
systemctl start multi-user.target $start $(ls @out@/etc/systemd/system/multi-user.target.wants) || code=4
: > /run/nixos/start-list

new='' failed=''
for unit in $(names); do
    if systemctl -q is-failed -- "$unit"; then
        failed="$failed $unit"
        say "Failed to start $unit"
        continue
    fi
    case "$unit" in *.scope) continue ;; esac
    printf '%s\n' "$before" | grep -qxF -e "$unit" || new="$new $unit"
done
tell "the following new units were started" "$new"
if [ -n "$failed" ]; then
    tell "warning: the following units failed" "$failed"
    systemctl status --no-pager --full $failed >&2
    code=4
fi
exit "$code"
