# Cairn's half of an activation, on the host. The other half sends it over SSH and asks by the deployment's id; from
# `begin` on the host goes on by itself, whatever becomes of the other half.
#
#   begin ─▶ cairn-activation.service:  arm cairn-rollback.timer ─▶ switch-to-configuration test ─▶ on trial
#   confirm │ roll-back │ the timer ─▶ verdict, taken once ─▶ cairn-rollback.service: settle
#
# Both units have one name for the whole host, so that the service manager lets one deployment at a time have it. The
# verdict is a hard link: whoever makes it first decides, and settle only does what it says, as often as it is started.
# Tests set `root`; on a host it is empty.
root=''
run="$root/run/cairn"
profile="$root/nix/var/nix/profiles/system"
current="$root/run/current-system"
booted="$root/run/booted-system"
roots="$root/nix/var/nix/gcroots"
PATH="$PATH:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LC_ALL=C
export PATH LC_ALL
umask 077

# --- what is written and read -------------------------------------------------------------------------------------

put() { printf '%s\n' "$2" >"$d/$1.$$" && mv -f "$d/$1.$$" "$d/$1"; }
get() { if [ -f "$d/$1" ]; then cat "$d/$1"; fi; }
# Lines on standard input as the text of JSON strings.
text() { tr '\t' ' ' | tr -d '\000-\010\013-\037\177' | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g'; }
said() { printf '%s' "$1" | tr '\n' ' ' | text; }
lines() { text | sed -e "s/^/{\"kind\":\"$1\",\"text\":\"/" -e 's/$/"}/'; }
fail() { printf '{"kind":"error","text":"%s"}\n' "$(said "$1")"; exit 3; }
uptime() { read -r seconds _ <"/proc/uptime" && printf '%s' "${seconds%%.*}"; }
target() { if [ -e "$1" ]; then readlink -f "$1"; fi; }
system() { if [ -x "$1/bin/switch-to-configuration" ]; then return 0; fi; fail "$1 is no NixOS system on this host"; }

# The deployment that a loaded unit of ours belongs to: its description ends with the id.
of_unit() {
    systemctl show --property=LoadState --property=ActiveState --property=Description "$1" 2>/dev/null | {
        loaded='' active='' owner=''
        while IFS= read -r line; do
            case $line in
            LoadState=*) loaded=${line#LoadState=} ;;
            ActiveState=*) active=${line#ActiveState=} ;;
            'Description=Cairn deployment '*) owner=${line##* } ;;
            esac
        done
        case $loaded:$active in
        loaded:active | loaded:activating | loaded:deactivating | loaded:reloading) printf '%s' "$owner" ;;
        esac
    }
}
holder() {
    for unit in cairn-activation.service cairn-rollback.service cairn-rollback.timer; do
        owner=$(of_unit "$unit")
        if [ -n "$owner" ]; then
            printf '%s' "$owner"
            return
        fi
    done
}
is_settled() {
    case $(get phase) in
    confirmed | rolled-back | rollback-failed | not-armed) return 0 ;;
    esac
    return 1
}

# --- answers ------------------------------------------------------------------------------------------------------

differs() { for part in kernel initrd kernel-modules; do
    if [ "$(target "$booted/$part")" != "$(target "$1/$part")" ]; then return 0; fi
done; return 1; }
reboot() { if [ -e "$booted" ] && differs "$1"; then printf true; else printf false; fi; }
show_running() {
    printf '{"kind":"running","bootId":"%s","current":"%s","booted":"%s","profile":"%s","rebootRequired":%s}\n' \
        "$(said "$(cat /proc/sys/kernel/random/boot_id)")" "$(said "$(target "$current")")" \
        "$(said "$(target "$booted")")" "$(said "$(target "$profile")")" "$(reboot "$current")"
    systemctl list-units --state=failed --plain --no-legend --full --no-pager 2>/dev/null |
        while read -r unit _; do printf '%s\n' "$unit"; done | lines failed
}
show_activation() {
    owner=$(holder)
    phase=$(get phase)
    # Begun, and cut off before anything was armed: as if it had not been begun.
    if [ -z "$phase" ] || { [ "$phase" = arming ] && [ "$owner" != "$id" ]; }; then
        phase=absent
    fi
    age=0
    if [ -n "$owner" ] && [ -f "$run/$owner/started" ]; then
        age=$(($(uptime) - $(cat "$run/$owner/started")))
    fi
    printf '{"kind":"activation","phase":"%s","code":"%s","reason":"%s","holder":"%s","age":%s}\n' \
        "$(said "$phase")" "$(said "$(get code)")" "$(said "$(get reason)")" "$(said "$owner")" "$age"
    if [ -f "$d/log" ]; then tail -n 40 "$d/log" | cut -c 1-400 | lines log; fi
}
answer() { show_activation; show_running; }

# --- the activation -----------------------------------------------------------------------------------------------

begin() {
    new=$1 seconds=$2
    phase=$(get phase)
    owner=$(holder)
    if [ "$owner" = "$id" ] || { [ -n "$phase" ] && [ "$phase" != arming ]; } || [ -n "$owner" ]; then
        answer
        return
    fi
    system "$new"
    previous=$(target "$profile")
    if [ -z "$previous" ]; then previous=$(target "$current"); fi
    system "$previous"
    put new "$new"
    put previous "$previous"
    put seconds "$seconds"
    put started "$(uptime)"
    mkdir -p "$roots" && ln -sfn "$new" "$roots/cairn-$id" && ln -sfn "$previous" "$roots/cairn-$id-previous" ||
        fail "cannot keep $new from being collected"
    put phase arming
    # What an activation that was killed has left.
    systemctl reset-failed cairn-activation.service cairn-rollback.service 2>/dev/null
    if ! systemd-run --quiet --collect --no-ask-password --unit=cairn-activation --remain-after-exit \
        --description="Cairn deployment $id" --service-type=exec --property=TimeoutStopSec=20s \
        /bin/sh "$d/host.sh" work "$id" >"$d/begin" 2>&1 && [ "$(holder)" != "$id" ] && [ "$(get phase)" = arming ]; then
        # Another one was faster, or the service manager refuses.
        if [ -n "$(holder)" ]; then answer; return; fi
        fail "the activation cannot be begun: $(cat "$d/begin")"
    fi
    answer
}

# Runs in cairn-activation.service.
work() {
    new=$(get new)
    if ! systemd-run --quiet --collect --no-ask-password --unit=cairn-rollback \
        --description="Cairn deployment $id" --on-active="$(get seconds)s" --timer-property=AccuracySec=1s \
        --service-type=oneshot /bin/sh "$d/host.sh" settle "$id" >>"$d/log" 2>&1; then
        put reason 'the way back cannot be armed'
        put phase not-armed
        drop_roots
        exit 1
    fi
    put phase testing
    "$new/bin/switch-to-configuration" test >>"$d/log" 2>&1
    code=$?
    put code "$code"
    if [ "$code" -eq 0 ]; then
        put phase on-trial
    else
        decide "roll-back the activation ended with $code"
        systemctl start --no-block cairn-rollback.service
    fi
}

# Takes the verdict; fails when there is one.
decide() {
    printf '%s\n' "$1" >"$d/verdict.$$"
    ln "$d/verdict.$$" "$d/verdict" 2>/dev/null
    decided=$?
    rm -f "$d/verdict.$$"
    return "$decided"
}

# Runs in cairn-rollback.service, started by its timer or by a verdict.
settle() {
    if is_settled; then return; fi
    decide 'roll-back it was not confirmed in time'
    verdict=$(get verdict)
    new=$(get new) previous=$(get previous)
    case $verdict in
    confirm)
        put phase confirming
        if nix-env --profile "$profile" --set "$new" >>"$d/log" 2>&1 &&
            "$new/bin/switch-to-configuration" boot >>"$d/log" 2>&1; then
            put phase confirmed
        else
            nix-env --profile "$profile" --set "$previous" >>"$d/log" 2>&1
            "$previous/bin/switch-to-configuration" boot >>"$d/log" 2>&1
            back 'it could not be made the one to start'
        fi
        ;;
    *) back "${verdict#roll-back }" ;;
    esac
    drop_roots
    systemctl stop cairn-rollback.timer cairn-activation.service 2>/dev/null
    systemctl reset-failed cairn-activation.service 2>/dev/null
    return 0
}

back() {
    systemctl stop cairn-activation.service 2>/dev/null
    put reason "$1"
    put phase rolling-back
    "$previous/bin/switch-to-configuration" test >>"$d/log" 2>&1
    code=$?
    put code "$code"
    if [ "$code" -ne 0 ]; then put reason "$1; activating the old system ended with $code"; fi
    if [ "$code" -eq 0 ] || [ "$(target "$current")" = "$(target "$previous")" ]; then
        put phase rolled-back
    else
        put phase rollback-failed
    fi
}

drop_roots() { rm -f "$roots/cairn-$id" "$roots/cairn-$id-previous"; }

# Has settle do what the verdict says, and waits for it. The unit is there as long as its timer is.
settled() {
    if is_settled; then return; fi
    systemctl start cairn-rollback.service 2>/dev/null && is_settled && return
    if is_settled; then return; fi
    systemd-run --quiet --collect --no-ask-password --unit=cairn-rollback --description="Cairn deployment $id" \
        --service-type=oneshot /bin/sh "$d/host.sh" settle "$id" >/dev/null 2>&1
}

confirm() {
    case $(get phase):$(get verdict) in
    on-trial:) decide confirm && settled ;;
    on-trial:confirm | confirming:*) settled ;;
    esac
    answer
}

roll_back() {
    case $(get phase):$(get verdict) in
    testing: | on-trial:) decide "roll-back $1" && settled ;;
    testing:roll-back* | on-trial:roll-back* | rolling-back:*) settled ;;
    esac
    answer
}

forget() {
    if [ ! -d "$d" ] || is_settled || [ "$(holder)" != "$id" ]; then rm -rf "$d"; fi
}

# --- beside it ----------------------------------------------------------------------------------------------------

preview() {
    new=$1
    system "$new"
    "$new/bin/switch-to-configuration" dry-activate 2>&1 </dev/null | cut -c 1-65536 | lines dry
    mkdir -p "$run" && chmod 711 "$run"
    both="$run/preview.$$"
    mkdir "$both" || fail "cannot write below $run"
    trap 'rm -rf "$both"' EXIT
    nix-store --query --requisites "$(target "$current")" 2>/dev/null | sort >"$both/old"
    nix-store --query --requisites "$new" 2>/dev/null | sort >"$both/new"
    comm -13 "$both/old" "$both/new" | head -n 2000 | lines added
    comm -23 "$both/old" "$both/new" | head -n 2000 | lines removed
    printf '{"kind":"reboot","required":%s}\n' "$(reboot "$new")"
}

# A file whose content is on standard input; it is there as a whole or not at all.
deliver() {
    path=$1 owner=$2 group=$3 mode=$4 size=$5
    case /$path/ in
    */../* | */./* | *//*) fail "$path is no path below $run/files" ;;
    esac
    file="$run/files/$path"
    umask 066
    mkdir -p "${file%/*}" || fail "cannot make ${file%/*}"
    chmod 711 "$run" "$run/files"
    umask 077
    part="$file.part"
    rm -f "$part"
    cat >"$part" && [ "$(wc -c <"$part")" -eq "$size" ] || fail "$file did not arrive as a whole"
    chown "$owner:$group" "$part" 2>/dev/null || fail "$file cannot belong to $owner:$group"
    chmod "$mode" "$part" && mv -f "$part" "$file" || fail "cannot write $file"
    printf '{"kind":"delivered"}\n'
}

# --- the way in ---------------------------------------------------------------------------------------------------

main() {
    verb=$1
    shift
    case $verb in
    running) show_running; return ;;
    preview) preview "$1"; return ;;
    esac
    id=$1
    shift
    case $id in
    '' | *[!0-9a-f-]*) fail 'no deployment is named' ;;
    esac
    d="$run/$id"
    case $verb in
    begin) begin "$1" "$2" ;;
    work) work ;;
    settle) settle ;;
    status) answer ;;
    confirm) confirm ;;
    roll-back) roll_back "$1" ;;
    forget) forget ;;
    deliver) deliver "$@" ;;
    *) fail "there is no $verb" ;;
    esac
}

# One line, so that a script that arrived in part does nothing, and what is started here does not read the rest of it.
if [ "$1" = deliver ]; then main "$@"; else main "$@" </dev/null; fi; exit
