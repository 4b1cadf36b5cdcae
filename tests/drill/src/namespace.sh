# Lays out the network of a run within its namespaces, then becomes the program that the arguments name. Node N is the namespace nN with
# the address 10.77.0.N and the name nN; the run itself is on the bridge between them, and is cut off from none.
set -e
mount -t tmpfs tmpfs /run
ip link set lo up
ip link add drill type bridge
ip address add 10.77.0.254/24 dev drill
ip link set drill up
echo '127.0.0.1 localhost' >/run/hosts
for n in 1 2 3; do
    echo "10.77.0.$n n$n" >>/run/hosts
    ip netns add "n$n"
    ip link add "d$n" type veth peer name eth0 netns "n$n"
    ip link set "d$n" master drill up
    ip -n "n$n" link set lo up
    ip -n "n$n" address add "10.77.0.$n/24" dev eth0
    ip -n "n$n" link set eth0 up
done
mount --bind /run/hosts /etc/hosts
exec "$@"
