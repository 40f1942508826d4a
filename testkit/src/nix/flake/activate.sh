#!@sh@
# Puts /etc in place and says which system is the current one; without `/run/booted-system` also which was booted.
PATH=@out@/sw/bin
set -u
code=0
echo "setting up /etc..."
mkdir -p /etc/systemd/system
: > /etc/NIXOS
ln -sfn @out@/etc /etc/static.next && mv -T /etc/static.next /etc/static
# Links lead to /etc/static, so that what changes in there changes at once.
links=$(cd /etc/static/. && find . ! -type d)
for link in $links; do
    mkdir -p "/etc/${link%/*}"
    ln -sfn "/etc/static/${link#./}" "/etc/$link"
done
# What the system before had and this one has not.
find /etc -xdev -type l | while read -r link; do
    case $(readlink "$link") in
        /etc/static/*) [ -L "$link" ] && [ -e "$link" ] || rm "$link" ;;
    esac
done
sh @out@/activation || { echo "Activation script snippet 'test' failed ($?)" >&2; code=1; }
ln -sfn @out@ /run/current-system.next && mv -T /run/current-system.next /run/current-system
[ -e /run/booted-system ] || ln -sfn @out@ /run/booted-system
exit "$code"
