/*
 * netdial ADDRESS PORT COUNT PORTS BIND: connect COUNT times, one after the other, to PORTS ports in turn from PORT on.
 * The source port is chosen by connect(2), or with BIND not 0 before that, by bind(2).
 *
 *   local=…      the source port of each connection, in their order
 *   refused=N    how many did not come about
 *
 * All stay open until the last one is made. They end with a reset, so that nothing lingers in the guest.
 */
#include "os.h"

#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>

int main(int argc, char **argv)
{
    struct sockaddr_in at;
    struct linger now;
    socklen_t size;
    int port, count, ports, first, i, fd, refused = 0;

    if (argc != 6) {
        fprintf(stderr, "usage: netdial ADDRESS PORT COUNT PORTS BIND\n");
        return 2;
    }
    port = atoi(argv[2]);
    count = atoi(argv[3]);
    ports = atoi(argv[4]);
    first = atoi(argv[5]);
    now.l_onoff = 1;
    now.l_linger = 0;
    printf("local=");
    for (i = 0; i < count; i++) {
        fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0)
            die("socket");
        if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) != 0)
            die("SO_LINGER");
        memset(&at, 0, sizeof(at));
        at.sin_family = AF_INET;
        if (first && bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0)
            die("bind");
        at.sin_port = htons((unsigned short)(port + i % ports));
        at.sin_addr.s_addr = inet_addr(argv[1]);
        if (connect(fd, (struct sockaddr *)&at, sizeof(at)) != 0) {
            refused++;
            continue;
        }
        size = sizeof(at);
        if (getsockname(fd, (struct sockaddr *)&at, &size) != 0)
            die("getsockname");
        printf("%s%d", i ? " " : "", ntohs(at.sin_port));
    }
    printf("\nrefused=%d\n", refused);
    finish();
    return 0;
}
