/*
 * latency BATCHES MILLISECONDS: what small things cost, in microseconds each, one mean per batch of that length.
 *
 *   syscall   getppid
 *   pipe      a byte through a pipe and back out, in one process
 *   switch    half of a byte's round trip between two processes on one CPU
 *   fork      fork, exit, wait
 *   exec      fork, exec of a program that does nothing, wait
 *   nap       by how much a sleep of 1 ms was too long, one value per sleep
 */
#include "os.h"

#define NAPS 50

static const char *self;
static int ends[4];

static void once_syscall(void)
{
    getppid();
}

static void once_pipe(void)
{
    char byte = 0;

    if (write(ends[1], &byte, 1) != 1 || read(ends[0], &byte, 1) != 1)
        die("pipe");
}

static void once_switch(void)
{
    char byte = 0;

    if (write(ends[1], &byte, 1) != 1 || read(ends[2], &byte, 1) != 1)
        die("switch");
}

static void once_fork(void)
{
    pid_t child = fork();

    if (child == 0)
        _exit(0);
    if (child < 0 || os_reap(child) != 0)
        die("fork");
}

static void once_exec(void)
{
    pid_t child = fork();

    if (child == 0) {
        execl(self, self, (char *)NULL);
        _exit(3);
    }
    if (child < 0 || os_reap(child) != 0)
        die("exec");
}

/* Batches of `length` microseconds; the clock is read only now and then, so as not to be what is measured. */
static void measure(const char *name, void (*once)(void), int batches, double length, unsigned stride, double per)
{
    int batch;

    once();
    printf("%s=", name);
    for (batch = 0; batch < batches; batch++) {
        unsigned long done = 0;
        unsigned i;
        double begin = os_now(), end;

        do {
            for (i = 0; i < stride; i++)
                once();
            done += stride;
            end = os_now();
        } while (end - begin < length);
        printf("%s%.3f", batch ? " " : "", (end - begin) / done / per);
        fflush(stdout);
    }
    printf("\n");
    fflush(stdout);
}

static void measure_switch(int batches, double length)
{
    pid_t child;
    char byte;

    if (pipe(ends) != 0 || pipe(ends + 2) != 0)
        die("pipe");
    child = fork();
    if (child < 0)
        die("fork");
    os_pin(0);
    if (child == 0) {
        close(ends[1]);
        while (read(ends[0], &byte, 1) == 1)
            if (write(ends[3], &byte, 1) != 1)
                _exit(1);
        _exit(0);
    }
    measure("switch", once_switch, batches, length, 16, 2);
    close(ends[1]);
    os_reap(child);
}

static void measure_naps(void)
{
    struct timespec nap;
    double begin;
    int i;

    printf("nap=");
    for (i = 0; i < NAPS; i++) {
        nap.tv_sec = 0;
        nap.tv_nsec = 1000000;
        begin = os_now();
        if (nanosleep(&nap, NULL) != 0)
            die("nanosleep");
        printf("%s%.1f", i ? " " : "", os_now() - begin - 1000.0);
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    int batches;
    double length;

    if (argc < 3)
        return 0;
    self = argv[0];
    batches = atoi(argv[1]);
    length = atof(argv[2]) * 1e3;
    if (pipe(ends) != 0)
        die("pipe");
    measure_naps();
    measure("syscall", once_syscall, batches, length, 64, 1);
    measure("pipe", once_pipe, batches, length, 16, 1);
    measure("fork", once_fork, batches, length, 1, 1);
    measure("exec", once_exec, batches, length, 1, 1);
    measure_switch(batches, length);
    finish();
    return 0;
}
