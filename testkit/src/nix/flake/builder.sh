# Builds a kernel or a system, by `what`. Only busybox is there.
set -eu
b() { "$busybox" "$@"; }

kernel() {
    b mkdir -p "$out/lib/modules/$release"
    echo "kernel $release" > "$out/bzImage"
    echo "initrd $release" > "$out/initrd"
    echo "modules of $release" > "$out/lib/modules/$release/modules.dep"
}

# The programs that are on the PATH of a NixOS host.
programs() {
    b mkdir -p "$out/sw/bin"
    for applet in $(b --list); do
        b ln -s "$busybox" "$out/sw/bin/$applet"
    done
    for program in systemctl systemd-run journalctl systemd-cat nix nix-env nix-store nix-daemon nix-build nix-collect-garbage sudo \
        hostname mount umount flock; do
        b ln -sfn "/usr/bin/$program" "$out/sw/bin/$program"
    done
    for program in reboot poweroff ip; do
        b ln -sfn "/usr/sbin/$program" "$out/sw/bin/$program"
    done
}

# Puts files of the form NAME=PATH into a directory.
place() {
    for word in $1; do
        b ln -s "${word#*=}" "$2/${word%%=*}"
    done
}

script() {
    b sed -e "s|@out@|$out|g" -e "s|@sh@|$busybox sh|g" "$1" > "$2"
    b chmod 755 "$2"
}

system() {
    eval "$building"
    wants=$out/etc/systemd/system/multi-user.target.wants
    b mkdir -p "$out/bin" "$wants" "$out/specialisation"
    programs
    place "$etc" "$out/etc"
    place "$units" "$out/etc/systemd/system"
    for unit in $wanted; do b ln -s "../$unit" "$wants/$unit"; done
    b ln -s "$kernel/bzImage" "$out/kernel"
    b ln -s "$kernel/initrd" "$out/initrd"
    b ln -s "$kernel" "$out/kernel-modules"
    printf '%s' "loglevel=4" > "$out/kernel-params"
    printf '%s' "$version" > "$out/nixos-version"
    printf '%s' "$revision" > "$out/configuration-revision"
    printf '%s' "$initInterface" > "$out/init-interface-version"
    printf '%s' "x86_64-linux" > "$out/system"
    printf '%s\n' "$activation" > "$out/activation"
    script "$activate" "$out/activate"
    script "$switch" "$out/bin/switch-to-configuration"
    b ln -s activate "$out/init"
}

"$what"
