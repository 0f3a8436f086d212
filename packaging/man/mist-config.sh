#!/bin/sh
# mist-config.sh DOCUMENT: the document of the configuration as the manual page mist-config(5)
set -eu
printf '%s\n' "'\\\" t" # it has tables
{
    printf '# Name\n\nmist-config - configuration of the mist media server\n\n'
    sed -e '1s/^# .*/# Description/' -e 's/\[\([^]]*\)\]([^)]*)/\1/g' "$1"
    printf '\n# See also\n\nmist(1), mist-config(1), mist-serve(1), mist.service(8)\n'
} | lowdown -s -t man -m section=5 -m title=MIST-CONFIG -m source=mist -m volume="File formats" |
    sed -e '/^\.TS/i .ad l' -e '/^\.TE/a .ad b' -e '/^[^.]/s,[/?=&],&\\:,g' # narrow columns: ragged, and URLs may be broken
