# The first process of a host: gives it a file system of its own, waits for its network, becomes its sshd.
# Runs inside new mount, PID, UTS, IPC and network namespaces; whatever it mounts goes when it ends.
#   $1 scratch folder   $2 name   $3 address   $4 router   $5 home   $6 the environment's folder   $7 its Python's folder   $8 shared folder
set -eu
root=$1
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"

for folder in /bin /sbin /lib* /usr /opt; do
  if [ -L "$folder" ]; then cp -P "$folder" .; else mkdir ".$folder" && mount --rbind "$folder" ".$folder"; fi
done
cp -a /etc etc
mkdir -p proc sys dev run/sshd var/tmp var/log var/empty shared tmp root
touch var/log/lastlog
chmod 1777 tmp var/tmp
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount --bind "$8" shared

# Python with all that fissura needs, the same for all hosts; what a host installs stays its own
case $7 in /usr | /usr/*) ;; *) mkdir -p ".$7" && mount --rbind "$7" ".$7" ;; esac
mkdir -p ".$6" overlay/upper overlay/work
mount -t overlay -o "lowerdir=$6,upperdir=overlay/upper,workdir=overlay/work" overlay ".$6"

# its user: root by another name, so that the file for `ray up` names no root
mkdir -p ".$5/.ssh"
cp -a /etc/skel/. ".$5"
sed -i "1i $(basename "$5"):x:0:0::$5:/bin/bash" etc/passwd
sed -i "1i $(basename "$5"):*:19000:0:99999:7:::" etc/shadow
ln -s "$6" ".$5/env"
chmod 700 ".$5" ".$5/.ssh"
printf '127.0.0.1 localhost\n%s %s\n' "$3" "$2" > etc/hosts
hostname "$2"

until ip link show eth0 > /dev/null 2>&1; do sleep 0.05; done
ip link set lo up
ip addr add "$3/24" dev eth0
ip link set eth0 up
ip route add default via "$4"

ssh-keygen -q -t ed25519 -N '' -f etc/ssh/key_of_this_host
mkdir -p old
pivot_root . old
cd /
umount -l old
exec /usr/sbin/sshd -D -e -f /dev/null -h /etc/ssh/key_of_this_host -o PidFile=none -o PasswordAuthentication=no
