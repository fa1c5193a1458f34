/*
 * netserve ADDRESS SECONDS: TCP services in the background, for so long at most.
 *
 *   echo      sends back what it gets
 *   discard   reads and forgets
 *   stall     never reads, and has a small receive buffer
 *   status    says the counters below as `key=value` lines, and closes
 *
 * Prints its process number and the services' ports in this order, once they are open. The counters:
 *
 *   accepted, bytes, resets   of echo, discard and stall, in this order
 *   refused                   connections for which there was no room
 */
#include "os.h"

#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <poll.h>

#define SERVICES 4
#define STATUS 3
#define MOST 1000
#define CHUNK 1024
#define SMALL 4096

static const char *const names[] = {"echo", "discard", "stall", "status"};

/* The first SERVICES entries are the listening sockets. */
static struct pollfd polls[SERVICES + MOST];
static struct connection {
    int service;
    int length, sent; /* of what waits to be echoed */
    char data[CHUNK];
} connections[SERVICES + MOST];
static int used = SERVICES;

static unsigned long accepted[SERVICES], bytes[SERVICES], resets[SERVICES], refused;

static void unblock(int fd)
{
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        die("fcntl");
}

/* A listening socket on a port that the system chooses; what ran here before can't be in the way. */
static int listener(const char *address, int service, int *port)
{
    struct sockaddr_in at;
    socklen_t size = sizeof(at);
    int small = SMALL;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0)
        die("socket");
    memset(&at, 0, sizeof(at));
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = inet_addr(address);
    if (strcmp(names[service], "stall") == 0 && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) != 0)
        die("SO_RCVBUF");
    if (bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0)
        die("bind");
    if (listen(fd, 256) != 0)
        die("listen");
    if (getsockname(fd, (struct sockaddr *)&at, &size) != 0)
        die("getsockname");
    *port = ntohs(at.sin_port);
    unblock(fd);
    return fd;
}

static void drop(int i, int reset)
{
    close(polls[i].fd);
    if (reset)
        resets[connections[i].service]++;
    used--;
    polls[i] = polls[used];
    connections[i] = connections[used];
}

/* The counters, whole: a few hundred bytes always fit into a new connection's send buffer. */
static void say_status(int fd)
{
    char text[512];
    int length;

    length = sprintf(text, "accepted=%lu %lu %lu\nbytes=%lu %lu %lu\nresets=%lu %lu %lu\nrefused=%lu\nend=ok\n",
                     accepted[0], accepted[1], accepted[2], bytes[0], bytes[1], bytes[2], resets[0], resets[1],
                     resets[2], refused);
    if (write(fd, text, length) != length)
        die("status");
}

static void take(int service)
{
    int fd;

    while ((fd = accept(polls[service].fd, NULL, NULL)) >= 0) {
        if (service == STATUS) {
            say_status(fd);
            close(fd);
            return; /* who asks next must see what has happened by then: that takes a poll */
        } else if (used == SERVICES + MOST) {
            refused++;
            close(fd);
        } else {
            accepted[service]++;
            unblock(fd);
            polls[used].fd = fd;
            polls[used].events = strcmp(names[service], "stall") == 0 ? 0 : POLLIN;
            polls[used].revents = 0;
            connections[used].service = service;
            connections[used].length = connections[used].sent = 0;
            used++;
        }
    }
}

/* 0, or -1 if the connection is over. */
static int serve(int i)
{
    struct connection *c = &connections[i];
    int n;

    if (c->sent == c->length) {
        n = read(polls[i].fd, c->data, CHUNK);
        if (n <= 0)
            return n < 0 && errno == EAGAIN ? 0 : -1;
        bytes[c->service] += n;
        if (strcmp(names[c->service], "echo") != 0)
            return 0;
        c->length = n;
        c->sent = 0;
    }
    n = write(polls[i].fd, c->data + c->sent, c->length - c->sent);
    if (n < 0 && errno != EAGAIN)
        return -1;
    if (n > 0)
        c->sent += n;
    polls[i].events = c->sent == c->length ? POLLIN : POLLOUT;
    return 0;
}

static void run(void)
{
    int i, error, pending, busy;
    socklen_t size;

    for (;;) {
        if (poll(polls, used, -1) < 0 && errno != EINTR)
            die("poll");
        busy = 0;
        /* Backwards: what takes the place of a dropped connection has been looked at. */
        for (i = used - 1; i >= SERVICES; i--) {
            if (polls[i].revents == 0)
                continue;
            busy = 1;
            errno = 0;
            if (polls[i].events != 0) {
                if (serve(i) != 0)
                    drop(i, errno == ECONNRESET);
                continue;
            }
            pending = 0;
            size = sizeof(pending);
            error = getsockopt(polls[i].fd, SOL_SOCKET, SO_ERROR, &pending, &size);
            drop(i, error == 0 && pending == ECONNRESET);
        }
        for (i = 0; i < STATUS; i++) {
            if ((polls[i].revents & POLLIN) == 0)
                continue;
            busy = 1;
            take(i);
        }
        /* The counters are true when there is nothing else to do. */
        if (!busy && polls[STATUS].revents & POLLIN)
            take(STATUS);
    }
}

int main(int argc, char **argv)
{
    struct rlimit files;
    pid_t child;
    int ports[SERVICES], i, sink;

    if (argc != 3) {
        fprintf(stderr, "usage: netserve ADDRESS SECONDS\n");
        return 2;
    }
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        die("getrlimit");
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    for (i = 0; i < SERVICES; i++) {
        polls[i].fd = listener(argv[1], i, &ports[i]);
        polls[i].events = POLLIN;
    }
    child = fork();
    if (child < 0)
        die("fork");
    if (child > 0) {
        printf("pid=%ld\nports=%d %d %d %d\n", (long)child, ports[0], ports[1], ports[2], ports[3]);
        finish();
        return 0;
    }
    /* Whoever started it must not have to wait for it: let go of the terminal and of the pipes. */
    setsid();
    alarm(atoi(argv[2]));
    sink = open("/dev/null", O_RDWR);
    if (sink < 0 || dup2(sink, 0) < 0 || dup2(sink, 1) < 0 || dup2(sink, 2) < 0)
        return 2;
    if (sink > 2)
        close(sink);
    run();
    return 0;
}
