/*
 * netrate CONNECTIONS MILLISECONDS ROUNDS: what TCP carries over the loopback, by that many connections at once.
 *
 *   rate=…    10^6 bytes a second over all connections, one value per round
 *
 * Each connection has a process that sends and one that receives.
 */
#include "os.h"

#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>

#define BLOCK 65536
#define MOST 64

static char block[BLOCK];

static void send_for(double length, int fd, int go)
{
    char byte;
    double end;

    if (read(go, &byte, 1) != 0) /* the starting gun: its other end is closed */
        _exit(2);
    end = os_now() + length;
    while (os_now() < end)
        if (write(fd, block, BLOCK) <= 0)
            _exit(2);
    _exit(0);
}

static void receive(int fd, int result)
{
    double bytes = 0;
    int n;

    while ((n = read(fd, block, BLOCK)) > 0)
        bytes += n;
    if (n < 0 || write(result, &bytes, sizeof(bytes)) != sizeof(bytes))
        _exit(2);
    _exit(0);
}

static pid_t start(void)
{
    pid_t child;

    fflush(stdout);
    child = fork();
    if (child < 0)
        die("fork");
    return child;
}

static double round_of(int connections, double length)
{
    struct sockaddr_in at;
    socklen_t size = sizeof(at);
    int door = socket(AF_INET, SOCK_STREAM, 0);
    int go[2], result[2];
    pid_t senders[MOST], receivers[MOST];
    int i, fd;
    double begin, bytes, total = 0;

    memset(&at, 0, sizeof(at));
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (door < 0 || bind(door, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(door, 16) != 0 ||
        getsockname(door, (struct sockaddr *)&at, &size) != 0)
        die("listen");
    if (pipe(go) != 0 || pipe(result) != 0)
        die("pipe");
    for (i = 0; i < connections; i++) {
        senders[i] = start();
        if (senders[i] == 0) {
            close(go[1]);
            fd = socket(AF_INET, SOCK_STREAM, 0);
            if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof(at)) != 0)
                _exit(2);
            send_for(length, fd, go[0]);
        }
        fd = accept(door, NULL, NULL);
        if (fd < 0)
            die("accept");
        receivers[i] = start();
        if (receivers[i] == 0) {
            close(go[1]);
            receive(fd, result[1]);
        }
        close(fd);
    }
    close(door);
    close(result[1]);
    begin = os_now();
    close(go[1]);
    close(go[0]);
    for (i = 0; i < connections; i++) {
        if (read(result[0], &bytes, sizeof(bytes)) != sizeof(bytes))
            die("a receiver");
        total += bytes;
    }
    length = os_now() - begin;
    close(result[0]);
    for (i = 0; i < connections; i++)
        if (os_reap(senders[i]) != 0 || os_reap(receivers[i]) != 0)
            die("a child");
    return total / length;
}

int main(int argc, char **argv)
{
    int rounds, i;

    if (argc != 4 || atoi(argv[1]) < 1 || atoi(argv[1]) > MOST) {
        fprintf(stderr, "usage: netrate CONNECTIONS MILLISECONDS ROUNDS\n");
        return 2;
    }
    rounds = atoi(argv[3]);
    signal(SIGPIPE, SIG_IGN);
    printf("rate=");
    for (i = 0; i < rounds; i++)
        printf("%s%.3f", i ? " " : "", round_of(atoi(argv[1]), atof(argv[2]) * 1e3));
    printf("\n");
    finish();
    return 0;
}
