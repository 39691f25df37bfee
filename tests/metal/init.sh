#!/bin/sh
# The first process of a host. It reaps whatever loses its parent, as the shell does while it waits,
# and starts an sshd that ended again, with the options that it has by then.
exec < /dev/null > /dev/null 2>&1
while :; do
    SSHD_OPTS=
    [ ! -r /etc/default/ssh ] || . /etc/default/ssh
    /usr/sbin/sshd -D -e $SSHD_OPTS 2>> /var/log/sshd.log
    sleep 0.1
done
