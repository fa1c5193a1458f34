/*
 * tap NAME: pass Ethernet frames between the existing tap interface NAME and standard input and output, until the
 * input ends. In the streams each frame comes behind its length, in 4 bytes, the highest first: as QEMU's socket
 * networks have it. See Linux, Documentation/networking/tuntap.rst.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LARGEST 65536u
#define HEAD 4u

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* One read at a time: whoever wrote half a frame writes the rest too. */
static int from_stream(int tap)
{
    static unsigned char held[HEAD + LARGEST];
    static size_t have;
    size_t size = 0, want = HEAD;
    ssize_t got;

    if (have >= HEAD) {
        size = (size_t)held[0] << 24 | (size_t)held[1] << 16 | (size_t)held[2] << 8 | held[3];
        if (size > LARGEST) {
            fprintf(stderr, "a frame of %zu bytes\n", size);
            exit(1);
        }
        want += size;
    }
    got = read(STDIN_FILENO, held + have, want - have);
    if (got < 0 && errno != EINTR && errno != EAGAIN)
        die("read");
    if (got == 0)
        return 0;
    if (got > 0)
        have += (size_t)got;
    if (have > HEAD && have == HEAD + size) {
        /* An Ethernet may lose what the kernel does not take: an interface that is down, a frame that is none. */
        if (write(tap, held + HEAD, size) < 0 && errno == EBADFD)
            die("the interface");
        have = 0;
    } else if (have == HEAD && want == HEAD && !memcmp(held, "\0\0\0\0", HEAD)) {
        have = 0;
    }
    return 1;
}

static void to_stream(int tap)
{
    static unsigned char held[HEAD + LARGEST];
    ssize_t got = read(tap, held + HEAD, LARGEST), put;
    size_t done = 0, size;

    if (got < 0) {
        if (errno != EINTR && errno != EAGAIN)
            die("the interface");
        return;
    }
    held[0] = 0;
    held[1] = (unsigned char)(got >> 16);
    held[2] = (unsigned char)(got >> 8);
    held[3] = (unsigned char)got;
    size = HEAD + (size_t)got;
    while (done < size) {
        put = write(STDOUT_FILENO, held + done, size - done);
        if (put < 0 && errno != EINTR)
            die("write");
        if (put > 0)
            done += (size_t)put;
    }
}

int main(int count, char **words)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    struct pollfd ends[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.events = POLLIN}};
    int tap;

    if (count != 2 || strlen(words[1]) >= sizeof(request.ifr_name)) {
        fprintf(stderr, "usage: tap NAME\n");
        return 2;
    }
    strcpy(request.ifr_name, words[1]);
    tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (tap < 0 || ioctl(tap, TUNSETIFF, &request) < 0)
        die("/dev/net/tun");
    ends[1].fd = tap;
    for (;;) {
        if (poll(ends, 2, -1) < 0 && errno != EINTR)
            die("poll");
        if (ends[0].revents && !from_stream(tap))
            return 0;
        if (ends[1].revents)
            to_stream(tap);
    }
}
