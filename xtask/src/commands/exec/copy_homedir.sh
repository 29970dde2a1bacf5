# Copies the home $1 to the folder $1-homedir in the home $2, and says every half minute how many of $4 files it has.
#
# The copy is made in the folder $3 of $2, which only root may enter. Whatever the people do in their homes meanwhile, tar
# follows no link in $1, and this script stays in $3 even when that is moved away.
set -o pipefail

fail() {
    echo "$1" >&2
    exit 1
}

cd "/home/$2" || exit
mkdir --mode=700 -- "$3" && cd -- "$3" || exit
# Somebody may have put another folder or a link in its place. A home passes its setgid bit on.
[[ "$(/bin/pwd -P) $(stat --format='%u %a' .)" == "/home/$2/$3 0 "?(2)700 ]] || fail "/home/$2/$3 was moved away"
[[ -z "$(ls --almost-all)" ]] || fail "/home/$2/$3 is not empty"

tar --create --directory=/home --format=posix --sparse --acls --xattrs --no-unquote "./$1" |
    tar --extract --numeric-owner --acls --xattrs & copying=$!
echo $copying > /tmp/copying
( while sleep 30 <&- >&- 2>&-; do echo "$(find . -mindepth 2 -printf . | wc -c) of $4 files" >&2; done ) & telling=$!
wait $copying; code=$?
kill $telling

# tar says by 1 that somebody changed a file meanwhile.
[ $code -le 1 ] && mv --no-target-directory -- "$1" "../$1-homedir" && rmdir "../$3"
